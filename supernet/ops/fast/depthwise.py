"""Many depthwise convolutions of images after ReLU as one call, and their gradients.

On a CPU, the gradients of torch's own 5×5 or dilated depthwise convolutions take five to fifteen
times as long as the convolution itself, and each of many convolutions of one image reads that image
again. ``depthwise.cpp`` computes all of them while the image is in the cache. It also computes the
ReLU before them, the moments of the results, and, in backward, the sums of products that are the
gradients of the results.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from supernet.ops.fast.native import Numbers, address, addresses, is_bfloat16, kernels, numbers
from supernet.ops.fast.rows import SumArguments

SIZES = 3, 5, 7  # of the kernels that ``depthwise.cpp`` has loops for


@dataclass(frozen=True)
class DepthwiseMaker:
    """Makes several images of one, or of one each: ReLU if ``rectify``, then a depthwise
    convolution.

    There is one convolution for each of the ``dilations``. Its weights are [C, 1, k, k] with k odd,
    and it is padded by ``k // 2 * dilation``. Images are [1 or K, B, H, W, C]: one set that all K
    convolutions read, or one set each. They may be bfloat16, and then their gradient is.
    """

    stride: int
    dilations: tuple[int, ...]
    rectify: bool = True

    @property
    def count(self) -> int:
        """The number of images that are made."""
        return len(self.dilations)

    @property
    def weights(self) -> int:
        """The number of weight tensors."""
        return len(self.dilations)

    def forward(
        self,
        x: Tensor,
        weights: Sequence[Tensor],
        second: Tensor | None,
        first: Tensor | None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """The same by the C++ kernels, in ``dtype``; not differentiable.

        ``second`` [K, C, C] and ``first`` [K, C] (or as many numbers in a row) are filled with the
        second moments and the means of the results over their pixels, unless they are ``None``.
        """
        _, batch, height, width, channels = x.shape
        out = [(length - 1) // self.stride + 1 for length in (height, width)]
        result = x.new_empty(len(weights), batch, *out, channels, dtype=dtype)
        weights = [weight.contiguous() for weight in weights]
        kernels().forward(
            *map(address, (result, second, first, x)),
            addresses(weights),
            *self._numbers(x, weights),
            is_bfloat16(result),
        )
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
        """The gradients of ``x`` and of the weights, by the C++ kernels; ``None`` where not wanted.

        The gradients of the results are not given but computed on the way, as ``sums``: the address
        of their shifts and what :meth:`supernet.ops.fast.rows.Terms.at` gives. ``bfloat16``:
        whether the rows of these terms are.
        """
        gradient = torch.empty_like(x) if of_x else None
        sizes = [weight.numel() for weight in weights]
        flat = weights[0].new_empty(sum(sizes)) if of_weights else None
        weights = [weight.contiguous() for weight in weights]
        kernels().backward(
            *map(address, (gradient, flat, x)),
            addresses(weights),
            *sums,
            *self._numbers(x, weights),
            bfloat16,
        )
        if flat is None:
            return [gradient, *[None] * len(weights)]
        pairs = zip(flat.split(sizes), weights, strict=True)
        return [gradient, *(piece.view(weight.shape) for piece, weight in pairs)]

    def _numbers(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Numbers, ...]:
        """The shape, the sizes, the dilations, and where the weights begin, as the kernels read
        them.
        """
        shared, *sizes = x.shape
        flags = int(x.dtype == torch.bfloat16), int(self.rectify)
        shape = numbers((len(weights), int(shared == 1), *sizes, self.stride, *flags))
        starts = accumulate((weight.numel() for weight in weights), initial=0)
        lengths = [weight.shape[-1] for weight in weights]
        return shape, numbers(lengths), numbers(self.dilations), numbers([*starts])
