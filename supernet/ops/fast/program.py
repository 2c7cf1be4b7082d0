"""How a mixed cell runs many weighted operations at once, in training.

Here an operation is a chain of *links*, ``norm(pointwise(spatial(x)))`` each. All edges that leave
a node run together. What several operations share is computed once; depthwise convolutions at one
depth of their chains are one call; all poolings are one call. The rest of each link, and the sum
over the mixture, is a combination (:mod:`supernet.ops.fast.combination`).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.ops import DilConv, FactorizedReduce, Pool, Rectified, ReLUConvBN, SepConv
from supernet.ops.fast.combination import Combination
from supernet.ops.fast.depthwise import SIZES, DepthwiseMaker
from supernet.ops.fast.native import bfloat16_is_faster, reachable
from supernet.ops.fast.pooling import POOLINGS, PoolingMaker
from supernet.ops.fast.wiring import Maker, Term, Wiring


class Link(NamedTuple):
    """``norm(pointwise(spatial(x)))``, each of which may be missing (``None``)."""

    spatial: Callable[[Tensor], Tensor] | None
    pointwise: nn.Conv2d | None
    norm: nn.BatchNorm2d | None

    @property
    def ends(self) -> tuple[nn.Conv2d | None, nn.BatchNorm2d | None]:
        return self.pointwise, self.norm

    @property
    def depthwise(self) -> nn.Conv2d:
        """The spatial part where that is a depthwise convolution."""
        assert isinstance(self.spatial, nn.Conv2d)
        return self.spatial


def separable(operation: nn.Module) -> bool:
    """Whether an operation is a chain of depthwise convolutions of the kind that the kernels know,
    each with a 1×1 convolution and a norm after it.
    """
    sizes = [conv.kernel_size[0] for conv in operation.modules() if isinstance(conv, nn.Conv2d)]
    return isinstance(operation, SepConv | DilConv) and set(sizes) <= {1, *SIZES}


def links(operation: nn.Module) -> list[Link]:
    """An operation as a chain of links with a ReLU between them; a ReLU stands before the first
    link if the operation is a :class:`Rectified`.

    The spatial parts are depthwise convolutions in chains of several links, and in those that end
    in a 1×1 convolution.
    """
    body: Any = getattr(operation, "body", None)  # a module of parts, by their index or name
    match operation:
        case SepConv() if separable(operation):
            # Index by index: a slice of a Sequential would be a new module.
            return [Link(body[0], body[1], body[2]), Link(body[4], body[5], body[6])]
        case DilConv() if separable(operation):
            return [Link(body[0], body[1], body[2])]
        case ReLUConvBN() if body[0].kernel_size == body[0].stride == (1, 1):
            return [Link(None, body[0], body[1])]
        case ReLUConvBN():
            return [Link(body[0], None, body[1])]
        case FactorizedReduce():
            return [Link(body.halves, None, body.norm)]
        case Pool(pooled=pooled, norm=nn.BatchNorm2d() as norm):
            return [Link(pooled, None, norm)]
        case Pool(pooled=pooled):
            return [Link(pooled, None, None)]
        case nn.Identity():
            return [Link(None, None, None)]
        case Rectified():
            return [Link(body, None, None)]
    return [Link(operation, None, None)]


def _alike(convolution: nn.Conv2d) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return convolution.kernel_size, convolution.dilation


def runs_at_once(x: Tensor) -> bool:
    """Whether the C++ kernels can run a :class:`Program` on images like ``x``."""
    return reachable(x) and (x.dtype == torch.float32 or torch.is_autocast_enabled("cpu"))


class Program:
    """``operations`` (target, operation) that read one source, prepared to run together on
    ``device``.

    With ``recompute``, what depthwise convolutions and poolings make is not kept for backward, but
    made again there.
    """

    def __init__(
        self,
        operations: Sequence[tuple[int, nn.Module]],
        device: torch.device,
        recompute: bool = False,
    ):
        self.rectifies = False
        # Images that are given to the last combination: whether they are made of the source after
        # ReLU, and by what.
        self.given: list[tuple[bool, Callable[[Tensor], Tensor] | None]] = []
        shared: dict[object, int] = {}  # where in that list is what several operations share
        terms: list[Term] = []
        chains: dict[int, list[tuple[list[Link], int, int]]] = {}
        pools: list[tuple[Pool, Link, int, int]] = []
        for position, (target, operation) in enumerate(operations):
            chain = links(operation)
            if isinstance(operation, Pool):
                pools.append((operation, chain[0], target, position))
                continue
            if separable(operation):
                chains.setdefault(len(chain), []).append((chain, target, position))
                continue
            rectified, spatial = isinstance(operation, Rectified), chain[0].spatial
            self.rectifies |= rectified
            key = rectified if spatial is None else operation
            if key not in shared:
                shared[key] = len(self.given)
                self.given.append((rectified, spatial))
            terms.append(Term(shared[key], 0, *chain[0].ends, target, position))
        makers: list[Maker | None] = [None] * len(self.given)
        self.pools = bool(pools)
        if pools:
            kinds = {pool.kind for pool, *_ in pools}
            names = tuple(name for name in POOLINGS if name in kinds)
            terms += [
                Term(len(makers), names.index(pool.kind), *link.ends, *rest)
                for pool, link, *rest in pools
            ]
            makers.append(PoolingMaker(pools[0][0].stride, names))
        self.chains: list[tuple[list[Combination], list[list[nn.Conv2d]]]] = []
        for length, group in chains.items():
            # Sorted, so that convolutions of one size and dilation are neighbours.
            group.sort(key=lambda one: _alike(one[0][0].depthwise))
            depths = [[chain[depth] for chain, _, _ in group] for depth in range(length)]
            spatials = [[link.depthwise for link in depth] for depth in depths]
            each = [
                DepthwiseMaker(convs[0].stride[0], tuple(conv.dilation[0] for conv in convs))
                for convs in spatials
            ]
            between = [
                Combination(
                    Wiring(
                        [Term(0, k, *link.ends, k, k) for k, link in enumerate(depth)],
                        [maker],
                        len(depth),
                        device,
                        stacked=True,
                        recompute=recompute,
                    )
                )
                for depth, maker in zip(depths[:-1], each[:-1], strict=True)
            ]
            self.chains.append((between, spatials))
            terms += [
                Term(len(makers), k, *chain[-1].ends, target, position)
                for k, (chain, target, position) in enumerate(group)
            ]
            makers.append(each[-1])
        targets = 1 + max(target for target, _ in operations)
        self.last = Combination(Wiring(terms, makers, targets, device, recompute=recompute))

    def run(
        self,
        source: Tensor,
        weights: Tensor,
        starts: Sequence[Tensor | None],
        dtype: torch.dtype | None = None,
    ) -> list[Tensor]:
        """For each target, its start (which may be ``None``) plus what its operations make of
        ``source`` [B, C, H, W], each times its weight.

        ``dtype`` is the type of what is kept and multiplied, if that is not the type of the source.
        All else has the source's type.
        """
        device = source.device.type
        if torch.is_autocast_enabled(device):  # the moments need float32
            wants_bfloat16 = torch.get_autocast_dtype(device) == torch.bfloat16
            dtype = torch.bfloat16 if wants_bfloat16 and bfloat16_is_faster(source) else None
            starts = [None if start is None else start.float() for start in starts]
            with torch.autocast(device, enabled=False):
                return self.run(source.float(), weights, starts, dtype)
        if source.dtype == torch.float32:
            weights = weights.float()  # the kernels read float32 and do not ask
        rectified = F.relu(source) if self.rectifies else source
        sources: list[tuple[Tensor, ...]] = []
        for rectifies, spatial in self.given:
            x = rectified if rectifies else source
            sources.append(((x if spatial is None else spatial(x)).permute(0, 2, 3, 1)[None],))
        source = source.permute(0, 2, 3, 1)[None].contiguous()
        if self.pools:
            sources.append((source,))
        for between, spatials in self.chains:
            x = source
            for combination, convolutions in zip(between, spatials, strict=False):
                weighted = [(x, *(conv.weight for conv in convolutions))]
                (x,) = combination(weighted, dtype=dtype)
            sources.append((x, *(conv.weight for conv in spatials[-1])))
        return [total.permute(0, 3, 1, 2) for total in self.last(sources, weights, starts, dtype)]
