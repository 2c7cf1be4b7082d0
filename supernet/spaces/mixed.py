"""How a mixed cell runs many weighted operations at once, in training.

An operation is a chain of *links* ``norm(pointwise(spatial(x)))``. All edges that leave a node are
run together: what several operations share is computed once, depthwise convolutions of one depth in
their chains are one call, and so are poolings; the rest of each stage, and the sum over the
mixture, is a combination (:mod:`supernet.ops.combination`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.ops import (
    DilConv,
    FactorizedReduce,
    Pool,
    Rectified,
    ReLUConvBN,
    SepConv,
    depthwise,
    pooling,
)
from supernet.ops.combination import Combination, Kind, Term
from supernet.ops.native import multiplies


class Link(NamedTuple):
    """``norm(pointwise(spatial(x)))``, each of which may be missing (``None``)."""

    spatial: Callable[[Tensor], Tensor] | None
    pointwise: nn.Conv2d | None
    norm: nn.BatchNorm2d | None

    @property
    def ends(self) -> tuple[nn.Conv2d | None, nn.BatchNorm2d | None]:
        return self.pointwise, self.norm


def links(operation: nn.Module) -> list[Link]:
    """An operation as a chain of links with a ReLU between them, and one before the first if it
    rectifies its input.

    In a chain of several, and of one that ends in a 1×1 convolution, the spatial parts are
    depthwise convolutions.
    """
    match operation:
        case SepConv(body=body):
            return [
                Link(body[0], body[1], body[2]),
                Link(body[4], body[5], body[6]),
            ]  # a slice would be a new module
        case DilConv(body=body):
            return [Link(body[0], body[1], body[2])]
        case ReLUConvBN(body=body) if body[0].kernel_size == body[0].stride == (1, 1):
            return [Link(None, body[0], body[1])]
        case ReLUConvBN(body=body):
            return [Link(body[0], None, body[1])]
        case FactorizedReduce(body=body):
            return [Link(body.halves, None, body.norm)]
        case Pool(norm=nn.BatchNorm2d() as norm):
            return [Link(operation.pooled, None, norm)]
        case Pool():
            return [Link(operation.pooled, None, None)]
        case nn.Identity():
            return [Link(None, None, None)]
        case Rectified():
            return [Link(operation.body, None, None)]
    return [Link(operation, None, None)]


class Program:
    """``operations`` (target, operation) on one source, prepared to run together, on images on
    ``device``.

    With ``recompute`` what depthwise convolutions and poolings make is not kept for backward, but
    made again there.
    """

    def __init__(
        self,
        operations: Sequence[tuple[int, nn.Module]],
        device: torch.device,
        recompute: bool = False,
    ):
        self.rectifies = False
        self.given: list[
            tuple[bool, Callable[[Tensor], Tensor] | None]
        ] = []  # of images: of the rectified source? through what?
        made: dict[object, int] = {}  # where among them is what several operations share
        terms: list[Term] = []
        chains: dict[int, list[tuple[list[Link], int, int]]] = {}
        pools: list[tuple[Pool, Link, int, int]] = []
        for position, (target, operation) in enumerate(operations):
            chain = links(operation)
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
            terms.append(Term(made[key], 0, *chain[0].ends, target, position))
        kinds: list[Kind | None] = [None] * len(self.given)
        self.pools = bool(pools)
        if pools:
            names = tuple(
                name for name in pooling.NAMES if any(pool.kind == name for pool, *_ in pools)
            )
            terms += [
                Term(len(kinds), names.index(pool.kind), *stage.ends, *rest)
                for pool, stage, *rest in pools
            ]
            kinds.append(pooling.Kind(pools[0][0].stride, names))
        self.chains: list[tuple[list[Combination], list[list[nn.Conv2d]]]] = []
        for length, group in chains.items():
            group.sort(
                key=lambda one: (one[0][0].spatial.kernel_size, one[0][0].spatial.dilation)
            )  # so those alike are neighbours
            steps = [[chain[depth] for chain, _, _ in group] for depth in range(length)]
            spatials = [[stage.spatial for stage in step] for step in steps]
            each = [
                depthwise.Kind(convs[0].stride[0], tuple(conv.dilation[0] for conv in convs))
                for convs in spatials
            ]
            between = [
                Combination(
                    [Term(0, k, *stage.ends, k, k) for k, stage in enumerate(step)],
                    [kind],
                    len(step),
                    device,
                    stacked=True,
                    recompute=recompute,
                )
                for step, kind in zip(steps[:-1], each[:-1], strict=True)
            ]
            self.chains.append((between, spatials))
            terms += [
                Term(len(kinds), k, *chain[-1].ends, target, position)
                for k, (chain, target, position) in enumerate(group)
            ]
            kinds.append(each[-1])
        self.last = Combination(
            terms, kinds, 1 + max(target for target, _ in operations), device, recompute=recompute
        )

    def run(
        self,
        source: Tensor,
        weights: Tensor,
        starts: Sequence[Tensor | None],
        dtype: torch.dtype | None = None,
    ) -> list[Tensor]:
        """``starts``, of which each may be missing, plus what the operations make of ``source``,
        each times its of ``weights``.

        ``dtype`` is that of the z, if not that of the source: in less than float32 all but what is
        kept and multiplied stays so.
        """
        kind = source.device.type
        if torch.is_autocast_enabled(kind):  # the moments need float32
            dtype = (
                torch.bfloat16
                if torch.get_autocast_dtype(kind) == torch.bfloat16 and multiplies(source)
                else None
            )
            with torch.autocast(kind, enabled=False):
                return self.run(
                    source.float(),
                    weights,
                    [None if start is None else start.float() for start in starts],
                    dtype,
                )
        weights = (
            weights.float() if source.dtype == torch.float32 else weights
        )  # whatever made them: kernels do not ask
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
