"""Elastic layers: layers of torch whose sizes can be choices.

They have the names and the arguments of torch's layers. Where a whole number stands there, a
:class:`~supernet.spaces.declared.choices.Choose` or a size that is computed from one can stand
here. On a path, a layer costs what the plain layer of that size costs. In a mixture of sizes, it is
computed once, with superposed weights.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from supernet.spaces.declared.attention import MultiheadAttention
from supernet.spaces.declared.choices import Size, cut, padded
from supernet.spaces.declared.convolutions import Conv1d, Conv2d, ConvTranspose2d, share_of
from supernet.spaces.declared.layer import META, Elastic, Kept, Parts, filled, scaled
from supernet.spaces.declared.norms import BatchNorm1d, BatchNorm2d, GroupNorm, LayerNorm

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "Embedding",
    "GroupNorm",
    "Identity",
    "LayerNorm",
    "Linear",
    "MultiheadAttention",
]


class Linear(Elastic, nn.Linear):
    """A linear layer over the last axis. See :class:`torch.nn.Linear` for the arguments.

    Both widths can be choices. The layer reads as many channels as its input has.
    """

    def __init__(self, in_features: int | Size, out_features: int | Size, bias: bool = True):
        super().__init__(*self.largest(in_features=in_features, out_features=out_features), bias)  # type: ignore[call-arg]
        self.declare(in_features=in_features, out_features=out_features)

    def parts(self, read: int) -> Parts:
        outputs, shares = cut(self.sizes["out_features"])
        inputs = share_of(self.sizes["in_features"], read)
        return {
            "weight": scaled(self.weight[:outputs, :read], shares, inputs),
            "bias": None if self.bias is None else scaled(self.bias[:outputs], shares),
        }

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, **self.reading(x.shape[-1]))

    def plain(self, read: int, kept: Kept) -> nn.Module:
        parts = self.parts(read)
        layer = nn.Linear(read, len(parts["weight"]), self.bias is not None, device=META)
        return filled(layer, kept, self, parts)


class Identity(Elastic):
    """Returns its input, but as many channels (axis 1) as ``width`` says. In a mixture this is the
    superposition of the first channels of each active width.
    """

    def __init__(self, width: int | Size):
        super().__init__()
        self.declare(width=width)

    def parts(self, read: int) -> Parts:
        width, share = cut(self.sizes["width"])
        return {"width": width, "share": share}

    def forward(self, x: Tensor) -> Tensor:
        parts = self.reading(x.shape[1])
        width, share = parts["width"], parts["share"]
        x = padded(x[:, :width], (len(x), width, *x.shape[2:]))
        return x if share is None else x * share.reshape(-1, *[1] * (x.dim() - 2))

    def plain(self, read: int, kept: Kept) -> nn.Module:
        return nn.Identity()


class Embedding(Elastic, nn.Embedding):
    """A table of vectors. See :class:`torch.nn.Embedding`. ``embedding_dim`` can be a choice."""

    def __init__(self, num_embeddings: int, embedding_dim: int | Size, padding_idx: Any = None):
        super().__init__(num_embeddings, *self.largest(embedding_dim=embedding_dim), padding_idx)  # type: ignore[call-arg]
        self.declare(embedding_dim=embedding_dim)

    def parts(self, read: int) -> Parts:
        width, shares = cut(self.sizes["embedding_dim"])
        return {"weight": scaled(self.weight[:, :width], None, shares)}

    def forward(self, x: Tensor) -> Tensor:
        return F.embedding(x, **self.reading(self.num_embeddings), padding_idx=self.padding_idx)

    def plain(self, read: int, kept: Kept) -> nn.Module:
        parts = self.parts(read)
        layer = nn.Embedding(
            self.num_embeddings, parts["weight"].shape[1], self.padding_idx, device=META
        )
        return filled(layer, kept, self, parts)
