"""The operations that convolve: ReLU, then one or more convolutions, then BatchNorm.

Each is ``body(relu(x))``. So a cell can apply the ReLU to a tensor once, and give the result to the
``body`` of all operations that read this tensor.

No strided 1×1 convolution is given to torch; :class:`StridedPointwise` says why. When torch is
upgraded, ``tools/heap_check.py`` shows whether that is still needed, and whether other convolutions
need the same.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Rectified(nn.Module):
    """``body(relu(x))``."""

    body: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return self.body(F.relu(x))


class StridedPointwise(nn.Conv2d):
    """A 1×1 convolution of stride 2 or more, without bias: it takes every ``stride``-th pixel of
    every ``stride``-th row, and convolves these with stride 1. The sums are the same.

    The oneDNN 3.13.3 in torch 2.15.0 writes past the end of a buffer when it computes the gradient
    of the weights of a strided 1×1 convolution, if the images are in channels-last with fewer than
    eight channels and sizes that the stride divides, and the processor has AVX2 but not AVX-512.
    With one thread that can abort the process, or go unnoticed; with more, gradients can be wrong.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.stride
        return F.conv2d(x[:, :, ::rows, ::columns], self.weight)


class ReLUConvBN(Rectified):
    """ReLU, dense convolution (not depthwise), BatchNorm."""

    def __init__(
        self, inputs: int, outputs: int, kernel_size: int = 1, stride: int = 1, affine: bool = True
    ):
        super().__init__()
        convolution: nn.Conv2d
        if kernel_size == 1 and stride > 1:
            convolution = StridedPointwise(inputs, outputs, stride)
        else:
            convolution = nn.Conv2d(
                inputs, outputs, kernel_size, stride, padding=kernel_size // 2, bias=False
            )
        self.body = nn.Sequential(convolution, nn.BatchNorm2d(outputs, affine=affine))


class DilConv(Rectified):
    """ReLU, dilated depthwise convolution, 1×1 convolution, BatchNorm (DARTS, section 3.1)."""

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
    """ReLU, depthwise convolution, 1×1 convolution, BatchNorm, all of that twice (DARTS, section
    3.1).

    The stride is in the first depthwise convolution.
    """

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
    """Halves height and width: ReLU, two 1×1 convolutions of stride 2 side by side, BatchNorm.

    The second convolution starts one pixel further down and to the right than the first, and gives
    the other half of the channels.
    """

    def __init__(self, inputs: int, outputs: int, affine: bool = True):
        super().__init__()
        self.body = _ShiftedPair(inputs, outputs, affine)


class _ShiftedPair(nn.Module):
    def __init__(self, inputs: int, outputs: int, affine: bool):
        super().__init__()
        self.even = StridedPointwise(inputs, outputs // 2, stride=2)
        self.odd = StridedPointwise(inputs, outputs - outputs // 2, stride=2)
        self.norm = nn.BatchNorm2d(outputs, affine=affine)

    def halves(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        # An odd size is padded, so that both halves have the same size.
        shifted = F.pad(x, (-1, width % 2, -1, height % 2))
        return torch.cat([self.even(x), self.odd(shifted)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.halves(x))
