"""Depthwise convolutions by torch, whose gradients the C++ kernels compute.

On a CPU torch's own gradients of 5×5 or dilated depthwise convolutions take five to twenty times as
long as the convolution itself; the kernels take about twice as long. The convolution itself is
torch's, which is as fast.

The sum S of ``gradient * convolution(x, weight)`` over all values is linear in each of the three.
The result of a convolution, and its two gradients, are the derivatives of S with respect to one of
the three. The gradients of these derivatives are again such derivatives. So one function computes
all of them, as often as a gradient is differentiated again.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.utils import _pair

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
        if which == RESULT:
            _, x, weight = tensors
            return F.conv2d(x, weight, None, *places(maker, weight), len(weight))
        found = gradients(maker, tensors, [which])[which]
        assert found is not None  # it was asked for
        return found

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        tensors = list(ctx.saved_tensors)
        tensors[ctx.which] = slopes[0]
        wanted = [k for k, want in enumerate(ctx.needs_input_grad[2:]) if want and k != ctx.which]
        if ctx.which == RESULT and not torch.is_grad_enabled():
            return None, None, *gradients(ctx.maker, tensors, wanted)  # one call of the kernel
        found = {which: Derivative.apply(ctx.maker, which, *tensors) for which in wanted}
        return None, None, *map(found.get, range(3))


def gradients(
    maker: DepthwiseMaker, tensors: Sequence[Tensor], wanted: Sequence[int]
) -> list[Tensor | None]:
    """The derivatives with respect to the images and to the weight, if ``wanted``, each in its
    place; not differentiable.
    """
    weight = tensors[WEIGHT]
    gradient, x = (one.permute(0, 2, 3, 1).contiguous() for one in tensors[:WEIGHT])
    ones, zeros = weight.new_ones(len(weight)), weight.new_zeros(len(weight))
    sums = zeros.data_ptr(), *GIVEN.at([gradient.data_ptr()], 0, ones.data_ptr())
    of_x, of_weight = maker.backward(x[None], [weight], sums, 0, IMAGE in wanted, WEIGHT in wanted)
    return [None, None if of_x is None else of_x[0].permute(0, 3, 1, 2), of_weight]


def places(maker: DepthwiseMaker, weight: Tensor) -> tuple[int, int, int]:
    """Stride, padding and dilation. The padding is such that stride 1 keeps height and width."""
    (dilation,) = maker.dilations
    return maker.stride, weight.shape[-1] // 2 * dilation, dilation


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """torch's convolution; that of a depthwise one has gradients by the kernels where these support
    it.
    """
    learns = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if learns and supported(x) and not torch.is_autocast_enabled("cpu"):
        maker = maker_of(weight, bias, stride, padding, dilation, groups)
        if maker is not None:
            return Derivative.apply(maker, RESULT, x, x, weight)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def maker_of(
    weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> DepthwiseMaker | None:
    """The kernels of a convolution, if it is a depthwise one that they know: square, of a size in
    ``SIZES``, without bias, and padded so that stride 1 keeps height and width.
    """
    stride, dilation = _pair(stride), _pair(dilation)
    outputs, each, *sizes = weight.shape
    alike = all(len(set(pair)) == 1 for pair in (sizes, stride, dilation))
    if bias is not None or not alike or (outputs, each) != (groups, 1) or sizes[0] not in SIZES:
        return None
    maker = DepthwiseMaker(stride[0], dilation[:1], rectify=False)
    own = places(maker, weight)[1]
    same = padding == "same" and stride[0] == 1
    return maker if same or (padding != "same" and _pair(padding) == (own, own)) else None


def depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """A depthwise convolution, padded so that stride 1 keeps height and width."""
    padding = weight.shape[-1] // 2 * dilation
    return conv2d(x, weight, None, stride, padding, dilation, len(weight))


class Depthwise(nn.Conv2d):
    """A convolution by :func:`conv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        places = self.stride, self.padding, self.dilation, self.groups
        return conv2d(x, self.weight, self.bias, *places)


class FastGradients:
    """A context in which torch's depthwise convolutions of a network have gradients by the kernels,
    where these know them. Outside of it, the network has torch's own layers.
    """

    def __init__(self, network: nn.Module):
        self.layers: list[Any] = [
            layer for layer in network.modules() if type(layer) is nn.Conv2d and is_known(layer)
        ]

    def __enter__(self) -> None:
        for layer in self.layers:
            layer.__class__ = Depthwise

    def __exit__(self, *error: object) -> None:
        for layer in self.layers:
            layer.__class__ = nn.Conv2d


def is_known(layer: nn.Conv2d) -> bool:
    places = layer.stride, layer.padding, layer.dilation, layer.groups
    maker = maker_of(layer.weight, layer.bias, *places)
    return maker is not None and layer.padding_mode == "zeros"
