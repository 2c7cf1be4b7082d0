"""A decoder of text (Radford et al., 2019, GPT-2) whose embedding, depth, number of heads and MLP
ratio are chosen. The decisions are those of the decoder of HAT (Wang et al., ACL 2020), which has
the same sizes, but also attends to an encoder.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from supernet.bounds import Length, Places, Ratio
from supernet.errors import UserError
from supernet.spaces.declared import Choose, Depth, elastic
from supernet.spaces.declared.space import Declared
from supernet.spaces.transformer import Block
from supernet.task import NextToken, Task

Width = Length
Few = Places


class Network(nn.Module):
    """Tokens [B, length] -> for each place, the logits of the next token [B, tokens, length]. The
    length is at most ``context``. A token attends to those before it.
    """

    def __init__(self, space: "GPT", tokens: int, context: int):
        super().__init__()
        embedding = Choose("embedding", space.embeddings)
        self.tokens = elastic.Embedding(tokens, embedding)
        self.positions = elastic.Embedding(context, embedding)
        self.blocks = Depth(
            Choose("depth", space.depths),
            [
                Block(
                    embedding,
                    Choose(f"ratio{place}", space.ratios),
                    elastic.MultiheadAttention(
                        embedding,
                        Choose(f"heads{place}", space.heads),
                        space.head_width,
                        is_causal=True,
                    ),
                )
                for place in range(max(space.depths))
            ],
        )
        self.norm = elastic.LayerNorm(embedding)
        self.head = elastic.Linear(embedding, tokens, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1], device=x.device)
        x = self.tokens(x) + self.positions(places)
        return self.head(self.norm(self.blocks(x))).transpose(1, 2)


@dataclass
class GPT(Declared):
    """An elastic decoder of text. A network has one embedding and one depth; each block has its own
    number of heads, each of ``head_width`` channels, and its own ratio of the width of the MLP to
    the embedding.

    Departures from GPT-2: no layer is dropped at random during training, the last layer has weights
    of its own, and all weights begin with the same standard deviation.
    """

    embeddings: list[Width] = field(default_factory=lambda: [256, 320, 384])
    heads: list[Few] = field(default_factory=lambda: [4, 5, 6])
    ratios: list[Ratio] = field(default_factory=lambda: [2.0, 3.0, 4.0])
    depths: list[Few] = field(default_factory=lambda: [4, 5, 6])
    head_width: Width = 64

    name = "gpt"
    any_task = NextToken((32,), 10)

    def build(self, task: Task) -> nn.Module:
        if task.dtype.is_floating_point or len(task.input_shape) != 1:
            raise UserError(
                f"space={self.name}: reads tokens, not inputs of shape {task.input_shape} and type "
                f"{task.dtype}; choose data=text"
            )
        return Network(self, task.outputs, *task.input_shape)
