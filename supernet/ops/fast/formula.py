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
from supernet.ops.fast.pooling import PoolingMaker
from supernet.ops.fast.wiring import Maker, Wiring
from supernet.ops.pool import pooled


def formula(
    wiring: Wiring, small: Sequence[Tensor | None], sources: Sequence[Sequence[Tensor]]
) -> Tensor:
    """The sums [targets, pixels, C] without starts."""
    rows = [
        x if maker is None else made_by_torch(maker, x, weights).flatten(1, 3)
        for maker, (x, *weights) in zip(wiring.makers, sources, strict=True)
    ]
    pixels = rows[0].shape[1]
    whole, diagonal = (
        [rows[source] for source in dict.fromkeys(source for source, _ in images)]
        for images in (wiring.whole, wiring.diagonal)
    )
    none = rows[0][:0]
    moments = Moments(
        torch.cat([none.transpose(1, 2) @ none] + [z.transpose(1, 2) @ z / pixels for z in whole]),
        torch.cat([none.mean(dim=1)] + [z.square().mean(dim=1) for z in diagonal]),
        torch.cat([none.mean(dim=1)] + [z.mean(dim=1) for z in (*whole, *diagonal)]),
    )
    (matrices, diagonals, shifts), _ = fold_by_torch(
        wiring.layout, moments, SmallTensors.of(wiring.layout, small)
    )
    sums, full = shifts[:, None].expand(-1, pixels, -1), wiring.layout.full
    for source, start, end, images, targets in wiring.runs:
        z = rows[source] if images is None else rows[source][images]
        if end <= full:
            terms = z @ matrices[start:end]
        else:
            terms = z * diagonals[start - full : end - full, None]
        sums = sums.index_add(0, targets, terms)
    return sums


def made_by_torch(maker: Maker, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The images [K, B, H', W', C] that a maker makes of ``x`` [1 or K, B, H, W, C]."""
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
    return torch.stack([image.permute(0, 2, 3, 1) for image in made])
