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
from torch.nn import functional as F

from supernet.ops.native import known, library, numbers, place
from supernet.ops.rows import Sum, grams, products, told

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


def pooled(x: Tensor, name: str, stride: int) -> Tensor:
    """Images [B, C, H, W] by torch, the padding not counted."""
    if name == "max":
        return F.max_pool2d(x, 3, stride, padding=1)
    return F.avg_pool2d(x, 3, stride, padding=1, count_include_pad=False)


def plain(x: Tensor, weights: Sequence[Tensor], kind: Kind) -> Tensor:
    """Images [1, B, H, W, C] into [K, B, H', W', C], by torch. There are no ``weights``."""
    return torch.stack([pooled(x[0].permute(0, 3, 1, 2), name, kind.stride).permute(0, 2, 3, 1) for name in kind.names])


def forward(x: Tensor, weights: Sequence[Tensor], kind: Kind) -> tuple[Tensor, Tensor, Tensor]:
    """The same; and, over its pixels, the means [K, C] of the squares and of itself, if they are needed. Not differentiable."""
    if not known(x):
        result = plain(x, weights, kind).contiguous()
        rows = result.flatten(1, 3)
        some = rows.unbind() if kind.normed else ()
        _, squares, first = grams(rows[0], [(z, z) for z in some] + [(None, z) for z in some], 0, len(some))
        return result, squares / rows.shape[1], first / rows.shape[1]
    _, batch, height, width, channels = x.shape
    out = [(length - 1) // kind.stride + 1 for length in (height, width)]
    result = x.new_empty(kind.count, batch, *out, channels)
    squares, first = x.new_empty(2, kind.count if kind.normed else 0, channels).unbind()
    each = dict(zip(kind.names, result, strict=True))
    tables = (squares, first) if kind.normed else (None, None)
    library().pool(*map(place, (*map(each.get, NAMES), *tables, x)), _shape(x, kind))
    return result, squares, first


def backward(
    x: Tensor, weights: Sequence[Tensor], kind: Kind, sums: Sequence[Sum], of_x: bool, of_weights: bool
) -> tuple[Tensor, list[Tensor]]:
    """The gradient of ``x``; that of the results, [B H' W', C] each, is ``sums``."""
    if not known(x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            result = plain(x, weights, kind)
        return torch.autograd.grad(result, x, torch.stack(list(products(sums))).view_as(result))[0], []
    result = torch.empty_like(x)
    wanted = (ctypes.c_long(name in kind.names) for name in NAMES)
    with told(sums) as arguments:
        library().pool_backward(place(result), place(x), *wanted, *arguments, _shape(x, kind))
    return result, []


def _shape(x: Tensor, kind: Kind) -> ctypes.Array:
    return numbers((*x.shape[1:], kind.stride))
