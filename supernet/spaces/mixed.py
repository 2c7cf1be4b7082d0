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
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.ops import DilConv, FactorizedReduce, Pool, Rectified, ReLUConvBN, SepConv, depthwise, pooling
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
        self, terms: Sequence[Term], kinds: Sequence[Kind | None], targets: int, device: torch.device, stacked: bool = False
    ):
        terms = sorted(terms, key=lambda term: (term.stage.pointwise is None, term.stage.norm is None))
        self.terms = [(term.source, term.index, term.target) for term in terms]
        self.norms = [term.stage.norm for term in terms if term.stage.norm is not None]
        self.pointwise = [term.stage.pointwise for term in terms if term.stage.pointwise is not None]
        self.full, self.affine = len(self.pointwise), bool(self.norms) and self.norms[0].affine
        self.kinds, self.targets, self.stacked = tuple(kinds), targets, stacked  # kinds: what makes the images that are not given
        places = [(source, index) for source, index, _ in self.terms[: len(self.norms)]]
        made = [(source, k, kind) for source, kind in enumerate(kinds) if kind is not None for k in range(kind.count)]
        convolved = [(source, k) for source, k, kind in made if isinstance(kind, depthwise.Kind)]
        pooled = [(source, k) for source, k, kind in made if isinstance(kind, pooling.Kind) and kind.normed]
        # The images, each once, whose second moments are needed, and those of which the diagonal is enough; those made here first.
        self.whole = list(dict.fromkeys(convolved + places[: self.full]))
        self.diagonal = list(dict.fromkeys(pooled + places[self.full :]))

        def order(positions: list[int], count: int) -> Tensor | None:  # None: as they are
            return None if positions == list(range(count)) else torch.tensor(positions, device=device)

        self.of_weights = order([term.position for term in terms], len(terms))
        self.of_whole = order([self.whole.index(place) for place in places[: self.full]], len(self.whole))
        self.of_diagonal = order([self.diagonal.index(place) for place in places[self.full :]], len(self.diagonal))
        self.of_targets = torch.tensor([term.target for term in terms], device=device)

    def split(self, tensors: Sequence[Any]) -> tuple[Sequence[Any], list[Sequence[Any]], Sequence[Any]]:
        """What the function below is given, or a list in that order: the small tensors, those of each images, the starts."""
        small, rest, each = tensors[:4], tensors[4:], []
        for kind in self.kinds:
            count = 1 if kind is None else 1 + kind.weights
            each.append(rest[:count])
            rest = rest[count:]
        return small, each, rest

    def __call__(
        self, images: Sequence[Sequence[Tensor]], weights: Tensor | None = None, starts: Sequence[Tensor | None] = ()
    ) -> list[Tensor]:
        """For each target its start [B, C, H, W] plus the sum of its terms, normalised and weighted: [B, H, W, C], or all of them
        as one [K, B, H, W, C] if ``stacked``. Of ``images`` each is alone, [K, B, H, W, C], or what others are made of, with the
        weights that do it."""
        small = (
            torch.stack([conv.weight.flatten(1) for conv in self.pointwise]) if self.pointwise else None,
            weights if self.of_weights is None or weights is None else weights[self.of_weights],
            torch.stack([norm.weight for norm in self.norms]) if self.affine else None,
            torch.stack([norm.bias for norm in self.norms]) if self.affine else None,
        )
        _, batch, height, width, channels = images[0][0].shape
        if self.kinds[0] is not None:
            height, width = ((length - 1) // self.kinds[0].stride + 1 for length in (height, width))
        flat = [(rows_of(x),) if kind is None else (x, *kernels) for kind, (x, *kernels) in zip(self.kinds, images, strict=True)]
        starts = starts or [None] * self.targets
        begun = [None if start is None else start.permute(0, 2, 3, 1).reshape(-1, channels).contiguous() for start in starts]
        sums = _Combined.apply(self, *small, *(tensor for some in flat for tensor in some), *begun)
        shape = ((-1,) if self.stacked else ()) + (batch, height, width, channels)
        return [total.view(shape) for total in sums]


def rows_of(images: Tensor) -> Tensor:
    """Images [K, B, H, W, C] as [K, pixels, C]."""
    return images.reshape(len(images), -1, images.shape[-1]).contiguous()


class Program:
    """``operations`` (target, operation) on one source, prepared to run together, on images on ``device``."""

    def __init__(self, operations: Sequence[tuple[int, nn.Module]], device: torch.device):
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
            steps = [[chain[depth] for chain, _, _ in group] for depth in range(length)]
            spatials = [[stage.spatial for stage in step] for step in steps]
            each = [depthwise.Kind(convs[0].stride[0], tuple(conv.dilation[0] for conv in convs)) for convs in spatials]
            between = [
                Combination([Term(0, k, stage, k) for k, stage in enumerate(step)], [kind], len(step), device, stacked=True)
                for step, kind in zip(steps[:-1], each[:-1], strict=True)
            ]
            self.chains.append((between, spatials))
            terms += [Term(len(kinds), k, chain[-1], target, position) for k, (chain, target, position) in enumerate(group)]
            kinds.append(each[-1])
        self.last = Combination(terms, kinds, 1 + max(target for target, _ in operations), device)

    def run(self, source: Tensor, weights: Tensor, starts: Sequence[Tensor | None]) -> list[Tensor]:
        """``starts``, of which each may be missing, plus what the operations make of ``source``, each times its of ``weights``."""
        kind = source.device.type
        if torch.is_autocast_enabled(kind):  # the moments need float32, and a CPU is no faster in less
            with torch.autocast(kind, enabled=False):
                return self.run(source.float(), weights, [None if start is None else start.float() for start in starts])
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
                (x,) = combination([(x, *(conv.weight for conv in convolutions))])
            images.append((x, *(conv.weight for conv in spatials[-1])))
        return [total.permute(0, 3, 1, 2) for total in self.last(images, weights, starts)]


def moments(
    layout: Combination,
    rows: Sequence[Tensor],
    of_convolved: Sequence[tuple[Tensor, Tensor]] = (),
    of_pooled: Sequence[tuple[Tensor, Tensor]] = (),
    native: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Second moments [K, C, C] and diagonals of them [k, C] of the rows that are normed, and the means [K + k, C] of both.

    ``of_convolved`` are the second moments and the means of those that are convolved, if they are known, and ``of_pooled`` the
    diagonals and the means of those that are pooled.
    """
    second, first_of_whole = ([tables[k] for tables in of_convolved] for k in (0, 1))
    squares, first_of_diagonal = ([tables[k] for tables in of_pooled] for k in (0, 1))
    whole, diagonal = layout.whole[sum(map(len, second)) :], layout.diagonal[sum(map(len, squares)) :]
    some = [rows[which][index] for which, index in whole + diagonal]
    if some or not second:
        pairs = [(z, z) for z in some] + [(None, z) for z in some]
        found = [sums.div_(rows[0].shape[1]) for sums in grams(rows[0][0], pairs, len(whole), len(diagonal), native)]
        second.append(found[0])
        squares.append(found[1])
        first_of_whole.append(found[2][: len(whole)])
        first_of_diagonal.append(found[2][len(whole) :])
    first = joined(first_of_whole + first_of_diagonal)
    return joined(second), joined(squares) if squares else first[:0], first


def joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def folded(layout: Combination, statistics: Sequence[Tensor], small: Sequence[Tensor | None]):
    """What to do to the rows of each of T terms, ``(matrices [full, out, in], diagonals [T - full, C], shifts [T, C])``, and the
    mean and variance [norms, C] that BatchNorms see."""
    (second, squares, first), (pointwise, weights, gain, bias) = statistics, small
    full, normed = layout.full, len(layout.norms)
    mean, square = [], []
    if full:
        m = taken(first[: len(layout.whole)], layout.of_whole)
        mean.append((pointwise @ m[..., None])[..., 0])
        square.append((pointwise @ taken(second, layout.of_whole) * pointwise).sum(dim=-1))
    if normed > full:
        mean.append(taken(first[len(layout.whole) :], layout.of_diagonal))
        square.append(taken(squares, layout.of_diagonal))
    scales, shifts, observed = [], [], ()
    if normed:
        m, q = joined(mean), joined(square)
        observed = m, (q - m * m).clamp_min(0.0)
        scale = torch.rsqrt(observed[1] + layout.norms[0].eps)
        shift = -m * scale
        if gain is not None:
            scale, shift = scale * gain, shift * gain + bias
        scales.append(scale)
        shifts.append(shift)
    if rest := len(layout.terms) - normed:
        scales.append(first.new_ones(rest, first.shape[1]))
        shifts.append(first.new_zeros(rest, first.shape[1]))
    scale, shift = joined(scales), joined(shifts)
    if weights is not None:
        scale, shift = scale * weights[:, None], shift * weights[:, None]
    return (pointwise * scale[:full, :, None] if full else second, scale[full:], shift), observed


def taken(table: Tensor, order: Tensor | None) -> Tensor:
    return table if order is None else table[order]


def summed(layout: Combination, parts: Sequence[Tensor], rows, starts, native: bool = True) -> tuple[Tensor, ...]:
    matrices, diagonals, shifts = parts
    each = [*matrices.transpose(1, 2).contiguous().unbind(), *diagonals.unbind()]
    shift = shifts.new_zeros(layout.targets, shifts.shape[1]).index_add(0, layout.of_targets, shifts).unbind()
    terms: list[list[tuple[Tensor, Tensor]]] = [[] for _ in starts]
    for (which, index, target), matrix in zip(layout.terms, each, strict=True):
        terms[target].append((rows[which][index], matrix))
    sums = [Sum(*one) for one in zip(shift, terms, starts, strict=True)]
    if layout.stacked and native:
        stack = rows[0].new_empty(len(starts), *rows[0].shape[1:])
        products(sums, stack.unbind())
        return (stack,)
    results = products(sums, native=native)
    return (torch.stack(results),) if layout.stacked else tuple(results)


class _Combined(torch.autograd.Function):
    """The sums of a combination and their gradients, as the docstring of this module derives them."""

    @staticmethod
    def forward(ctx, layout: Combination, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        small, each, starts = layout.split(tensors)
        asked, of_each, _ = layout.split(ctx.needs_input_grad[1:])
        rows, known = [], {depthwise.Kind: [], pooling.Kind: []}
        for kind, (x, *weights) in zip(layout.kinds, each, strict=True):
            if kind is not None:
                x, *tables = MAKERS[type(kind)].forward(x, weights, kind)
                x = x.flatten(1, 3)
                known[type(kind)].append(tables)
            rows.append(x)
        with torch.set_grad_enabled(any(ctx.needs_input_grad)):
            moving = any(any(some) for some in of_each)
            statistics = [table.requires_grad_(moving) for table in moments(layout, rows, *known.values())]
            leaves = [one if one is None else one.detach().requires_grad_(a) for one, a in zip(small, asked, strict=True)]
            parts, observed = folded(layout, statistics, leaves)
        if layout.norms:
            track(layout.norms, *(table.detach() for table in observed), rows[0].shape[1])
        ctx.save_for_backward(
            *tensors[: len(tensors) - len(starts)], *(z for z, kind in zip(rows, layout.kinds, strict=True) if kind)
        )
        ctx.layout, ctx.algebra, ctx.started = layout, (statistics, leaves, parts), [start is not None for start in starts]
        return summed(layout, [part.detach() for part in parts], rows, starts)

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        layout, (statistics, leaves, parts) = ctx.layout, ctx.algebra
        of_starts = [None] * len(ctx.started)
        if any(ctx.started):
            of_starts = [gradient if started else None for gradient, started in zip(gradients, ctx.started, strict=True)]
        if torch.is_grad_enabled():
            return None, *_differentiable(ctx, gradients), *of_starts
        _, each, made = layout.split(ctx.saved_tensors)
        made = iter(made)
        rows = [some[0] if kind is None else next(made) for kind, some in zip(layout.kinds, each, strict=True)]
        given = [gradient.contiguous() for gradient in (gradients[0].unbind() if layout.stacked else gradients)]
        pairs = [(given[target], rows[which][index]) for which, index, target in layout.terms]
        pairs += [(None, gradient) for gradient in given]
        of_matrices, of_diagonals, of_targets = grams(rows[0][0], pairs, layout.full, len(layout.terms) - layout.full)
        slopes = of_matrices, of_diagonals, of_targets[layout.of_targets]
        moving = [(part, slope) for part, slope in zip(parts, slopes, strict=True) if part.requires_grad]
        asked = [leaf for leaf in (*statistics, *leaves) if leaf is not None and leaf.requires_grad]
        found = iter(_algebra(moving, asked) if moving and asked else ())
        of_statistics, of_small = (
            [next(found) if leaf is not None and leaf.requires_grad else None for leaf in some] for some in (statistics, leaves)
        )
        _, wanted, _ = layout.split(ctx.needs_input_grad[1:])
        result: list[Tensor | None] = list(of_small)
        if any(any(some) for some in wanted):
            sums = _slopes_of_rows(layout, rows, given, [part.detach() for part in parts], of_statistics)
        for which, (kind, (x, *weights), asks) in enumerate(zip(layout.kinds, each, wanted, strict=True)):
            if not any(asks):
                result += [None] * len(asks)
            elif kind is None:
                result.append(torch.empty_like(x))
                products([sums[which, index] for index in range(len(x))], result[-1].unbind())
            else:
                own = [sums[which, index] for index in range(kind.count)]
                of_x, of_weights = MAKERS[type(kind)].backward(x, weights, kind, own, asks[0], any(asks[1:]))
                result += [of_x, *of_weights]
        return None, *result, *of_starts


def _algebra(moving: Sequence[tuple[Tensor, Tensor]], asked: Sequence[Tensor]) -> Sequence[Tensor]:
    parts, slopes = zip(*moving, strict=True)
    return torch.autograd.grad(parts, asked, slopes, retain_graph=True, materialize_grads=True)  # who asked may ask again


def _slopes_of_rows(layout: Combination, rows, given, parts, of_statistics) -> dict[tuple[int, int], Sum]:
    """The gradient of the rows at each place, ``Q M + (z (dG + dG') + dm) / n``, summed over the terms that read them."""
    matrices, diagonals, _ = parts
    terms: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
    for (which, index, target), matrix in zip(layout.terms, [*matrices.unbind(), *diagonals.unbind()], strict=True):
        terms.setdefault((which, index), []).append((given[target], matrix))
    of_second, of_squares, of_first = (table / rows[0].shape[1] for table in of_statistics)
    of_moments = [*(of_second + of_second.transpose(1, 2)).unbind(), *(2 * of_squares).unbind()]
    shifts = dict.fromkeys(terms, given[0].new_zeros(given[0].shape[1]))
    for (which, index), moment, mean in zip(layout.whole + layout.diagonal, of_moments, of_first, strict=True):
        terms[which, index].append((rows[which][index], moment))
        shifts[which, index] = shifts[which, index] + mean
    return {place: Sum(shifts[place], terms[place]) for place in terms}


def _differentiable(ctx, gradients: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients of everything but the starts, in operations that torch can differentiate again."""
    layout = ctx.layout
    saved = ctx.saved_tensors[: len(ctx.needs_input_grad) - 1 - len(ctx.started)]
    wanted = ctx.needs_input_grad[1 : 1 + len(saved)]
    with torch.enable_grad():
        saved = [None if tensor is None else tensor.view_as(tensor) for tensor in saved]  # apart where one is given twice
        small, each, _ = layout.split(saved)
        asked = [tensor for tensor, want in zip(saved, wanted, strict=True) if want]
        rows = [
            some[0] if kind is None else MAKERS[type(kind)].plain(some[0], some[1:], kind).flatten(1, 3)
            for kind, some in zip(layout.kinds, each, strict=True)
        ]
        parts, _ = folded(layout, moments(layout, rows, native=False), small)
        sums = summed(layout, parts, rows, [None] * len(ctx.started), native=False)
    found = iter(torch.autograd.grad(sums, asked, gradients, create_graph=True, materialize_grads=True))
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
