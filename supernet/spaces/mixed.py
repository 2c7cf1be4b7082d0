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
node are run together. What has no weights of its own (a pooling, the identity) has the unit matrix for W, and is computed once for
all of them, as are its moments; all depthwise convolutions are one call. The small matrices are plain differentiable algebra, and
where the sums' own gradient is asked to be differentiated again, it is done in plain algebra as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.ops import DilConv, FactorizedReduce, Pool, Rectified, ReLUConvBN, SepConv
from supernet.ops.depthwise import depthwise


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
            return [Stage(*body[:3]), Stage(*body[4:])]
        case DilConv(body=body):
            return [Stage(*body)]
        case ReLUConvBN(body=body) if body[0].kernel_size == body[0].stride == (1, 1):
            return [Stage(None, *body)]
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


class Features:
    """What spatial parts have made of an image, ``rows`` [K, pixels, C] for K of them, with their moments, computed once."""

    def __init__(self, images: Tensor):
        self.shape = images.shape  # [K, B, H, W, C]
        self.rows = images.reshape(len(images), -1, images.shape[-1])
        self._moments = None

    @classmethod
    def of(cls, image: Tensor) -> "Features":
        return cls(image.permute(0, 2, 3, 1)[None])

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean [K, C] and second moments [K, C, C]; to be asked for before ``rows`` are used."""
        if self._moments is None:
            self.rows, *self._moments = _Moments.apply(self.rows)
        return self._moments


class _Moments(torch.autograd.Function):
    """Rows as they are, their mean and their second moments, so that the gradients of all three are summed in one place."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(rows)
        return rows.view_as(rows), rows.mean(dim=1), torch.bmm(rows.transpose(1, 2), rows) / rows.shape[1]

    @staticmethod
    def backward(ctx, gradient: Tensor, mean: Tensor, second: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        count = rows.shape[1]
        mean, second = (mean / count)[:, None], (second + second.transpose(1, 2)) / count
        if torch.is_grad_enabled():
            return torch.baddbmm(gradient + mean, rows, second)
        return gradient.add_(mean).baddbmm_(rows, second)  # in place: only the functions of this module make this gradient


@dataclass
class Term:
    """One option of one edge, all but the pointwise and norm of its last stage done: they are ``features.rows[index]``."""

    features: Features
    index: int
    stage: Stage
    edge: int
    weight: Tensor | None = None


def run(source: Tensor, operations: Sequence[tuple[int, nn.Module, Tensor]], edges: int) -> list[Tensor]:
    """What each of ``edges`` adds to its node: the sum of its ``operations`` (edge, operation, weight) on ``source``, weighted."""
    if torch.is_autocast_enabled(source.device.type):  # the moments need float32, and a CPU is no faster in less
        with torch.autocast(source.device.type, enabled=False):
            return run(source.float(), operations, edges)
    rectified = F.relu(source) if any(isinstance(operation, Rectified) for _, operation, _ in operations) else None
    shared: dict[object, Features] = {}

    def once(key: object, make: Callable[[], Tensor]) -> Features:
        if key not in shared:
            shared[key] = Features.of(make())
        return shared[key]

    terms, chains = [], {}
    for edge, operation, weight in operations:
        chain = stages(operation)
        spatial = chain[0].spatial
        if isinstance(operation, SepConv | DilConv):
            chains.setdefault(len(chain), []).append((chain, edge, weight))
            continue
        x = rectified if isinstance(operation, Rectified) else source
        if spatial is None:
            features = once(x is source, lambda x=x: x)
        elif isinstance(operation, Pool):
            features = once((operation.kind, operation.stride), lambda x=x, spatial=spatial: spatial(x))
        else:
            features = Features.of(spatial(x))
        terms.append(Term(features, 0, chain[0], edge, weight))
    for length, group in chains.items():
        images = rectified.permute(0, 2, 3, 1)[None]
        for depth in range(length):
            step = [chain[depth] for chain, _, _ in group]
            features = Features(convolved(images, [stage.spatial for stage in step]))
            if depth < length - 1:
                matrices, shifts = folded([Term(features, k, stage, 0) for k, stage in enumerate(step)])
                images = torch.baddbmm(shifts[:, None], features.rows, matrices).relu_().view(features.shape)
        terms += [Term(features, k, chain[-1], edge, weight) for k, (chain, edge, weight) in enumerate(group)]
    terms.sort(key=lambda term: term.stage.norm is None)
    matrices, shifts = folded(terms)
    shapes = list(dict.fromkeys(term.features for term in terms))
    plan = tuple((shapes.index(term.features), term.index, term.edge) for term in terms)
    sums = _Sums.apply(plan, edges, matrices, shifts, *(features.rows for features in shapes))
    _, batch, height, width, channels = shapes[0].shape
    return [total.view(batch, height, width, channels).permute(0, 3, 1, 2) for total in sums]


def convolved(images: Tensor, convolutions: Sequence[nn.Conv2d]) -> Tensor:
    stride = convolutions[0].stride[0]
    return depthwise(images, [conv.weight for conv in convolutions], stride, [conv.dilation[0] for conv in convolutions])


class _Sums(torch.autograd.Function):
    """For each edge the sum of ``rows @ matrix + shift`` over its terms; ``plan`` says per term: features, index there, edge."""

    @staticmethod
    def forward(ctx, plan, edges: int, matrices: Tensor, shifts: Tensor, *features: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(matrices, *features)
        ctx.plan, ctx.edges = plan, edges
        whole = shifts.new_zeros(edges, shifts.shape[1])
        whole = whole.index_add(0, torch.tensor([edge for _, _, edge in plan], device=shifts.device), shifts)
        sums: list[Tensor | None] = [None] * edges
        for (which, index, edge), matrix in zip(plan, matrices.unbind(), strict=True):
            rows = features[which][index]
            if sums[edge] is None:
                sums[edge] = torch.addmm(whole[edge], rows, matrix)
            else:
                sums[edge].addmm_(rows, matrix)
        return tuple(sums)

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        (matrices, *features), plan = ctx.saved_tensors, ctx.plan
        if torch.is_grad_enabled():
            return _differentiable_gradients(ctx, gradients)
        wanted = ctx.needs_input_grad[4:]
        of_matrices = torch.empty_like(matrices)
        of_features = [torch.empty_like(rows) if asked else None for rows, asked in zip(features, wanted, strict=True)]
        of_edges = [gradient.sum(dim=0) for gradient in gradients]
        touched = set()
        turned = matrices.transpose(1, 2).contiguous()
        for term, (which, index, edge) in enumerate(plan):
            gradient = gradients[edge]
            torch.mm(features[which][index].t(), gradient, out=of_matrices[term])
            if wanted[which]:
                place = of_features[which][index]
                if (which, index) in touched:
                    place.addmm_(gradient, turned[term])
                else:
                    torch.mm(gradient, turned[term], out=place)
                    touched.add((which, index))
        return None, None, of_matrices, torch.stack([of_edges[edge] for _, _, edge in plan]), *of_features


def _differentiable_gradients(ctx, gradients: Sequence[Tensor]):
    """The gradient of :class:`_Sums` in operations that torch can differentiate again."""
    (matrices, *features), plan = ctx.saved_tensors, ctx.plan
    of_matrices = torch.stack([features[which][index].t() @ gradients[edge] for which, index, edge in plan])
    of_shifts = torch.stack([gradients[edge].sum(dim=0) for _, _, edge in plan])
    parts = [[torch.zeros_like(rows[0]) for rows in stack] for stack in features]
    for (which, index, edge), matrix in zip(plan, matrices.unbind(), strict=True):
        parts[which][index] = parts[which][index] + gradients[edge] @ matrix.t()
    return None, None, of_matrices, of_shifts, *(torch.stack(rows) for rows in parts)


def folded(terms: Sequence[Term]) -> tuple[Tensor, Tensor]:
    """What to do to the rows of each of K terms: matrices [K, in, out] and shifts [K, out].

    Terms without BatchNorm come last. BatchNorms keep their running statistics, as they do by themselves.
    """
    some = terms[0].features.rows
    channels, norms = some.shape[2], [term.stage.norm for term in terms if term.stage.norm is not None]
    unit = torch.eye(channels, dtype=some.dtype, device=some.device)
    matrix = torch.stack([unit if term.stage.pointwise is None else term.stage.pointwise.weight.flatten(1) for term in terms])
    scale, shift = matrix.new_ones(len(terms), channels), matrix.new_zeros(len(terms), channels)
    if norms:
        first, second = moments_of(terms[: len(norms)])
        normed = matrix[: len(norms)]
        mean = (normed @ first[..., None])[..., 0]
        covariance = second - first[:, :, None] * first[:, None, :]
        variance = (normed @ covariance * normed).sum(dim=-1).clamp_min(0.0)
        track(norms, mean.detach(), variance.detach(), some.shape[1])
        scale = torch.rsqrt(variance + norms[0].eps)
        shift = -mean * scale
        if norms[0].affine:
            gain = torch.stack([norm.weight for norm in norms])
            scale, shift = scale * gain, shift * gain + torch.stack([norm.bias for norm in norms])
        if len(norms) < len(terms):
            rest = len(terms) - len(norms), channels
            scale, shift = torch.cat([scale, scale.new_ones(rest)]), torch.cat([shift, shift.new_zeros(rest)])
    if terms[0].weight is not None:
        weights = torch.stack([term.weight for term in terms])[:, None]
        scale, shift = scale * weights, shift * weights
    return (matrix * scale[..., None]).transpose(1, 2), shift


def moments_of(terms: Sequence[Term]) -> tuple[Tensor, Tensor]:
    """Mean [K, C] and second moments [K, C, C] of the rows of K terms."""
    groups = list(dict.fromkeys(term.features for term in terms))
    offsets, count = {}, 0
    for features in groups:
        offsets[features], count = count, count + len(features.rows)
    order = [offsets[term.features] + term.index for term in terms]
    first, second = (torch.cat(part) for part in zip(*(features.moments() for features in groups), strict=True))
    if order == list(range(count)):
        return first, second
    order = torch.tensor(order, device=first.device)
    return first[order], second[order]


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
