"""Sums of weighted, normalised 1×1 convolutions of many images, as a mixed edge adds them up in
training.

As the papers write it, a mixed edge runs each candidate operation by itself, normalises its result,
multiplies that by the weight of the operation in the mixture, and adds all up. Most of the time of
such a step goes into moving memory. But every operation ends in

    norm(pointwise(z)),    z = spatial(x)

where neither the 1×1 convolution (a matrix W) nor BatchNorm mixes pixels. Take the n pixels of z as
rows. BatchNorm needs the mean and the variance of z W', and both follow from the mean m of z and
its second moments G = z'z / n:

    mean = W m,    variance = diag(W G W') - mean^2,
    norm(z W') = (z W' - mean) / sqrt(variance + eps)

So weight, BatchNorm and convolution together are one small matrix and a shift
(:mod:`supernet.ops.fast.folding`), and an edge adds to its node

    sum over options of z M' + shift,    M = weight * W / sqrt(variance + eps)

Only the z are stored: not the results of convolutions, BatchNorms or multiplications. Where an
operation has no 1×1 convolution (a pooling, the identity), W is the unit matrix, and of M and G
only the diagonal is needed. A z is given, or made here: all depthwise convolutions of an image are
one call, both poolings are another, and each call also computes the moments of what it makes.

Backward, let Q be the gradient of the sum. The gradient of M is Q'z, and the gradient of the shift
is the sum of the rows of Q. The small algebra turns these into the gradients of W, of the weights
of the mixture, of m (dm) and of G (dG). The gradient of z is Q M + (z (dG + dG') + dm) / n, a sum
of products again. What made z computes that sum on the way to its own gradient.

:mod:`supernet.ops.fast.compiled` computes all that with the C++ kernels. Where a gradient is to be
differentiated again, it uses the same sums in torch's operations, :mod:`supernet.ops.fast.formula`.

Under autocast to bfloat16, and on a processor with tiles for it (``half.h``), the z, the gradients
Q that they are multiplied with, and what the first of two convolutions gives to the second are
bfloat16. The moments, which are those of the rounded z, all small matrices and the sums stay
float32. On other processors everything is float32.

Most z take little time to make and much memory to keep. With ``recompute`` none of these is kept:
backward makes them again from their sources, which are kept in any case. The same kernels read the
same images, so the bits are the same. Moments and running statistics are computed in forward alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from supernet.ops.fast.compiled import Combined
from supernet.ops.fast.wiring import Wiring


class Combination:
    """The sum, for each target, of the terms that are added to it; see :class:`Wiring`."""

    def __init__(self, wiring: Wiring):
        self.wiring = wiring

    def __call__(
        self,
        sources: Sequence[Sequence[Tensor]],
        weights: Tensor | None = None,
        starts: Sequence[Tensor | None] = (),
        dtype: torch.dtype | None = None,
    ) -> list[Tensor]:
        """For each target, its start plus the sum of its terms, each normalised and weighted.

        Args:
            sources: of each source its image [K, B, H, W, C], and the weights of its maker.
            weights: those of the mixture; ``None`` means 1.
            starts: one for each target [B, C, H, W], or ``None``; may be empty.
            dtype: of the images that are combined, if not that of ``sources``.

        Returns:
            [B, H, W, C] for each target, or one tensor [targets, B, H, W, C] if ``stacked``.
        """
        wiring = self.wiring
        small = [weights, *(conv.weight for conv in wiring.pointwise)]
        small += [norm.weight for norm in wiring.affine] + [norm.bias for norm in wiring.affine]
        _, batch, height, width, channels = sources[0][0].shape
        first = wiring.makers[0]
        if first is not None:
            height, width = ((length - 1) // first.stride + 1 for length in (height, width))
        flat = [
            (_rows_of(x),) if maker is None else (x, *kernels)
            for maker, (x, *kernels) in zip(wiring.makers, sources, strict=True)
        ]
        begun = [
            None if start is None else start.permute(0, 2, 3, 1).reshape(-1, channels).contiguous()
            for start in starts or [None] * wiring.targets
        ]
        tensors = *small, *(tensor for some in flat for tensor in some), *begun
        sums = Combined.apply(wiring, dtype, *tensors)
        shape = ((-1,) if wiring.stacked else ()) + (batch, height, width, channels)
        return [total.view(shape) for total in sums]


def _rows_of(images: Tensor) -> Tensor:
    """Images [K, B, H, W, C] as [K, pixels, C]."""
    return images.reshape(len(images), -1, images.shape[-1]).contiguous()
