"""Candidate operations that convolve. All rectify their input first: ReLU, convolution, BatchNorm.

A rectifying operation is ``body(relu(x))``, so that a cell can rectify a tensor once for all
operations that read it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Rectified(nn.Module):
    """``body(relu(x))``."""

    def forward(self, x: Tensor) -> Tensor:
        return self.body(F.relu(x))


class ReLUConvBN(Rectified):
    """ReLU, dense convolution, BatchNorm."""

    def __init__(
        self, inputs: int, outputs: int, kernel_size: int = 1, stride: int = 1, affine: bool = True
    ):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(outputs, affine=affine),
        )


class DilConv(Rectified):
    """ReLU, dilated depthwise convolution, pointwise convolution, BatchNorm (DARTS, section 3.1)."""

    def __init__(self, channels: int, kernel_size: int, stride: int = 1, affine: bool = True):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(
                channels,
                channels,
                kernel_size,
                stride,
                padding=kernel_size - 1,
                dilation=2,
                groups=channels,
                bias=False,
            ),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        )


class SepConv(Rectified):
    """Depthwise-separable convolution, applied twice, the stride in the first (DARTS, section 3.1)."""

    def __init__(self, channels: int, kernel_size: int, stride: int = 1, affine: bool = True):
        super().__init__()

        def depthwise(stride: int) -> nn.Module:
            return nn.Conv2d(
                channels,
                channels,
                kernel_size,
                stride,
                padding=kernel_size // 2,
                groups=channels,
                bias=False,
            )

        self.body = nn.Sequential(
            depthwise(stride),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=affine),
            nn.ReLU(),
            depthwise(1),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        )


class FactorizedReduce(Rectified):
    """Halves the resolution without losing every second pixel: two strided 1×1 convolutions, one
    shifted by a pixel.
    """

    def __init__(self, inputs: int, outputs: int, affine: bool = True):
        super().__init__()
        self.body = _ShiftedPair(inputs, outputs, affine)


class _ShiftedPair(nn.Module):
    def __init__(self, inputs: int, outputs: int, affine: bool):
        super().__init__()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - outputs // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(outputs, affine=affine)

    def halves(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        shifted = F.pad(
            x, (-1, width % 2, -1, height % 2)
        )  # an odd size is padded, so that both halves agree
        return torch.cat([self.even(x), self.odd(shifted)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.halves(x))
