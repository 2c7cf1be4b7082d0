"""Many depthwise convolutions of rectified images as one call, and their gradients.

The stock gradients of a 5×5 or a dilated depthwise convolution take five to fifteen times as long as the convolution itself on a
CPU, and each of many convolutions that read one image reads it anew. ``depthwise.c`` does all of them while an image is in the
cache, and more: the ReLU before them, the moments of what they give, and, backward, the sums of products that are their gradient.
Without it (:mod:`supernet.ops.native`) torch does one convolution after the other.
"""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from supernet.ops.native import known, library, numbers, place, places
from supernet.ops.rows import Sum, grams, products, told


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


def plain(x: Tensor, weights: Sequence[Tensor], kind: Kind) -> Tensor:
    """``relu(x)``, images [1 or K, B, H, W, C], all the same or one set for each convolution, into [K, B, H', W', C]; by torch.

    ``weights`` are [C, 1, k, k] with k odd.
    """
    images = [image.permute(0, 3, 1, 2) for image in F.relu(x).unbind()] * (len(weights) if len(x) == 1 else 1)
    return torch.stack(
        [
            F.conv2d(image, weight, None, *_told(weight, kind.stride, dilation)).permute(0, 2, 3, 1)
            for image, weight, dilation in zip(images, weights, kind.dilations, strict=True)
        ]
    )


def _told(weight: Tensor, stride: int, dilation: int) -> tuple[int, int, int, int]:
    """Stride, padding, dilation, groups."""
    return stride, weight.shape[-1] // 2 * dilation, dilation, len(weight)


def forward(x: Tensor, weights: Sequence[Tensor], kind: Kind) -> tuple[Tensor, Tensor, Tensor]:
    """The same; and, over its pixels, the second moments [K, C, C] and the means [K, C]. Not differentiable."""
    if not _known(x, weights):
        result = plain(x, weights, kind)
        rows = result.flatten(1, 3).unbind()
        second, _, first = grams(rows[0], [(z, z) for z in rows] + [(None, z) for z in rows], len(rows), 0)
        return result, second / len(rows[0]), first / len(rows[0])
    _, batch, height, width, channels = x.shape
    out = [(length - 1) // kind.stride + 1 for length in (height, width)]
    result = x.new_empty(len(weights), batch, *out, channels)
    second, first = x.new_empty(len(weights), channels, channels), x.new_empty(len(weights), channels)
    weights = [weight.contiguous() for weight in weights]
    library().forward(*map(place, (result, second, first, x)), places(weights), *_numbers(x, weights, kind))
    return result, second, first


def backward(
    x: Tensor, weights: Sequence[Tensor], kind: Kind, sums: Sequence[Sum], of_x: bool, of_weights: bool
) -> tuple[Tensor | None, list[Tensor] | list[None]]:
    """The gradients of ``x`` and of the weights that are asked for; that of the results, [B H' W', C] each, is ``sums``."""
    if not _known(x, weights):
        return _backward(x, weights, kind, products(sums), of_x, of_weights)
    gradient = torch.empty_like(x) if of_x else None
    flat = x.new_empty(sum(weight.numel() for weight in weights)) if of_weights else None
    weights = [weight.contiguous() for weight in weights]
    with told(sums) as arguments:
        library().backward(*map(place, (gradient, flat, x)), places(weights), *arguments, *_numbers(x, weights, kind))
    if flat is None:
        return gradient, [None] * len(weights)
    parts = flat.split([weight.numel() for weight in weights])
    return gradient, [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]


def _backward(x, weights, kind, slopes: Sequence[Tensor], of_x: bool, of_weights: bool):
    shared, batch, height, width, channels = x.shape
    out = [(length - 1) // kind.stride + 1 for length in (height, width)]
    of_images, of_kernels = [], []
    for index, (weight, dilation, slope) in enumerate(zip(weights, kind.dilations, slopes, strict=True)):
        stride, padding, dilation, groups = _told(weight, kind.stride, dilation)
        image = F.relu(x[index if shared > 1 else 0]).permute(0, 3, 1, 2)
        slope = slope.view(batch, *out, channels).permute(0, 3, 1, 2)
        pairs = [(length, length) for length in (stride, padding, dilation)]
        of_image, of_kernel, _ = torch.ops.aten.convolution_backward(
            slope, image, weight, None, *pairs, False, (0, 0), groups, (of_x, of_weights, False)
        )
        of_images.append(of_image)
        of_kernels.append(of_kernel)
    if not of_x:
        return None, of_kernels
    whole = torch.stack(of_images).permute(0, 1, 3, 4, 2)
    whole = whole.sum(dim=0, keepdim=True) if shared < len(weights) else whole
    return whole * (x > 0), of_kernels


def _known(x: Tensor, weights: Sequence[Tensor]) -> bool:
    return known(x) and all(weight.shape[-1] in (3, 5) for weight in weights)


def _numbers(x: Tensor, weights: Sequence[Tensor], kind: Kind) -> tuple[ctypes.Array, ctypes.Array, ctypes.Array]:
    shared, *sizes = x.shape
    shape = numbers((len(weights), int(shared == 1), *sizes, kind.stride))
    return shape, numbers([weight.shape[-1] for weight in weights]), numbers(kind.dilations)
