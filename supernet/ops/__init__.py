"""Candidate operations, each an ``nn.Module`` that can be used alone, and the table of their names.

``none`` is no module: a slot that chooses it adds nothing and costs nothing.
"""

from torch import nn

from supernet.ops.convolution import DilConv, FactorizedReduce, Rectified, ReLUConvBN, SepConv
from supernet.ops.plain import DropPath, Pool

# name -> (channels, stride, affine, pool_norm) -> module from channels to channels. ``affine``:
# BatchNorms have a learnt scale and shift; ``pool_norm``: a BatchNorm follows a pooling.
OPERATIONS = {
    "max_pool_3x3": lambda c, stride, affine, pool_norm: Pool(c, "max", stride, affine, pool_norm),
    "avg_pool_3x3": lambda c, stride, affine, pool_norm: Pool(c, "avg", stride, affine, pool_norm),
    "skip_connect": lambda c, stride, affine, _: (
        nn.Identity() if stride == 1 else FactorizedReduce(c, c, affine)
    ),
    "sep_conv_3x3": lambda c, stride, affine, _: SepConv(c, 3, stride, affine),
    "sep_conv_5x5": lambda c, stride, affine, _: SepConv(c, 5, stride, affine),
    "dil_conv_3x3": lambda c, stride, affine, _: DilConv(c, 3, stride, affine),
    "dil_conv_5x5": lambda c, stride, affine, _: DilConv(c, 5, stride, affine),
    "nor_conv_1x1": lambda c, stride, affine, _: ReLUConvBN(c, c, 1, stride, affine),
    "nor_conv_3x3": lambda c, stride, affine, _: ReLUConvBN(c, c, 3, stride, affine),
}
# Options without weights of their own (at stride 1): what a collapsed gradient search ends in.
PARAMETER_FREE = frozenset({"none", "skip_connect", "avg_pool_3x3", "max_pool_3x3"})

__all__ = [
    "OPERATIONS",
    "PARAMETER_FREE",
    "DilConv",
    "DropPath",
    "FactorizedReduce",
    "Pool",
    "ReLUConvBN",
    "Rectified",
    "SepConv",
]
