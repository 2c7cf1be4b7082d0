"""The candidate operations, each an ``nn.Module`` that can be used alone, and a table of their
names.

``none`` is not in the table: a slot that chooses it adds nothing and costs nothing. What makes the
operations fast when a mixture runs many of them at once is in :mod:`supernet.ops.fast`.
"""

from torch import nn

from supernet.ops.convolution import DilConv, FactorizedReduce, Rectified, ReLUConvBN, SepConv
from supernet.ops.drop_path import DropPath
from supernet.ops.pool import Pool

# Name -> function of (channels, stride, affine, pool_norm) that makes a module, which reads and
# gives as many channels. ``affine``: BatchNorms have a learnt scale and shift. ``pool_norm``: a
# BatchNorm follows a pooling.
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
# The options without weights of their own (at stride 1). A gradient search that collapses ends in
# these.
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
