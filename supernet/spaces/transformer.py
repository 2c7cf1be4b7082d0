"""The block of the spaces of transformers."""

from torch import Tensor, nn

from supernet.spaces.declared import elastic
from supernet.spaces.declared.choices import Size


class Block(nn.Module):
    """A transformer's block that normalises first: LayerNorm and ``attention``, then LayerNorm and
    an MLP of ``ratio * embedding`` hidden features, each added to its input [B, length, embedding].
    """

    def __init__(self, embedding: Size, ratio: Size, attention: nn.Module):
        super().__init__()
        self.attention = nn.Sequential(elastic.LayerNorm(embedding), attention)
        self.mlp = nn.Sequential(
            elastic.LayerNorm(embedding),
            elastic.Linear(embedding, ratio * embedding),
            nn.GELU(),
            elastic.Linear(ratio * embedding, embedding),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.mlp(x)
