"""Many depthwise convolutions of rectified images as one call, and their gradients.

The stock gradients of a 5×5 or a dilated depthwise convolution take five to fifteen times as long
as the convolution itself on a CPU, and each of many convolutions that read one image reads it anew.
``depthwise.c`` does all of them while an image is in the cache, and more: the ReLU before them, the
moments of what they give, and, backward, the sums of products that are their gradient. Without it
(:mod:`supernet.ops.native`) torch does one convolution after the other.
"""

import ctypes
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from supernet.ops.native import half, library, numbers, place, places


class Kind(NamedTuple):
    """Of K convolutions; each is padded by half its size times its dilation."""

    stride: int
    dilations: tuple[int, ...]

    @property
    def count(self) -> int:
        """Of results."""
        return len(self.dilations)

    @property
    def weights(self) -> int:
        """The number of them."""
        return len(self.dilations)


SIZES = 3, 5  # of kernels that are compiled


def knows(weights: Sequence[Tensor]) -> bool:
    """Whether the compiled kernels do convolutions with such ``weights``."""
    return all(weight.shape[-1] in SIZES for weight in weights)


def plain(x: Tensor, weights: Sequence[Tensor], kind: Kind) -> Tensor:
    """``relu(x)``, images [1 or K, B, H, W, C], all the same or one set for each convolution, into
    [K, B, H', W', C]; by torch.

    ``weights`` are [C, 1, k, k] with k odd. Neighbours of one size and dilation are one wide
    convolution. The images may be bfloat16, and then their gradient is.
    """
    x, results, start = F.relu(x.to(weights[0].dtype)), [], 0
    shared, batch, height, width, channels = x.shape
    for (size, dilation), run in groupby(
        (w.shape[-1], d) for w, d in zip(weights, kind.dilations, strict=True)
    ):
        end = start + len(list(run))
        some = x if shared == 1 else x[start:end]
        image = some.permute(1, 0, 4, 2, 3).reshape(
            batch, -1, height, width
        )  # channels of all, one after the other
        # Of shared images each channel has several kernels, one after the other.
        weight = torch.stack(list(weights[start:end]), dim=1 if shared == 1 else 0).flatten(0, 1)
        out = F.conv2d(
            image, weight, None, kind.stride, size // 2 * dilation, dilation, groups=image.shape[1]
        )
        apart = (channels, end - start) if shared == 1 else (end - start, channels)
        out = out.unflatten(1, apart)
        results.append(out.permute(2, 0, 3, 4, 1) if shared == 1 else out.permute(1, 0, 3, 4, 2))
        start = end
    return torch.cat(results)


def forward(
    x: Tensor,
    weights: Sequence[Tensor],
    kind: Kind,
    second: Tensor | None,
    first: Tensor | None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The same, in ``dtype``, by the compiled kernels; not differentiable. Over its pixels the
    second moments and the means are put into ``second``, K C C numbers, and ``first``, K C of them,
    if there are such.
    """
    _, batch, height, width, channels = x.shape
    out = [(length - 1) // kind.stride + 1 for length in (height, width)]
    result = x.new_empty(len(weights), batch, *out, channels, dtype=dtype)
    weights = [weight.contiguous() for weight in weights]
    library().forward(
        *map(place, (result, second, first, x)),
        places(weights),
        *_numbers(x, weights, kind),
        half(result),
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
) -> list[Tensor | None]:
    """The gradients of ``x`` and of the weights that are asked for; that of the results, [B H' W',
    C] each, is ``sums``: where shifts lie, and terms (:class:`supernet.ops.rows.Terms`) of ``rows``
    that are bfloat16 or not.
    """
    gradient = torch.empty_like(x) if of_x else None
    flat = weights[0].new_empty(sum(weight.numel() for weight in weights)) if of_weights else None
    weights = [weight.contiguous() for weight in weights]
    library().backward(
        *map(place, (gradient, flat, x)), places(weights), *sums, *_numbers(x, weights, kind), rows
    )
    if flat is None:
        return [gradient, *[None] * len(weights)]
    parts = flat.split([weight.numel() for weight in weights])
    return [
        gradient,
        *(part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)),
    ]


def _numbers(
    x: Tensor, weights: Sequence[Tensor], kind: Kind
) -> tuple[ctypes.Array, ctypes.Array, ctypes.Array]:
    shared, *sizes = x.shape
    shape = numbers(
        (len(weights), int(shared == 1), *sizes, kind.stride, int(x.dtype == torch.bfloat16))
    )
    return shape, numbers([weight.shape[-1] for weight in weights]), numbers(kind.dilations)
