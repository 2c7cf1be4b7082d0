"""Sums of weighted, normalised 1×1 convolutions of many images, as mixed cells add them up; in
training.

Written as in the papers, a mixed edge runs each candidate by itself, normalises what comes out,
multiplies it by its weight in the mixture and adds it up. Most of that time goes into moving
memory. But an operation ends in

    norm(pointwise(z)),    z = spatial(x)

whose 1×1 convolution (a matrix W) and BatchNorm do not mix pixels. With n pixels as the rows of z,
BatchNorm needs the mean and the variance of z W', and both follow from the mean m and the second
moments G = z'z / n of z itself:

    mean = W m,    variance = diag(W G W') - mean^2,    norm(z W') = (z W' - mean) / sqrt(variance +
    eps)

So the weight of the mixture, BatchNorm and convolution are one small matrix and a shift
(:mod:`supernet.ops.folding`), and what an edge adds to its node is

    sum over options of z M' + shift,    M = weight * W / sqrt(variance + eps)

in which nothing but the z is ever stored: not the outputs of convolutions, BatchNorms or
multiplications. What has no weights of its own (a pooling, the identity) has the unit matrix for W,
of which only the diagonal is needed. The z are given, or made here: all depthwise convolutions of
an image are one call, both poolings another, and each gives the moments of what it makes.

Backward, with Q the gradient of the sum: that of M is Q'z and that of the shift Q's own sum. The
small algebra takes them to those of W, of the weights of the mixture, of m and of G; and z gets Q M
+ (z (dG + dG') + dm) / n, a sum of products again. What made the z computes it on the way to its
own gradient.

:func:`formula` says the same in torch, and is what runs where there are no compiled kernels, and
where a gradient is asked to be differentiated again. :class:`Plan` is for the kernels: where in a
few buffers the matrices, moments and gradients of each term lie.

Under autocast to bfloat16, where the processor has tiles for it (``half.h``), the z and the
gradients Q that they are multiplied with are bfloat16, as is what the first of two convolutions
hands to the second. The moments, which are those of the rounded z, all small matrices and the sums
stay float32; elsewhere everything does.

Of the z most are cheap to make and dear to keep. With ``recompute`` none is kept: backward makes
them again from what they are made of, which is kept in any case (the same kernels on the same
images, so the same bits), while moments and statistics are those of forward.
"""

import ctypes
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from supernet.ops import depthwise, pooling
from supernet.ops.folding import Layout, Small, Statistics, fold, plain, unfold
from supernet.ops.native import half, known
from supernet.ops.rows import Grams, Terms, products

Kind = depthwise.Kind | pooling.Kind
MAKERS = {
    depthwise.Kind: depthwise,
    pooling.Kind: pooling,
}  # each with functions plain, forward and backward


@dataclass(frozen=True)
class Term:
    """``norm(pointwise(z))``, of which each may be missing, where the pixels of z are
    ``rows[source][index]`` [pixels, C].

    It adds to ``target``; ``position`` is the place of its weight.
    """

    source: int
    index: int
    pointwise: nn.Conv2d | None
    norm: nn.BatchNorm2d | None
    target: int
    position: int = 0


class Plan:
    """Where everything lies when a combination of images of so many ``channels`` is computed, as
    far as no step changes it.

    There are three buffers, of which a matrix takes channels² numbers and a row channels:

    * ``statistics``: second moments of the images that need them, diagonals of those of others, means of both;
    * ``parts``: matrices of terms, diagonals of others, shifts of targets;
    * ``work``: the gradients of these parts; matrices and diagonals for what comes back; those by which the images themselves are
      multiplied, the gradients of their moments; and the shifts of these, in the order of sources.

    Of addresses in the images, ``bases`` are where the sources begin; backward, where the gradients
    of targets do, and then those.
    """

    def __init__(self, layout: "Combination", channels: int):
        square, full = channels * channels, layout.layout.full
        wholes, diagonals, targets = len(layout.whole), len(layout.diagonal), layout.targets
        terms = list(enumerate(layout.terms))

        def stacked(
            count: int, of: int
        ) -> list[int]:  # where each of matrices and, after them, rows begins
            return [
                k * square if k < of else of * square + (k - of) * channels
                for k in range(count + 1)
            ]

        matrix = stacked(len(terms), full)
        shift = [matrix[-1] + k * channels for k in range(targets + 1)]
        moment = stacked(wholes + diagonals, wholes)
        mean = [moment[-1] + k * channels for k in range(wholes + diagonals + 1)]
        back, of_moment = shift[-1], shift[-1] + matrix[-1]
        self.parts, self.statistics, self.work = (
            shift[-1],
            mean[-1],
            of_moment + moment[-1] + sum(layout.counts) * channels,
        )
        self.shift, self.backward_shift = (
            shift[0],
            [4 * (of_moment + moment[-1] + k * channels) for k in layout.bases],
        )

        self.tables: list[
            tuple[slice, slice] | None
        ] = []  # of each source: where the moments go that are made with its images
        images = layout.whole + layout.diagonal
        made = 0, 0
        for source, (kind, count) in enumerate(zip(layout.kinds, layout.counts, strict=True)):
            if kind is None or (source, 0) not in images:
                self.tables.append(None)
                continue
            k = images.index((source, 0))
            self.tables.append(
                (slice(moment[k], moment[k + count]), slice(mean[k], mean[k + count]))
            )
            made = (k + count, made[1]) if k < wholes else (made[0], k - wholes + count)
        rest = [
            *range(made[0], wholes),
            *range(wholes + made[1], wholes + diagonals),
        ]  # images that are given, and normed
        self.moments = Grams(
            [(images[k], images[k], moment[k], "full" if k < wholes else "diagonal") for k in rest]
            + [(None, images[k], mean[k], "sum") for k in rest]
        )
        self.sums = Terms(
            [
                [((s, i), matrix[t], t < full) for t, (s, i, to) in terms if to == target]
                for target in range(targets)
            ]
        )
        self.slopes = Grams(
            [
                ((to, 0), (targets + s, i), matrix[t], "full" if t < full else "diagonal")
                for t, (s, i, to) in terms
            ]
            + [(None, (to, 0), shift[to], "sum") for to in range(targets)]
        )
        self.back = [
            Terms(
                [
                    [
                        ((to, 0), back + matrix[t], t < full)
                        for t, (s, i, to) in terms
                        if (s, i) == (source, index)
                    ]
                    + [
                        ((targets + source, index), of_moment + moment[k], k < wholes)
                        for k, image in enumerate(images)
                        if image == (source, index)
                    ]
                    for index in range(count)
                ]
            )
            for source, count in enumerate(layout.counts)
        ]


class Combination:
    """What is the same in every step when terms are combined: T of them, in an order in which the
    first ``full`` have a pointwise and a norm; of the others, which have none, only the first have
    norms.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        kinds: Sequence[Kind | None],
        targets: int,
        device: torch.device,
        stacked: bool = False,
        recompute: bool = False,
    ):
        terms = sorted(
            terms,
            key=lambda term: (term.pointwise is None, term.norm is None, term.source, term.index),
        )
        self.terms = [(term.source, term.index, term.target) for term in terms]
        self.norms = [term.norm for term in terms if term.norm is not None]
        self.pointwise = [term.pointwise for term in terms if term.pointwise is not None]
        self.affine = self.norms if self.norms and self.norms[0].affine else []
        self.kinds, self.targets, self.stacked = (
            tuple(kinds),
            targets,
            stacked,
        )  # kinds: what makes the images that are not given
        self.recompute = recompute  # whether backward makes those again, or forward keeps them
        full = len(self.pointwise)
        self.counts = [
            1 if kind is None else kind.count for kind in kinds
        ]  # of the images of each source
        self.bases = [0, *accumulate(self.counts)][:-1]
        places = [(source, index) for source, index, _ in self.terms[: len(self.norms)]]
        made = [
            (source, k, kind)
            for source, kind in enumerate(kinds)
            if kind is not None
            for k in range(kind.count)
        ]
        convolved = [(source, k) for source, k, kind in made if isinstance(kind, depthwise.Kind)]
        normed = {source for source, _ in places}
        pooled = [
            (source, k)
            for source, k, kind in made
            if isinstance(kind, pooling.Kind) and source in normed
        ]
        # The images, each once, whose second moments are needed, and those of which the diagonal is
        # enough; those made here first.
        self.whole = list(dict.fromkeys(convolved + places[:full]))
        self.diagonal = list(dict.fromkeys(pooled + places[full:]))
        if both := set(self.whole) & set(self.diagonal):
            raise ValueError(
                f"images {sorted(both)} are normed as they are and after a 1×1 convolution: give "
                "them twice"
            )
        self.layout = Layout(
            full,
            [*map(self.whole.index, places[:full]), *map(self.diagonal.index, places[full:])],
            len(self.whole),
            len(self.diagonal),
            [term.target for term in terms],
            targets,
            [term.position for term in terms],
            [self.bases[source] + index for source, index in self.whole + self.diagonal],
            sum(self.counts),
            self.norms[0].eps if self.norms else 0.0,
            device,
        )
        self.plans: dict[int, Plan] = {}
        # Runs of terms on images of one source: which, from where to where, places of the images
        # (none: as they are), targets.
        self.runs: list[tuple[int, int, int, Tensor | None, Tensor]] = []
        for (_, source), run in groupby(
            range(len(terms)), key=lambda t: (t < full, self.terms[t][0])
        ):
            some = [self.terms[t] for t in run]
            start = self.runs[-1][2] if self.runs else 0
            of_images, goals = [index for _, index, _ in some], [target for *_, target in some]
            kind = kinds[source]
            as_they_are = kind is None or of_images == list(
                range(kind.count)
            )  # what is given is one for all
            images = None if as_they_are else torch.tensor(of_images, device=device)
            self.runs.append(
                (source, start, start + len(some), images, torch.tensor(goals, device=device))
            )

    def plan(self, channels: int) -> Plan:
        """For images of so many channels."""
        if channels not in self.plans:
            self.plans[channels] = Plan(self, channels)
        return self.plans[channels]

    def track(self, observed: tuple[Tensor, Tensor], pixels: int) -> None:
        """The norms' running statistics of the means and variances that they saw, of so many
        ``pixels``.
        """
        if self.norms:
            track(self.norms, *(table.detach() for table in observed), pixels)

    def split(
        self, tensors: Sequence[Any]
    ) -> tuple[Sequence[Any], list[Sequence[Any]], Sequence[Any]]:
        """What the function below is given, or a list in that order: the small tensors, those of
        each images, the starts.
        """
        count = 1 + len(self.pointwise) + 2 * len(self.affine)
        small, rest, each = tensors[:count], tensors[count:], []
        for kind in self.kinds:
            count = 1 if kind is None else 1 + kind.weights
            each.append(rest[:count])
            rest = rest[count:]
        return small, each, rest

    def __call__(
        self,
        images: Sequence[Sequence[Tensor]],
        weights: Tensor | None = None,
        starts: Sequence[Tensor | None] = (),
        dtype: torch.dtype | None = None,
    ) -> list[Tensor]:
        """For each target its start [B, C, H, W] plus the sum of its terms, normalised and
        weighted: [B, H, W, C], or all of them as one [K, B, H, W, C] if ``stacked``. Of ``images``
        each is alone, [K, B, H, W, C], or what others are made of, with the weights that do it.
        ``dtype`` is that of the rows that are combined, if not that of the images.
        """
        small = [weights, *(conv.weight for conv in self.pointwise)]
        small += [*(norm.weight for norm in self.affine), *(norm.bias for norm in self.affine)]
        _, batch, height, width, channels = images[0][0].shape
        if self.kinds[0] is not None:
            height, width = ((length - 1) // self.kinds[0].stride + 1 for length in (height, width))
        flat = [
            (rows_of(x),) if kind is None else (x, *kernels)
            for kind, (x, *kernels) in zip(self.kinds, images, strict=True)
        ]
        starts = starts or [None] * self.targets
        begun = [
            None if start is None else start.permute(0, 2, 3, 1).reshape(-1, channels).contiguous()
            for start in starts
        ]
        tensors = *small, *(tensor for some in flat for tensor in some), *begun
        native = (known(images[0][0]) or dtype is not None) and all(
            len(some) == 1 or depthwise.knows(some[1:]) for some in images
        )
        sums = (
            _Combined.apply(self, dtype, *tensors)
            if native
            else combined(self, *self.split(tensors))
        )
        shape = ((-1,) if self.stacked else ()) + (batch, height, width, channels)
        return [total.view(shape) for total in sums]


def rows_of(images: Tensor) -> Tensor:
    """Images [K, B, H, W, C] as [K, pixels, C]."""
    return images.reshape(len(images), -1, images.shape[-1]).contiguous()


def combined(layout: Combination, small, images, starts) -> Sequence[Tensor]:
    """What a combination gives, in rows [pixels, C], by torch."""
    run = (
        functools.partial(checkpoint, formula, use_reentrant=False, preserve_rng_state=False)
        if layout.recompute
        else formula
    )
    sums, observed = run(layout, small, images)
    layout.track(observed, sums.shape[1])
    sums = [
        total if start is None else total + start
        for total, start in zip(sums.unbind(), starts, strict=True)
    ]
    return [torch.stack(sums)] if layout.stacked else sums


def formula(layout: Combination, small, images) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The sums [targets, pixels, C] and the means and variances that norms see: the formulae above,
    which torch can differentiate again. In few and wide operations, for devices that wait for each.
    """
    rows = [
        x if kind is None else MAKERS[type(kind)].plain(x, weights, kind).flatten(1, 3)
        for kind, (x, *weights) in zip(layout.kinds, images, strict=True)
    ]
    pixels = rows[0].shape[1]
    whole, diagonal = (
        [rows[which] for which in dict.fromkeys(w for w, _ in some)]
        for some in (layout.whole, layout.diagonal)
    )
    none = rows[0][:0]
    statistics = Statistics(
        torch.cat([none.transpose(1, 2) @ none] + [z.transpose(1, 2) @ z / pixels for z in whole]),
        torch.cat([none.mean(dim=1)] + [z.square().mean(dim=1) for z in diagonal]),
        torch.cat([none.mean(dim=1)] + [z.mean(dim=1) for z in (*whole, *diagonal)]),
    )
    (matrices, diagonals, shifts), observed = plain(
        layout.layout, statistics, Small.of(layout.layout, small)
    )
    sums, full = shifts[:, None].expand(-1, pixels, -1), layout.layout.full
    for source, start, end, places, targets in layout.runs:
        z = rows[source] if places is None else rows[source][places]
        part = (
            z @ matrices[start:end]
            if end <= full
            else z * diagonals[start - full : end - full, None]
        )
        sums = sums.index_add(0, targets, part)
    return sums, observed


def _unautocast(backward: Callable[..., Any]) -> Callable[..., Any]:
    """``backward`` in the precision of its forward, also for a learner that asks for gradients
    inside an autocast.
    """

    @functools.wraps(backward)
    def plainly(ctx, *gradients: Tensor):
        with torch.autocast(gradients[0].device.type, enabled=False):
            return backward(ctx, *gradients)

    return plainly


class _Combined(torch.autograd.Function):
    """The sums of a combination and their gradients by the compiled kernels, as the docstring of
    this module derives them.
    """

    @staticmethod
    def forward(
        ctx, layout: Combination, dtype: torch.dtype | None, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        small, each, starts = layout.split(tensors)
        some = each[0][0]
        plan = layout.plan(some.shape[-1])
        statistics = some.new_empty(plan.statistics, dtype=torch.float32)
        rows = []
        for kind, (x, *weights), tables in zip(layout.kinds, each, plan.tables, strict=True):
            if kind is not None:
                given = (None, None) if tables is None else map(statistics.__getitem__, tables)
                x = MAKERS[type(kind)].forward(x, weights, kind, *given, dtype).flatten(1, 3)
            rows.append(x.to(dtype=dtype))
        bases, pixels, channels = [z.data_ptr() for z in rows], *rows[0].shape[1:]
        told = (
            bases,
            rows[0].element_size() * pixels * channels,
        )  # where images are, and how many bytes each
        sizes = ctypes.c_long(pixels), ctypes.c_long(channels), half(rows[0])
        plan.moments.run(*told, statistics, *sizes, factor=1 / pixels)
        parts, observed = fold(
            layout.layout, plan.parts, statistics, Small.of(layout.layout, small), channels
        )
        layout.track(observed, pixels)
        stack = rows[0].new_empty(len(starts), pixels, channels) if layout.stacked else None
        totals = (
            [statistics.new_empty(pixels, channels) for _ in starts]
            if stack is None
            else stack.unbind()
        )
        products(
            totals,
            starts,
            parts.data_ptr() + 4 * plan.shift,
            plan.sums.at(*told, parts.data_ptr()),
            *sizes,
        )
        made = [
            z for z, kind in zip(rows, layout.kinds, strict=True) if kind and not layout.recompute
        ]
        ctx.save_for_backward(*tensors[: len(tensors) - len(starts)], *made)
        ctx.layout, ctx.dtype, ctx.statistics, ctx.started = (
            layout,
            dtype,
            statistics,
            [start is not None for start in starts],
        )
        return tuple(totals) if stack is None else (stack,)

    @staticmethod
    @_unautocast
    def backward(ctx, *gradients: Tensor):
        layout, (wanted, asked, _) = ctx.layout, ctx.layout.split(ctx.needs_input_grad[2:])
        of_starts = [None] * len(ctx.started)
        if any(ctx.started):
            of_starts = [
                gradient if started else None
                for gradient, started in zip(gradients, ctx.started, strict=True)
            ]
        if torch.is_grad_enabled():
            return None, None, *_differentiable(ctx, gradients), *of_starts
        small, each, made = layout.split(ctx.saved_tensors)
        made = _made_again(layout, each, ctx.dtype) if layout.recompute else iter(made)
        rows = [
            some[0].to(dtype=ctx.dtype) if kind is None else next(made)
            for kind, some in zip(layout.kinds, each, strict=True)
        ]
        given = gradients[0].unbind() if layout.stacked else gradients
        given = [gradient.contiguous().to(dtype=ctx.dtype) for gradient in given]
        pixels, channels = rows[0].shape[1:]
        told = [z.data_ptr() for z in (*given, *rows)], rows[0].element_size() * pixels * channels
        sizes = ctypes.c_long(pixels), ctypes.c_long(channels), half(rows[0])
        plan = layout.plan(channels)
        work = ctx.statistics.new_empty(plan.work)
        plan.slopes.run(*told, work, *sizes)
        of_small = unfold(
            layout.layout, work, ctx.statistics, Small.of(layout.layout, small), channels, pixels
        )
        result = [one if want else None for one, want in zip(of_small, wanted, strict=True)]
        start = work.data_ptr()
        sources = zip(layout.kinds, each, asked, plan.back, plan.backward_shift, strict=True)
        for kind, (x, *weights), asks, terms, shifts in sources:
            if not any(asks):
                result += [None] * len(asks)
            elif kind is None:
                result.append(torch.empty_like(x))
                products(result[-1].unbind(), (), start + shifts, terms.at(*told, start), *sizes)
            else:
                sums = ctypes.c_void_p(start + shifts), *terms.at(*told, start)
                result += MAKERS[type(kind)].backward(
                    x, weights, kind, sums, sizes[-1], asks[0], any(asks[1:])
                )
        return None, None, *result, *of_starts


def _made_again(
    layout: Combination, each: Sequence[Sequence[Tensor]], dtype: torch.dtype | None
) -> Iterator[Tensor]:
    """The rows that forward made, to the same bits; their moments are known."""
    for kind, (x, *weights) in zip(layout.kinds, each, strict=True):
        if kind is not None:
            yield MAKERS[type(kind)].forward(x, weights, kind, None, None, dtype).flatten(1, 3)


def _differentiable(ctx, gradients: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients of everything but the starts, in operations that torch can differentiate again."""
    layout = ctx.layout
    saved = ctx.saved_tensors[: len(ctx.needs_input_grad) - 2 - len(ctx.started)]
    wanted = ctx.needs_input_grad[2 : 2 + len(saved)]
    with torch.enable_grad():
        saved = [
            None if tensor is None else tensor.view_as(tensor) for tensor in saved
        ]  # apart where one is given twice
        small, each, _ = layout.split(saved)
        asked = [tensor for tensor, want in zip(saved, wanted, strict=True) if want]
        if not asked:
            return [None] * len(wanted)
        sums, _ = formula(layout, small, each)
    given = (gradients[0] if layout.stacked else torch.stack(gradients)).to(sums.dtype)
    found = iter(torch.autograd.grad(sums, asked, given, create_graph=True, materialize_grads=True))
    return [next(found) if want else None for want in wanted]


def track(norms: Sequence[nn.BatchNorm2d], mean: Tensor, variance: Tensor, count: int) -> None:
    """Moves the running statistics of all ``norms`` towards ``mean`` and ``variance`` [K, C] of
    ``count`` pixels.
    """
    kept = [index for index, norm in enumerate(norms) if norm.track_running_stats]
    if not kept:
        return
    norms, variance = [norms[index] for index in kept], variance * (count / (count - 1))
    torch._foreach_add_([norm.num_batches_tracked for norm in norms], 1)
    if norms[0].momentum is None:  # a cumulative mean
        shares = [1.0 / float(norm.num_batches_tracked) for norm in norms]
    else:
        shares = [norm.momentum for norm in norms]
    for share in set(shares):
        chosen = [
            (index, norm)
            for index, norm, own in zip(kept, norms, shares, strict=True)
            if own == share
        ]
        for running, value in (("running_mean", mean), ("running_var", variance)):
            torch._foreach_lerp_(
                [getattr(norm, running) for _, norm in chosen],
                [value[index] for index, _ in chosen],
                share,
            )
