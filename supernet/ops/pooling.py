"""The 3×3 max and average poolings of one source as one call, and their gradient.

``pooling.c`` reads the source once for both, and finds the moments of what they give while it is in
the cache. Backward it computes the sums of products that are the gradients of both, an image at a
time, and adds up what they make of it; no indices of maxima are kept. Without it
(:mod:`supernet.ops.native`) torch does one pooling after the other.
"""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from supernet.ops.native import half, library, numbers, place
from supernet.ops.plain import pooled

NAMES = ("max", "avg")


class Kind(NamedTuple):
    """Of K poolings, whose ``names`` are some of ``NAMES`` in order."""

    stride: int
    names: tuple[str, ...]

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
    return torch.stack(
        [
            pooled(x[0].permute(0, 3, 1, 2), name, kind.stride).permute(0, 2, 3, 1)
            for name in kind.names
        ]
    )


def forward(
    x: Tensor,
    weights: Sequence[Tensor],
    kind: Kind,
    squares: Tensor | None,
    first: Tensor | None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The same, in ``dtype``, by the compiled kernels; not differentiable. Over its pixels the
    means of the squares and of itself are put into ``squares`` and ``first``, K C numbers each, if
    there are such.
    """
    _, batch, height, width, channels = x.shape
    out = [(length - 1) // kind.stride + 1 for length in (height, width)]
    result = x.new_empty(kind.count, batch, *out, channels, dtype=dtype)
    each = dict(zip(kind.names, result, strict=True))
    library().pool(
        *map(place, (*map(each.get, NAMES), squares, first, x)), _shape(x, kind), half(result)
    )
    return result


def backward(
    x: Tensor,
    weights: Sequence[Tensor],
    kind: Kind,
    sums: tuple,
    rows: ctypes.c_long,
    of_x: bool,
    of_weights: bool,
) -> list[Tensor]:
    """The gradient of ``x``; that of the results, [B H' W', C] each, is ``sums``: where shifts lie,
    and terms (:class:`supernet.ops.rows.Terms`) of ``rows`` that are bfloat16 or not.
    """
    result = torch.empty_like(x)
    wanted = (ctypes.c_long(name in kind.names) for name in NAMES)
    library().pool_backward(place(result), place(x), *wanted, *sums, _shape(x, kind), rows)
    return [result]


def _shape(x: Tensor, kind: Kind) -> ctypes.Array:
    return numbers((*x.shape[1:], kind.stride))
