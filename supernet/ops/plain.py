"""Candidate operations without weights of their own (but for the normalisation that some spaces put
after a pooling).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def pooled(x: Tensor, kind: str, stride: int) -> Tensor:
    """Images [B, C, H, W], 3×3, ``kind`` "max" or "avg", the padding not counted."""
    if kind == "max":
        return F.max_pool2d(x, 3, stride, padding=1)
    return F.avg_pool2d(x, 3, stride, padding=1, count_include_pad=False)


class Pool(nn.Module):
    """3×3 pooling, ``kind`` "max" or "avg" (padding not counted); BatchNorm behind it where
    ``norm`` is true.
    """

    def __init__(
        self, channels: int, kind: str, stride: int = 1, affine: bool = True, norm: bool = False
    ):
        super().__init__()
        self.kind, self.stride = kind, stride
        self.norm = nn.BatchNorm2d(channels, affine=affine) if norm else nn.Identity()

    def pooled(self, x: Tensor) -> Tensor:
        return pooled(x, self.kind, self.stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.pooled(x))


class DropPath(nn.Module):
    """Zeroes a branch of a sample with ``probability``, scaling the rest up to the same mean
    (Larsson et al. 2017).

    Active in training only. Draws come from ``generator``; ``None`` is torch's own.
    """

    def __init__(self, probability: float = 0.0):
        super().__init__()
        self.probability = probability
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0.0:
            return x
        keep = 1.0 - self.probability
        mask = x.new_empty(len(x), 1, 1, 1).bernoulli_(keep, generator=self.generator)
        return x * (mask / keep)
