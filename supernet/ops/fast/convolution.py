"""Depthwise convolutions by torch, whose gradients the C++ kernels compute.

On a CPU torch's own gradients of 5×5 or dilated depthwise convolutions take five to twenty times as
long as the convolution itself; the kernels take about twice as long. The convolution itself is
torch's, which is as fast.

The sum S of ``gradient * convolution(x, weight)`` over all values is linear in each of the three.
The result of a convolution, and its two gradients, are the derivatives of S with respect to one of
the three. The gradients of these derivatives are again such derivatives. So one function computes
all of them, as often as a gradient is differentiated again.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.ops.fast.depthwise import SIZES, DepthwiseMaker
from supernet.ops.fast.native import supported
from supernet.ops.fast.rows import Terms

RESULT, IMAGE, WEIGHT = range(3)  # with respect to which of (gradient, x, weight)
GIVEN = Terms([[((0, 0), 0, False)]])  # the gradient as it is: times a diagonal of ones


class Derivative(torch.autograd.Function):
    """The derivative of S with respect to ``which`` of the gradient [B, C, H', W'], the images
    [B, C, H, W] and the weight [C, 1, k, k]. Its place among the tensors holds any tensor of its
    shape.
    """

    @staticmethod
    def forward(ctx: Any, maker: DepthwiseMaker, which: int, *tensors: Tensor) -> Tensor:
        ctx.maker, ctx.which = maker, which
        ctx.save_for_backward(*tensors)
        return derivative(maker, which, *tensors)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        tensors = list(ctx.saved_tensors)
        tensors[ctx.which] = slopes[0]
        return (
            None,
            None,
            *(
                Derivative.apply(ctx.maker, which, *tensors)
                if want and which != ctx.which
                else None
                for which, want in enumerate(ctx.needs_input_grad[2:])
            ),
        )


def derivative(maker: DepthwiseMaker, which: int, gradient: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """See :class:`Derivative`; not differentiable."""
    if which == RESULT:
        return convolved(x, w, maker.stride, maker.dilations[0])
    gradient, x = (one.permute(0, 2, 3, 1).contiguous() for one in (gradient, x))
    ones, zeros = w.new_ones(len(w)), w.new_zeros(len(w))
    sums = zeros.data_ptr(), *GIVEN.at([gradient.data_ptr()], 0, ones.data_ptr())
    found = maker.backward(x[None], [w], sums, 0, which == IMAGE, which == WEIGHT)[which - IMAGE]
    assert found is not None  # it was asked for
    return found if which == WEIGHT else found[0].permute(0, 3, 1, 2)


def convolved(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """torch's depthwise convolution, padded so that stride 1 keeps height and width."""
    padding = weight.shape[-1] // 2 * dilation
    return F.conv2d(x, weight, None, stride, padding, dilation, groups=len(weight))


def depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """The same, with gradients by the kernels where these support the images."""
    learns = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if not learns or not supported(x) or torch.is_autocast_enabled("cpu"):
        return convolved(x, weight, stride, dilation)
    return Derivative.apply(
        DepthwiseMaker(stride, (dilation,), rectify=False), RESULT, x, x, weight
    )


class Depthwise(nn.Conv2d):
    """A depthwise convolution whose gradients the kernels compute."""

    def forward(self, x: Tensor) -> Tensor:
        return depthwise(x, self.weight, self.stride[0], self.dilation[0])


def with_fast_gradients(network: nn.Module) -> nn.Module:
    """The network, whose depthwise convolutions are :class:`Depthwise` from now on. What they
    compute, and the names of the weights, are as before.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d and is_depthwise(module):
            module.__class__ = Depthwise
    return network


def without_fast_gradients(network: nn.Module) -> nn.Module:
    """The inverse of :func:`with_fast_gradients`: the network has torch's own layers again."""
    for module in network.modules():
        if type(module) is Depthwise:
            setattr(module, "__class__", nn.Conv2d)  # noqa: B010
    return network


def is_depthwise(convolution: nn.Conv2d) -> bool:
    """Whether it is a depthwise convolution of the kind that the kernels know: square, of a size in
    ``SIZES``, without bias, padded with zeros so that stride 1 keeps height and width.
    """
    size, dilation, stride = (
        convolution.kernel_size[0],
        convolution.dilation[0],
        convolution.stride[0],
    )
    padding = size // 2 * dilation
    return (
        convolution.groups == convolution.in_channels == convolution.out_channels
        and size in SIZES
        and convolution.bias is None
        and convolution.padding_mode == "zeros"
        and convolution.kernel_size == (size, size)
        and convolution.stride == (stride, stride)
        and convolution.dilation == (dilation, dilation)
        and convolution.padding in ((padding, padding), "same" if stride == 1 else None)
    )
