"""The 3×3 max and average poolings of one image as one call, and their gradient.

``pooling.cpp`` reads the image once for both, and computes the moments of the results while these
are in the cache. In backward it computes the sums of products that are the gradients of both
results, an image at a time, and adds up what follows for the image. It stores no indices of maxima:
it finds the maxima again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supernet.ops.fast.native import Numbers, address, is_bfloat16, kernels, numbers
from supernet.ops.fast.rows import SumArguments

POOLINGS = ("max", "avg")


@dataclass(frozen=True)
class PoolingMaker:
    """Makes one or two images of one, by poolings. ``names`` are some of ``POOLINGS``, in that
    order.

    It has the methods of :class:`supernet.ops.fast.depthwise.DepthwiseMaker`; its ``weights`` are
    always empty.
    """

    stride: int
    names: tuple[str, ...]

    @property
    def count(self) -> int:
        """The number of images that are made."""
        return len(self.names)

    @property
    def weights(self) -> int:
        """The number of weight tensors."""
        return 0

    def forward(
        self,
        x: Tensor,
        weights: Sequence[Tensor],
        squares: Tensor | None,
        first: Tensor | None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """The same by the C++ kernels, in ``dtype``; not differentiable.

        ``squares`` and ``first`` [K, C] are filled with the means of the squares of the results,
        and of the results, over their pixels, unless they are ``None``.
        """
        _, batch, height, width, channels = x.shape
        out = [(length - 1) // self.stride + 1 for length in (height, width)]
        result = x.new_empty(self.count, batch, *out, channels, dtype=dtype)
        each = dict(zip(self.names, result, strict=True))
        tensors = *map(each.get, POOLINGS), squares, first, x
        kernels().pool(*map(address, tensors), self._shape(x), is_bfloat16(result))
        return result

    def backward(
        self,
        x: Tensor,
        weights: Sequence[Tensor],
        sums: SumArguments,
        bfloat16: int,
        of_x: bool,
        of_weights: bool,
    ) -> list[Tensor | None]:
        """The gradient of ``x``, by the C++ kernels; arguments as of depthwise convolutions."""
        result = torch.empty_like(x)
        wanted = (name in self.names for name in POOLINGS)
        kernels().pool_backward(
            address(result), address(x), *wanted, *sums, self._shape(x), bfloat16
        )
        return [result]

    def _shape(self, x: Tensor) -> Numbers:
        return numbers((*x.shape[1:], self.stride))
