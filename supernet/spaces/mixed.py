"""How a mixed cell runs many weighted operations at once, in training.

Written as in the papers, a mixed edge runs each candidate by itself, normalises what comes out, multiplies it by its weight in the
mixture and adds it up. Most of that time goes into moving memory. But an operation ends in a *stage*

    norm(pointwise(z)),    z = spatial(x)

whose 1×1 convolution (a matrix W) and BatchNorm do not mix pixels. With n pixels as the rows of z, BatchNorm needs the mean and
the variance of z W', and both follow from the mean m and the second moments G = z'z / n of z itself:

    mean = W m,    variance = diag(W (G - m m') W'),    norm(z W') = (z W' - mean) / sqrt(variance + eps)

So the weight of the mixture, BatchNorm and convolution are one small matrix and a shift, and what an edge adds to its node is

    sum over options of z M + shift,    M = (weight * W / sqrt(variance + eps))'

in which nothing but the z is ever stored: not the outputs of convolutions, BatchNorms or multiplications. All edges that leave a
node are run together. What has no weights of its own (a pooling, the identity) has the unit matrix for W, of which only the
diagonal is needed; it is computed once for all edges, as are its moments. All depthwise convolutions are one call.

Backward, with Q the gradient of the sum: that of M is z'Q and that of the shift Q's own sum. Plain differentiable algebra on small
matrices takes them to those of W, of the weights of the mixture, of m and of G; and z gets Q M' + (z (dG + dG') + dm) / n, a sum
of products again. So :mod:`supernet.ops.rows` does all that touches pixels: sums of products, and moments. Where the gradient is
asked to be differentiated again, torch differentiates the formulae above instead.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.ops import DilConv, FactorizedReduce, Pool, Rectified, ReLUConvBN, SepConv, depthwise
from supernet.ops.depthwise import Kind
from supernet.ops.rows import Sum, grams, products


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
    """One option, all but the pointwise and norm of its last stage done: that is ``rows[source][index]`` [pixels, C]."""

    source: int
    index: int
    stage: Stage
    target: int
    weight: Tensor | None = None


def run(source: Tensor, operations: Sequence[tuple[int, nn.Module, Tensor]], starts: Sequence[Tensor | None]) -> list[Tensor]:
    """``starts``, of which each may be missing, plus what ``operations`` (target, operation, weight) on ``source`` add to them."""
    if torch.is_autocast_enabled(source.device.type):  # the moments need float32, and a CPU is no faster in less
        with torch.autocast(source.device.type, enabled=False):
            return run(source.float(), operations, [None if start is None else start.float() for start in starts])
    rectified: Tensor | None = None
    images: list[Tensor | Convolved] = []  # [K, B, H, W, C] each
    made: dict[object, int] = {}  # where among them is what several operations share

    def once(key: object, make: Callable[[], Tensor]) -> int:
        if key not in made:
            made[key] = len(images)
            images.append(make().permute(0, 2, 3, 1)[None])
        return made[key]

    terms, chains = [], {}
    for target, operation, weight in operations:
        chain = stages(operation)
        spatial = chain[0].spatial
        if isinstance(operation, SepConv | DilConv):
            chains.setdefault(len(chain), []).append((chain, target, weight))
            continue
        x = source
        if isinstance(operation, Rectified):
            x = rectified = F.relu(source) if rectified is None else rectified
        if spatial is None:
            where = once(x is source, lambda x=x: x)
        elif isinstance(operation, Pool):
            where = once((operation.kind, operation.stride), lambda x=x, spatial=spatial: spatial(x))
        else:
            where = once(operation, lambda x=x, spatial=spatial: spatial(x))
        terms.append(Term(where, 0, chain[0], target, weight))
    for length, group in chains.items():
        x = source.permute(0, 2, 3, 1)[None].contiguous()
        for depth in range(length):
            step = [chain[depth] for chain, _, _ in group]
            made_of = Convolved.of(x, [stage.spatial for stage in step])
            if depth < length - 1:
                (x,) = combined([Term(0, k, stage, k) for k, stage in enumerate(step)], [made_of], [None] * len(step), stacked=True)
        terms += [Term(len(images), k, chain[-1], target, weight) for k, (chain, target, weight) in enumerate(group)]
        images.append(made_of)
    return [total.permute(0, 3, 1, 2) for total in combined(terms, images, starts)]


class Convolved(NamedTuple):
    """Depthwise convolutions of rectified ``x`` [1 or K, B, H, W, C]: K images, not computed yet."""

    x: Tensor
    weights: tuple[Tensor, ...]
    kind: Kind

    @classmethod
    def of(cls, x: Tensor, convolutions: Sequence[nn.Conv2d]) -> "Convolved":
        kind = Kind(convolutions[0].stride[0], tuple(conv.dilation[0] for conv in convolutions))
        return cls(x, tuple(conv.weight for conv in convolutions), kind)


def combined(
    terms: Sequence[Term], images: Sequence[Tensor | Convolved], starts: Sequence[Tensor | None], stacked: bool = False
) -> list[Tensor]:
    """For each target its start [B, C, H, W] plus the sum of its terms, normalised and weighted: [B, H, W, C], or [K, B, H, W, C]
    if ``stacked``. Terms are of ``images``, [K, B, H, W, C] each."""
    terms = sorted(terms, key=lambda term: (term.stage.pointwise is None, term.stage.norm is None))
    norms = [term.stage.norm for term in terms if term.stage.norm is not None]
    matrices = [term.stage.pointwise.weight.flatten(1) for term in terms if term.stage.pointwise is not None]
    affine = bool(norms) and norms[0].affine
    small = (
        torch.stack(matrices) if matrices else None,
        torch.stack([term.weight for term in terms]) if terms[0].weight is not None else None,
        torch.stack([norm.weight for norm in norms]) if affine else None,
        torch.stack([norm.bias for norm in norms]) if affine else None,
    )
    kinds = tuple(each.kind if isinstance(each, Convolved) else None for each in images)
    layout = Layout(tuple((term.source, term.index, term.target) for term in terms), len(matrices), norms, kinds, stacked)
    flat = [(each.x, *each.weights) if isinstance(each, Convolved) else (rows_of(each),) for each in images]
    channels = images[0][0].shape[-1]
    begun = [None if start is None else start.permute(0, 2, 3, 1).reshape(-1, channels).contiguous() for start in starts]
    sums = _Combined.apply(layout, *small, *(tensor for some in flat for tensor in some), *begun)
    some = images[0]
    if isinstance(some, Convolved):
        _, batch, height, width, _ = some.x.shape
        shape = batch, (height - 1) // some.kind.stride + 1, (width - 1) // some.kind.stride + 1, channels
    else:
        shape = some.shape[1:]
    return [total.view(-1, *shape) if stacked else total.view(shape) for total in sums]


def rows_of(images: Tensor) -> Tensor:
    """Images [K, B, H, W, C] as [K, pixels, C]."""
    return images.reshape(len(images), -1, images.shape[-1]).contiguous()


class Layout(NamedTuple):
    """Of its terms, the first ``full`` have a pointwise and a norm; of the others, which have none, only the first have norms."""

    terms: tuple[tuple[int, int, int], ...]  # of each: which images, index there, target
    full: int
    norms: list[nn.BatchNorm2d]
    kinds: tuple[Kind | None, ...]  # of the images: what convolves them, if they are not given
    stacked: bool

    def normed(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """The images (which, index), each once, whose second moments are needed, the convolved first, and those of which the
        diagonal is enough."""
        convolved = [(which, k) for which, kind in enumerate(self.kinds) if kind is not None for k in range(len(kind.dilations))]
        places = [(which, index) for which, index, _ in self.terms[: len(self.norms)]]
        return list(dict.fromkeys(convolved + places[: self.full])), list(dict.fromkeys(places[self.full :]))

    def split(self, tensors: Sequence[Any]) -> tuple[Sequence[Any], list[Sequence[Any]], Sequence[Any]]:
        """What the function below is given, or a list in that order: the small tensors, those of each images, the starts."""
        small, rest, each = tensors[:4], tensors[4:], []
        for kind in self.kinds:
            count = 1 if kind is None else 1 + len(kind.dilations)
            each.append(rest[:count])
            rest = rest[count:]
        return small, each, rest


def moments(
    layout: Layout, rows: Sequence[Tensor], of_convolved: Sequence[tuple[Tensor, Tensor]] = (), native: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Second moments [K, C, C] and diagonals of them [k, C] of the rows that are ``normed``, and the means [K + k, C] of both.

    ``of_convolved`` are the sums of products and the sums of those that are convolved, if they are known.
    """
    full, diagonal = layout.normed()
    full = full[sum(len(second) for second, _ in of_convolved) :]
    some = [rows[which][index] for which, index in full + diagonal]
    pairs = [(z, z) for z in some] + [(None, z) for z in some]
    second, squares, first = grams(rows[0][0], pairs, len(full), len(diagonal), native)
    if of_convolved:
        known = [torch.cat(parts) for parts in zip(*of_convolved, strict=True)]
        second, first = torch.cat([known[0], second]), torch.cat([known[1], first])
    count = rows[0].shape[1]
    return second / count, squares / count, first / count


def folded(layout: Layout, statistics: Sequence[Tensor], small: Sequence[Tensor | None]):
    """What to do to the rows of each of T terms, ``(matrices [full, in, out], diagonals [T - full, C], shifts [T, C])``, and the
    mean and variance [norms, C] that BatchNorms see."""
    (second, squares, first), (pointwise, weights, gain, bias) = statistics, small
    full, normed = layout.full, len(layout.norms)
    places, unique = [(which, index) for which, index, _ in layout.terms], layout.normed()
    mean = variance = None
    if full:
        m, moment = (taken(t, [unique[0].index(place) for place in places[:full]]) for t in (first[: len(unique[0])], second))
        covariance = moment - m[:, :, None] * m[:, None, :]
        mean, variance = (pointwise @ m[..., None])[..., 0], (pointwise @ covariance * pointwise).sum(dim=-1)
    if normed > full:
        chosen = [unique[1].index(place) for place in places[full:normed]]
        m, square = taken(first[len(unique[0]) :], chosen), taken(squares, chosen)
        mean = m if mean is None else torch.cat([mean, m])
        variance = square - m * m if variance is None else torch.cat([variance, square - m * m])
    rest = first.new_zeros(len(places) - normed, first.shape[1])
    scale, shift = rest + 1, rest
    if normed:
        variance = variance.clamp_min(0.0)
        own = torch.rsqrt(variance + layout.norms[0].eps)
        by = -mean * own
        if gain is not None:
            own, by = own * gain, by * gain + bias
        scale, shift = (torch.cat([own, scale]), torch.cat([by, shift])) if len(rest) else (own, by)
    if weights is not None:
        scale, shift = scale * weights[:, None], shift * weights[:, None]
    matrices = (pointwise * scale[:full, :, None]).transpose(1, 2).contiguous() if full else second
    return (matrices, scale[full:], shift), (mean, variance)


def taken(table: Tensor, order: list[int]) -> Tensor:
    """Rows of a table in an order."""
    return table if order == list(range(len(table))) else table[torch.tensor(order, device=table.device)]


def summed(layout: Layout, parts: Sequence[Tensor], rows, starts, native: bool = True) -> tuple[Tensor, ...]:
    matrices, diagonals, shifts = parts
    each = [*matrices.unbind(), *diagonals.unbind()]
    target_of = torch.tensor([target for _, _, target in layout.terms], device=shifts.device)
    shift = shifts.new_zeros(len(starts), shifts.shape[1]).index_add(0, target_of, shifts).unbind()
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
    """The sums of ``combined`` and their gradients, as the docstring of this module derives them."""

    @staticmethod
    def forward(ctx, layout: Layout, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        small, each, starts = layout.split(tensors)
        asked, of_each, _ = layout.split(ctx.needs_input_grad[1:])
        rows, known = [], []
        for kind, (x, *weights) in zip(layout.kinds, each, strict=True):
            if kind is not None:
                x, second, first = depthwise.forward(x, weights, kind)
                x = x.flatten(1, 3)
                known.append((second, first))
            rows.append(x)
        with torch.set_grad_enabled(any(ctx.needs_input_grad)):
            moving = any(any(some) for some in of_each)
            statistics = [table.requires_grad_(moving) for table in moments(layout, rows, known)]
            leaves = [one if one is None else one.detach().requires_grad_(a) for one, a in zip(small, asked, strict=True)]
            parts, observed = folded(layout, statistics, leaves)
        if layout.norms:
            track(layout.norms, *(table.detach() for table in observed), rows[0].shape[1])
        ctx.save_for_backward(*tensors[: len(tensors) - len(starts)], *(z for z, kind in zip(rows, layout.kinds, strict=True) if kind))
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
        _, each, convolved = layout.split(ctx.saved_tensors)
        convolved = iter(convolved)
        rows = [some[0] if kind is None else next(convolved) for kind, some in zip(layout.kinds, each, strict=True)]
        given = [gradient.contiguous() for gradient in (gradients[0].unbind() if layout.stacked else gradients)]
        pairs = [(rows[which][index], given[target]) for which, index, target in layout.terms]
        pairs += [(None, gradient) for gradient in given]
        of_matrices, of_diagonals, of_targets = grams(rows[0][0], pairs, layout.full, len(layout.terms) - layout.full)
        slopes = of_matrices, of_diagonals, taken(of_targets, [target for _, _, target in layout.terms])
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
                own = [sums[which, index] for index in range(len(weights))]
                of_x, of_weights = depthwise.backward(x, weights, kind, own, asks[0], any(asks[1:]))
                result += [of_x, *of_weights]
        return None, *result, *of_starts


def _algebra(moving: Sequence[tuple[Tensor, Tensor]], asked: Sequence[Tensor]) -> Sequence[Tensor]:
    parts, slopes = zip(*moving, strict=True)
    return torch.autograd.grad(parts, asked, slopes, retain_graph=True, materialize_grads=True)  # who asked may ask again


def _slopes_of_rows(layout: Layout, rows, given, parts, of_statistics) -> dict[tuple[int, int], Sum]:
    """The gradient of the rows at each place, ``Q M' + (z (dG + dG') + dm) / n``, summed over the terms that read them."""
    matrices, diagonals, _ = parts
    terms: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
    turned = [*(matrices.transpose(1, 2).contiguous().unbind() if layout.full else ()), *diagonals.unbind()]
    for (which, index, target), matrix in zip(layout.terms, turned, strict=True):
        terms.setdefault((which, index), []).append((given[target], matrix))
    of_second, of_squares, of_first = (table / rows[0].shape[1] for table in of_statistics)
    full, diagonal = layout.normed()
    of_moments = [*(of_second + of_second.transpose(1, 2)).unbind(), *(2 * of_squares).unbind()]
    shifts = dict.fromkeys(terms, given[0].new_zeros(given[0].shape[1]))
    for (which, index), moment, mean in zip(full + diagonal, of_moments, of_first, strict=True):
        terms[which, index].append((rows[which][index], moment))
        shifts[which, index] = shifts[which, index] + mean
    return {place: Sum(shifts[place], terms[place]) for place in terms}


def _differentiable(ctx, gradients: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients of everything but the starts, in operations that torch can differentiate again."""
    layout = ctx.layout
    saved = ctx.saved_tensors[: len(ctx.needs_input_grad) - 1 - len(ctx.started)]
    wanted = ctx.needs_input_grad[1 : 1 + len(saved)]
    small, each, _ = layout.split(saved)
    asked = [tensor for tensor, want in zip(saved, wanted, strict=True) if want]
    with torch.enable_grad():
        rows = [
            some[0] if kind is None else depthwise.convolved(some[0], some[1:], kind).flatten(1, 3)
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
