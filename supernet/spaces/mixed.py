"""How a mixed cell runs many weighted operations at once, in training.

Written as in the papers, a mixed edge runs each candidate by itself, normalises what comes out, multiplies it by its weight in the
mixture and adds it up. Most of that time goes into moving memory. But an operation ends in a *stage*

    norm(pointwise(z)),    z = spatial(x)

whose 1×1 convolution (a matrix W) and BatchNorm do not mix pixels. With n pixels as the rows of z, BatchNorm needs the mean and
the variance of z W', and both follow from the mean m and the second moments G = z'z / n of z itself:

    mean = W m,    variance = diag(W G W') - mean^2,    norm(z W') = (z W' - mean) / sqrt(variance + eps)

So the weight of the mixture, BatchNorm and convolution are one small matrix and a shift, and what an edge adds to its node is

    sum over options of z M' + shift,    M = weight * W / sqrt(variance + eps)

in which nothing but the z is ever stored: not the outputs of convolutions, BatchNorms or multiplications. All edges that leave a
node are run together. What has no weights of its own (a pooling, the identity) has the unit matrix for W, of which only the
diagonal is needed; it is computed once for all edges, as are its moments. All depthwise convolutions are one call, both poolings
are another, and each gives the moments of what it makes and takes the sums that are the gradient of that.

Backward, with Q the gradient of the sum: that of M is Q'z and that of the shift Q's own sum. Plain differentiable algebra on small
matrices takes them to those of W, of the weights of the mixture, of m and of G; and z gets Q M + (z (dG + dG') + dm) / n, a sum
of products again. So :mod:`supernet.ops.rows` does all that touches pixels: sums of products, and moments. Where the gradient is
asked to be differentiated again, torch differentiates the formulae above instead.

Of the z most are cheap to make and dear to keep. With ``recompute`` none is kept: backward makes them again from what they are made
of, which is kept in any case (the same kernels on the same images, so the same bits), while moments and statistics are those of
forward.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from supernet.ops import DilConv, FactorizedReduce, Pool, Rectified, ReLUConvBN, SepConv, depthwise, folding, pooling
from supernet.ops.folding import Layout, Small, Statistics, plain
from supernet.ops.native import known, multiplies
from supernet.ops.rows import Sum, grams, products

Kind = depthwise.Kind | pooling.Kind
MAKERS = {depthwise.Kind: depthwise, pooling.Kind: pooling}  # each with functions plain, forward and backward


class Stage(NamedTuple):
    """``norm(pointwise(spatial(x)))``, each of which may be missing (``None``)."""

    spatial: Callable[[Tensor], Tensor] | None
    pointwise: nn.Conv2d | None
    norm: nn.BatchNorm2d | None


def stages(operation: nn.Module) -> list[Stage]:
    """An operation as a chain of stages with a ReLU between them, and one before the first if it rectifies its input.

    In a chain of several, and of one that ends in a 1×1 convolution, the spatial parts are depthwise convolutions.
    """
    match operation:
        case SepConv(body=body):
            return [Stage(body[0], body[1], body[2]), Stage(body[4], body[5], body[6])]  # a slice would be a new module
        case DilConv(body=body):
            return [Stage(body[0], body[1], body[2])]
        case ReLUConvBN(body=body) if body[0].kernel_size == body[0].stride == (1, 1):
            return [Stage(None, body[0], body[1])]
        case ReLUConvBN(body=body):
            return [Stage(body[0], None, body[1])]
        case FactorizedReduce(body=body):
            return [Stage(body.halves, None, body.norm)]
        case Pool(norm=nn.BatchNorm2d() as norm):
            return [Stage(operation.pooled, None, norm)]
        case Pool():
            return [Stage(operation.pooled, None, None)]
        case nn.Identity():
            return [Stage(None, None, None)]
        case Rectified():
            return [Stage(operation.body, None, None)]
    return [Stage(operation, None, None)]


@dataclass(frozen=True)
class Term:
    """One option, all but the pointwise and norm of its last stage done: that is ``rows[source][index]`` [pixels, C].

    ``position`` is its place among the operations, and so of its weight.
    """

    source: int
    index: int
    stage: Stage
    target: int
    position: int = 0


class Combination:
    """What is the same in every step when terms are combined: T of them, in an order in which the first ``full`` have a pointwise
    and a norm; of the others, which have none, only the first have norms."""

    def __init__(
        self,
        terms: Sequence[Term],
        kinds: Sequence[Kind | None],
        targets: int,
        device: torch.device,
        stacked: bool = False,
        recompute: bool = False,
    ):
        terms = sorted(terms, key=lambda term: (term.stage.pointwise is None, term.stage.norm is None, term.source, term.index))
        self.terms = [(term.source, term.index, term.target) for term in terms]
        self.norms = [term.stage.norm for term in terms if term.stage.norm is not None]
        self.pointwise = [term.stage.pointwise for term in terms if term.stage.pointwise is not None]
        self.affine = self.norms if self.norms and self.norms[0].affine else []
        self.kinds, self.targets, self.stacked = tuple(kinds), targets, stacked  # kinds: what makes the images that are not given
        self.recompute = recompute  # whether backward makes those again, or forward keeps them
        full = len(self.pointwise)
        places = [(source, index) for source, index, _ in self.terms[: len(self.norms)]]
        made = [(source, k, kind) for source, kind in enumerate(kinds) if kind is not None for k in range(kind.count)]
        convolved = [(source, k) for source, k, kind in made if isinstance(kind, depthwise.Kind)]
        pooled = [(source, k) for source, k, kind in made if isinstance(kind, pooling.Kind) and kind.normed]
        # The images, each once, whose second moments are needed, and those of which the diagonal is enough; those made here first.
        self.whole = list(dict.fromkeys(convolved + places[:full]))
        self.diagonal = list(dict.fromkeys(pooled + places[full:]))
        self.layout = Layout(
            full,
            [*map(self.whole.index, places[:full]), *map(self.diagonal.index, places[full:])],
            len(self.whole),
            len(self.diagonal),
            [term.target for term in terms],
            targets,
            [term.position for term in terms],
            self.norms[0].eps if self.norms else 0.0,
            device,
        )
        # Runs of terms on images of one source: which, from where to where, places of the images (none: as they are), targets.
        self.runs: list[tuple[int, int, int, Tensor | None, Tensor]] = []
        for (_, source), run in groupby(range(len(terms)), key=lambda t: (t < full, self.terms[t][0])):
            some = [self.terms[t] for t in run]
            start = self.runs[-1][2] if self.runs else 0
            of_images, goals = [index for _, index, _ in some], [target for *_, target in some]
            kind = kinds[source]
            as_they_are = kind is None or of_images == list(range(kind.count))  # what is given is one for all
            images = None if as_they_are else torch.tensor(of_images, device=device)
            self.runs.append((source, start, start + len(some), images, torch.tensor(goals, device=device)))

    def track(self, observed: tuple[Tensor, Tensor], pixels: int) -> None:
        """The norms' running statistics of the means and variances that they saw, of so many ``pixels``."""
        if self.norms:
            track(self.norms, *(table.detach() for table in observed), pixels)

    def split(self, tensors: Sequence[Any]) -> tuple[Sequence[Any], list[Sequence[Any]], Sequence[Any]]:
        """What the function below is given, or a list in that order: the small tensors, those of each images, the starts."""
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
        """For each target its start [B, C, H, W] plus the sum of its terms, normalised and weighted: [B, H, W, C], or all of them
        as one [K, B, H, W, C] if ``stacked``. Of ``images`` each is alone, [K, B, H, W, C], or what others are made of, with the
        weights that do it. ``dtype`` is that of the rows that are combined, if not that of the images."""
        small = [weights, *(conv.weight for conv in self.pointwise)]
        small += [*(norm.weight for norm in self.affine), *(norm.bias for norm in self.affine)]
        _, batch, height, width, channels = images[0][0].shape
        if self.kinds[0] is not None:
            height, width = ((length - 1) // self.kinds[0].stride + 1 for length in (height, width))
        flat = [(rows_of(x),) if kind is None else (x, *kernels) for kind, (x, *kernels) in zip(self.kinds, images, strict=True)]
        starts = starts or [None] * self.targets
        begun = [None if start is None else start.permute(0, 2, 3, 1).reshape(-1, channels).contiguous() for start in starts]
        tensors = *small, *(tensor for some in flat for tensor in some), *begun
        native = known(images[0][0]) and all(len(some) == 1 or depthwise.knows(some[1:]) for some in images)
        sums = _Combined.apply(self, dtype, *tensors) if native else combined(self, *self.split(tensors))
        shape = ((-1,) if self.stacked else ()) + (batch, height, width, channels)
        return [total.view(shape) for total in sums]


def rows_of(images: Tensor) -> Tensor:
    """Images [K, B, H, W, C] as [K, pixels, C]."""
    return images.reshape(len(images), -1, images.shape[-1]).contiguous()


class Program:
    """``operations`` (target, operation) on one source, prepared to run together, on images on ``device``.

    With ``recompute`` what depthwise convolutions and poolings make is not kept for backward, but made again there.
    """

    def __init__(self, operations: Sequence[tuple[int, nn.Module]], device: torch.device, recompute: bool = False):
        self.rectifies = False
        self.given: list[tuple[bool, Callable[[Tensor], Tensor] | None]] = []  # of images: of the rectified source? through what?
        made: dict[object, int] = {}  # where among them is what several operations share
        terms: list[Term] = []
        chains: dict[int, list[tuple[list[Stage], int, int]]] = {}
        pools: list[tuple[Pool, Stage, int, int]] = []
        for position, (target, operation) in enumerate(operations):
            chain = stages(operation)
            if isinstance(operation, Pool):
                pools.append((operation, chain[0], target, position))
                continue
            if isinstance(operation, SepConv | DilConv):
                chains.setdefault(len(chain), []).append((chain, target, position))
                continue
            rectified, spatial = isinstance(operation, Rectified), chain[0].spatial
            self.rectifies |= rectified
            key = rectified if spatial is None else operation
            if key not in made:
                made[key] = len(self.given)
                self.given.append((rectified, spatial))
            terms.append(Term(made[key], 0, chain[0], target, position))
        kinds: list[Kind | None] = [None] * len(self.given)
        self.pools = bool(pools)
        if pools:
            names = tuple(name for name in pooling.NAMES if any(pool.kind == name for pool, *_ in pools))
            terms += [Term(len(kinds), names.index(pool.kind), *rest) for pool, *rest in pools]
            kinds.append(pooling.Kind(pools[0][0].stride, names, normed=pools[0][1].norm is not None))
        self.chains: list[tuple[list[Combination], list[list[nn.Conv2d]]]] = []
        for length, group in chains.items():
            group.sort(
                key=lambda one: (one[0][0].spatial.kernel_size, one[0][0].spatial.dilation)
            )  # those alike next to each other
            steps = [[chain[depth] for chain, _, _ in group] for depth in range(length)]
            spatials = [[stage.spatial for stage in step] for step in steps]
            each = [depthwise.Kind(convs[0].stride[0], tuple(conv.dilation[0] for conv in convs)) for convs in spatials]
            between = [
                Combination(
                    [Term(0, k, stage, k) for k, stage in enumerate(step)],
                    [kind],
                    len(step),
                    device,
                    stacked=True,
                    recompute=recompute,
                )
                for step, kind in zip(steps[:-1], each[:-1], strict=True)
            ]
            self.chains.append((between, spatials))
            terms += [Term(len(kinds), k, chain[-1], target, position) for k, (chain, target, position) in enumerate(group)]
            kinds.append(each[-1])
        self.last = Combination(terms, kinds, 1 + max(target for target, _ in operations), device, recompute=recompute)

    def run(
        self, source: Tensor, weights: Tensor, starts: Sequence[Tensor | None], dtype: torch.dtype | None = None
    ) -> list[Tensor]:
        """``starts``, of which each may be missing, plus what the operations make of ``source``, each times its of ``weights``.

        ``dtype`` is that of the z, if not that of the source: in less than float32 all but what is kept and multiplied stays so.
        """
        kind = source.device.type
        if torch.is_autocast_enabled(kind):  # the moments need float32
            dtype = torch.bfloat16 if torch.get_autocast_dtype(kind) == torch.bfloat16 and multiplies(source) else None
            with torch.autocast(kind, enabled=False):
                return self.run(source.float(), weights, [None if start is None else start.float() for start in starts], dtype)
        rectified = F.relu(source) if self.rectifies else None
        images: list[tuple[Tensor, ...]] = []
        for rectifies, spatial in self.given:
            x = rectified if rectifies else source
            images.append(((x if spatial is None else spatial(x)).permute(0, 2, 3, 1)[None],))
        source = source.permute(0, 2, 3, 1)[None].contiguous()
        if self.pools:
            images.append((source,))
        for between, spatials in self.chains:
            x = source
            for combination, convolutions in zip(between, spatials, strict=False):
                (x,) = combination([(x, *(conv.weight for conv in convolutions))], dtype=dtype)
            images.append((x, *(conv.weight for conv in spatials[-1])))
        return [total.permute(0, 3, 1, 2) for total in self.last(images, weights, starts, dtype)]


def combined(layout: Combination, small, images, starts) -> Sequence[Tensor]:
    """What a combination gives, in rows [pixels, C], by torch."""
    run = functools.partial(checkpoint, formula, use_reentrant=False, preserve_rng_state=False) if layout.recompute else formula
    sums, observed = run(layout, small, images)
    layout.track(observed, sums.shape[1])
    sums = [total if start is None else total + start for total, start in zip(sums.unbind(), starts, strict=True)]
    return [torch.stack(sums)] if layout.stacked else sums


def formula(layout: Combination, small, images) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The sums [targets, pixels, C] and the means and variances that norms see: the formulae above, which torch can differentiate
    again. In few and wide operations, for devices that wait for each."""
    rows = [
        x if kind is None else MAKERS[type(kind)].plain(x, weights, kind).flatten(1, 3)
        for kind, (x, *weights) in zip(layout.kinds, images, strict=True)
    ]
    pixels = rows[0].shape[1]
    whole, diagonal = ([rows[which] for which in dict.fromkeys(w for w, _ in some)] for some in (layout.whole, layout.diagonal))
    none = rows[0][:0]
    statistics = Statistics(
        torch.cat([none.transpose(1, 2) @ none] + [z.transpose(1, 2) @ z / pixels for z in whole]),
        torch.cat([none.mean(dim=1)] + [z.square().mean(dim=1) for z in diagonal]),
        torch.cat([none.mean(dim=1)] + [z.mean(dim=1) for z in (*whole, *diagonal)]),
    )
    (matrices, diagonals, shifts), observed = plain(layout.layout, statistics, Small.of(layout.layout, small))
    sums, full = shifts[:, None].expand(-1, pixels, -1), layout.layout.full
    for source, start, end, places, targets in layout.runs:
        z = rows[source] if places is None else rows[source][places]
        part = z @ matrices[start:end] if end <= full else z * diagonals[start - full : end - full, None]
        sums = sums.index_add(0, targets, part)
    return sums, observed


def _unautocast(backward: Callable[..., Any]) -> Callable[..., Any]:
    """``backward`` in the precision of its forward, also for a learner that asks for gradients inside an autocast."""

    @functools.wraps(backward)
    def plainly(ctx, *gradients: Tensor):
        with torch.autocast(gradients[0].device.type, enabled=False):
            return backward(ctx, *gradients)

    return plainly


class _Combined(torch.autograd.Function):
    """The sums of a combination and their gradients, as the docstring of this module derives them."""

    @staticmethod
    def forward(ctx, layout: Combination, dtype: torch.dtype | None, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        small, each, starts = layout.split(tensors)
        ctx.layout, ctx.dtype, ctx.started = layout, dtype, [start is not None for start in starts]
        rows, tables = [], {depthwise.Kind: [], pooling.Kind: []}
        for kind, (x, *weights) in zip(layout.kinds, each, strict=True):
            if kind is not None:
                x, *some = MAKERS[type(kind)].forward(x, weights, kind, dtype)
                x = x.flatten(1, 3)
                tables[type(kind)].append(some)
            rows.append(x.to(dtype=dtype))
        statistics = moments(layout, rows, *tables.values())
        parts, observed = folding.forward(layout.layout, statistics, Small.of(layout.layout, small))
        layout.track(observed, rows[0].shape[1])
        made = [z for z, kind in zip(rows, layout.kinds, strict=True) if kind and not layout.recompute]
        ctx.save_for_backward(*tensors[: len(tensors) - len(starts)], *made)
        ctx.statistics = statistics
        terms: list[list[tuple[Tensor, Tensor]]] = [[] for _ in starts]
        each_matrix = *parts.matrices.unbind(), *parts.diagonals.unbind()
        for (which, index, target), matrix in zip(layout.terms, each_matrix, strict=True):
            terms[target].append((rows[which][index], matrix))
        results = parts.shifts.new_empty(len(starts), *rows[0].shape[1:]) if layout.stacked else None
        sums = [Sum(*one) for one in zip(parts.shifts.unbind(), terms, starts, strict=True)]
        totals = products(sums, results)
        return tuple(totals) if results is None else (results,)

    @staticmethod
    @_unautocast
    def backward(ctx, *gradients: Tensor):
        layout, (wanted, asked, _) = ctx.layout, ctx.layout.split(ctx.needs_input_grad[2:])
        of_starts = [None] * len(ctx.started)
        if any(ctx.started):
            of_starts = [gradient if started else None for gradient, started in zip(gradients, ctx.started, strict=True)]
        if torch.is_grad_enabled():
            return None, None, *_differentiable(ctx, gradients), *of_starts
        small, each, made = layout.split(ctx.saved_tensors)
        made = _made_again(layout, each, ctx.dtype) if layout.recompute else iter(made)
        rows = [some[0].to(dtype=ctx.dtype) if kind is None else next(made) for kind, some in zip(layout.kinds, each, strict=True)]
        given = gradients[0].unbind() if layout.stacked else gradients
        given = [gradient.contiguous().to(dtype=ctx.dtype) for gradient in given]
        pairs = [(given[target], rows[which][index]) for which, index, target in layout.terms]
        pairs += [(None, gradient) for gradient in given]
        slopes = grams(rows[0][0], pairs, len(layout.pointwise), len(layout.terms) - len(layout.pointwise))
        *back, of_statistics, of_small = folding.backward(layout.layout, ctx.statistics, Small.of(layout.layout, small), *slopes)
        result = [one if want else None for one, want in zip(of_small, wanted, strict=True)]
        if any(map(any, asked)):
            sums = _slopes_of_rows(layout, rows, given, back, of_statistics)
        for which, (kind, (x, *weights), asks) in enumerate(zip(layout.kinds, each, asked, strict=True)):
            if not any(asks):
                result += [None] * len(asks)
            elif kind is None:
                result.append(torch.empty_like(x))
                products([sums[which, index] for index in range(len(x))], result[-1].unbind())
            else:
                own = [sums[which, index] for index in range(kind.count)]
                of_x, of_weights = MAKERS[type(kind)].backward(x, weights, kind, own, asks[0], any(asks[1:]))
                result += [of_x, *of_weights]
        return None, None, *result, *of_starts


def moments(
    layout: Combination,
    rows: Sequence[Tensor],
    of_convolved: Sequence[tuple[Tensor, Tensor]],
    of_pooled: Sequence[tuple[Tensor, Tensor]],
) -> Statistics:
    """Those of the rows that are normed.

    ``of_convolved`` are the second moments and the means of those that are convolved, and ``of_pooled`` the diagonals and the means
    of those that are pooled.
    """
    second, first_of_whole = ([tables[k] for tables in of_convolved] for k in (0, 1))
    squares, first_of_diagonal = ([tables[k] for tables in of_pooled] for k in (0, 1))
    whole, diagonal = layout.whole[sum(map(len, second)) :], layout.diagonal[sum(map(len, squares)) :]
    some = [rows[which][index] for which, index in whole + diagonal]
    if some or not second:
        pairs = [(z, z) for z in some] + [(None, z) for z in some]
        found = [sums.div_(rows[0].shape[1]) for sums in grams(rows[0][0], pairs, len(whole), len(diagonal))]
        second.append(found[0])
        squares.append(found[1])
        first_of_whole.append(found[2][: len(whole)])
        first_of_diagonal.append(found[2][len(whole) :])
    first = joined(first_of_whole + first_of_diagonal)
    return Statistics(joined(second), joined(squares) if squares else first[:0], first)


def joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _made_again(layout: Combination, each: Sequence[Sequence[Tensor]], dtype: torch.dtype | None) -> Iterator[Tensor]:
    """The rows that forward made, to the same bits; their moments are known."""
    for kind, (x, *weights) in zip(layout.kinds, each, strict=True):
        if kind is not None:
            yield MAKERS[type(kind)].forward(x, weights, kind._replace(normed=False), dtype)[0].flatten(1, 3)


def _slopes_of_rows(layout: Combination, rows, given, back, of_statistics: Statistics) -> dict[tuple[int, int], Sum]:
    """The gradient of the rows at each place, ``Q M + (z (dG + dG') + dm) / n``, summed over the terms that read them.

    ``back`` are the matrices and diagonals M. The gradient of second moments is symmetric.
    """
    matrices, diagonals = back
    terms: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
    for (which, index, target), matrix in zip(layout.terms, [*matrices.unbind(), *diagonals.unbind()], strict=True):
        terms.setdefault((which, index), []).append((given[target], matrix))
    pixels = rows[0].shape[1]
    of_second, of_squares, of_first = of_statistics
    of_moments = [*(of_second * (2 / pixels)).unbind(), *(of_squares * (2 / pixels)).unbind()]
    shifts = dict.fromkeys(terms, matrices.new_zeros(matrices.shape[-1]))
    for (which, index), moment, mean in zip(layout.whole + layout.diagonal, of_moments, of_first / pixels, strict=True):
        terms[which, index].append((rows[which][index], moment))
        shifts[which, index] = mean  # an image is among them once
    return {place: Sum(shifts[place], terms[place]) for place in terms}


def _differentiable(ctx, gradients: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients of everything but the starts, in operations that torch can differentiate again."""
    layout = ctx.layout
    saved = ctx.saved_tensors[: len(ctx.needs_input_grad) - 2 - len(ctx.started)]
    wanted = ctx.needs_input_grad[2 : 2 + len(saved)]
    with torch.enable_grad():
        saved = [None if tensor is None else tensor.view_as(tensor) for tensor in saved]  # apart where one is given twice
        small, each, _ = layout.split(saved)
        asked = [tensor for tensor, want in zip(saved, wanted, strict=True) if want]
        sums, _ = formula(layout, small, each)
    given = gradients[0] if layout.stacked else torch.stack(gradients)
    found = iter(torch.autograd.grad(sums, asked, given, create_graph=True, materialize_grads=True))
    return [next(found) if want else None for want in wanted]


def track(norms: Sequence[nn.BatchNorm2d], mean: Tensor, variance: Tensor, count: int) -> None:
    """Moves the running statistics of all ``norms`` towards ``mean`` and ``variance`` [K, C] of ``count`` pixels."""
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
        chosen = [(index, norm) for index, norm, own in zip(kept, norms, shares, strict=True) if own == share]
        for running, value in (("running_mean", mean), ("running_var", variance)):
            torch._foreach_lerp_([getattr(norm, running) for _, norm in chosen], [value[index] for index, _ in chosen], share)
