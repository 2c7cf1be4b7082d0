"""The 3×3 max and average poolings of one source as one call, and their gradient.

``pooling.c`` reads the source once for both, and finds the moments of what they give while it is in the cache. Backward it computes
the sums of products that are the gradients of both, an image at a time, and adds up what they make of it; no indices of maxima are
kept. Without it (:mod:`supernet.ops.native`) torch does one pooling after the other.
"""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from supernet.ops.native import half, library, numbers, place
from supernet.ops.plain import pooled
from supernet.ops.rows import Sum, told

NAMES = ("max", "avg")


class Kind(NamedTuple):
    """Of K poolings, whose ``names`` are some of ``NAMES`` in order; ``normed`` if the moments of what they give are needed."""

    stride: int
    names: tuple[str, ...]
    normed: bool = True

    @property
    def count(self) -> int:
        """Of results."""
        return len(self.names)

    @property
    def weights(self) -> int:
        """The number of them."""
        return 0


def plain(x: Tensor, weights: Sequence[Tensor], kind: Kind) -> Tensor:
    """Images [1, B, H, W, C] into [K, B, H', W', C], by torch. There are no ``weights``."""
    return torch.stack([pooled(x[0].permute(0, 3, 1, 2), name, kind.stride).permute(0, 2, 3, 1) for name in kind.names])


def forward(x: Tensor, weights: Sequence[Tensor], kind: Kind, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The same, in ``dtype``; and, over its pixels, the means [K, C] of the squares and of itself, if they are needed. Not
    differentiable."""
    _, batch, height, width, channels = x.shape
    out = [(length - 1) // kind.stride + 1 for length in (height, width)]
    result = x.new_empty(kind.count, batch, *out, channels, dtype=dtype)
    squares, first = x.new_empty(2, kind.count if kind.normed else 0, channels).unbind()
    each = dict(zip(kind.names, result, strict=True))
    tables = (squares, first) if kind.normed else (None, None)
    library().pool(*map(place, (*map(each.get, NAMES), *tables, x)), _shape(x, kind), half(result))
    return result, squares, first


def backward(
    x: Tensor, weights: Sequence[Tensor], kind: Kind, sums: Sequence[Sum], of_x: bool, of_weights: bool
) -> tuple[Tensor, list[Tensor]]:
    """The gradient of ``x``; that of the results, [B H' W', C] each, is ``sums``."""
    result = torch.empty_like(x)
    wanted = (ctypes.c_long(name in kind.names) for name in NAMES)
    with told(sums) as arguments:
        rows = half(sums[0].terms[0][0])
        library().pool_backward(place(result), place(x), *wanted, *arguments, _shape(x, kind), rows)
    return result, []


def _shape(x: Tensor, kind: Kind) -> ctypes.Array:
    return numbers((*x.shape[1:], kind.stride))
