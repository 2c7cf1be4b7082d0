"""One weighted operation that keeps less for its backward pass, where the C++ kernels do not run.

What depthwise convolutions and poolings make takes little time to compute and much memory to keep.
It is made again in the backward pass, to the same bits.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from supernet.ops import Pool
from supernet.ops.fast.convolution import depthwise
from supernet.ops.fast.program import Link, links, separable


def weighted(operation: nn.Module, body: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """``weight * body(x)``, where ``body`` is the ``operation``, or what follows its first ReLU."""
    if isinstance(operation, Pool) and isinstance(operation.norm, nn.Identity):
        return again(lambda x, weight: body(x) * weight, x, weight)
    if not separable(operation):
        return body(x) * weight
    for index, link in enumerate(links(operation)):
        assert link.pointwise is not None and link.norm is not None  # see separable
        x = F.relu(x) if index else x
        x = link.norm(again(convolved(link), x, link.depthwise.weight, link.pointwise.weight))
    return x * weight


def convolved(link: Link) -> Callable[..., Tensor]:
    """Both convolutions of a link, as a function of image and weights. (A module may hold other
    weights when the backward pass calls it.)
    """
    stride, dilation = link.depthwise.stride[0], link.depthwise.dilation[0]
    return lambda x, weight, pointwise: F.conv2d(depthwise(x, weight, stride, dilation), pointwise)


def again(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """``function`` of the tensors, computed again in the backward pass."""
    return checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False)
