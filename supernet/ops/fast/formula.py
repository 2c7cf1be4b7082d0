"""The sums of a combination (:mod:`supernet.ops.fast.combination`) in torch's operations.

torch can differentiate them as often as needed. A gradient that is to be differentiated again is
computed with them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from supernet.ops.fast.convolution import depthwise
from supernet.ops.fast.folding import Moments, SmallTensors, fold_by_torch
from supernet.ops.fast.multilinear import Derivative
from supernet.ops.fast.pooling import PoolingMaker
from supernet.ops.fast.wiring import Maker, Wiring
from supernet.ops.pool import pooled


def formula(
    wiring: Wiring, small: Sequence[Tensor | None], sources: Sequence[Sequence[Tensor]]
) -> Tensor:
    """The sums [targets, pixels, C] without starts."""
    made = [
        list(x) if maker is None else made_by_torch(maker, x, weights)
        for maker, (x, *weights) in zip(wiring.makers, sources, strict=True)
    ]
    rows = torch.stack([image.flatten(0, -2) for images in made for image in images])
    pixels, channels = rows.shape[1:]
    forms, none = wiring.forms(channels), rows.new_empty(0, channels, channels)
    # The derivatives with respect to matrices and to diagonals are sums of products of rows.
    moments = Moments(
        Derivative.apply(forms.second, 2, rows, rows, none, none) / pixels,
        Derivative.apply(forms.squares, 3, rows, rows, none, none) / pixels,
        rows.mean(dim=1)[forms.observed],
    )
    (matrices, diagonals, shifts), _ = fold_by_torch(
        wiring.layout, moments, SmallTensors.of(wiring.layout, small)
    )
    matrices = matrices[: wiring.layout.full]
    return shifts[:, None] + Derivative.apply(forms.sums, 0, none, rows, matrices, diagonals)


def made_by_torch(maker: Maker, x: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """The K images [B, H', W', C] that a maker makes of ``x`` [1 or K, B, H, W, C]."""
    images = [image.permute(0, 3, 1, 2) for image in x]
    if isinstance(maker, PoolingMaker):
        made = [pooled(images[0], name, maker.stride) for name in maker.names]
    else:
        images = [image.to(weights[0].dtype) for image in images]
        images = [F.relu(image) for image in images] if maker.rectify else images
        made = [
            depthwise(images[k % len(images)], weight, maker.stride, dilation)
            for k, (weight, dilation) in enumerate(zip(weights, maker.dilations, strict=True))
        ]
    return [image.permute(0, 2, 3, 1) for image in made]
