"""The spaces of AutoFormer (Chen et al., ICCV 2021, table 1): a vision transformer whose embedding,
depth, number of heads and MLP ratio are chosen, with relative positions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.bounds import Length, Places, Ratio
from supernet.errors import UserError, unknown
from supernet.spaces.declared import Choose, Depth, elastic
from supernet.spaces.declared.choices import Size
from supernet.spaces.declared.space import Declared
from supernet.spaces.space import Form, images_of
from supernet.spaces.space import Size as Part
from supernet.spaces.transformer import Block
from supernet.task import Task

FARTHEST = 14  # patches that are farther apart are treated as if they were this far apart
SCALES = {  # the embeddings, heads, MLP ratios and depths of the three spaces of the paper
    "tiny": ([192, 216, 240], [3, 4], [3.5, 4.0], [12, 13, 14]),
    "small": ([320, 384, 448], [5, 6, 7], [3.0, 3.5, 4.0], [12, 13, 14]),
    "base": ([528, 576, 624], [8, 9, 10], [3.0, 3.5, 4.0], [14, 15, 16]),
}


class RelativePositions(nn.Module):
    """A learnt vector for each pair of tokens, [tokens, tokens, width]. The class token is the
    first one, and has the same vector with every other token. The vector of two patches depends on
    how far one is below the other, and how far to its right (Shaw et al., NAACL 2018, in two
    dimensions).
    """

    def __init__(self, grid: tuple[int, int], width: int):
        super().__init__()
        self.rows, self.columns = grid
        self.vertical = nn.Embedding(2 * FARTHEST + 2, width)
        self.horizontal = nn.Embedding(2 * FARTHEST + 2, width)

    def forward(self, like: Tensor) -> Tensor:
        """The vectors, on the device of ``like``."""
        patch = torch.arange(self.rows * self.columns, device=like.device)
        found = []
        for table, place in (
            (self.vertical, patch // self.columns),
            (self.horizontal, patch % self.columns),
        ):
            apart = (place[None, :] - place[:, None]).clamp(-FARTHEST, FARTHEST)
            found.append(table(F.pad(apart + FARTHEST + 1, (1, 0, 1, 0))))
        return found[0] + found[1]


class Attention(nn.Module):
    """Self-attention of ``heads`` heads of a fixed width, [B, tokens, embedding] -> the same.
    Vectors of the relative position are added to the keys and to the values.
    """

    def __init__(self, embedding: Size, heads: Size, width: int, grid: tuple[int, int]):
        super().__init__()
        self.width = width
        self.heads = heads  # the cost of this module's own products depends on it
        self.query = elastic.Linear(embedding, width * heads)
        self.key = elastic.Linear(embedding, width * heads)
        self.value = elastic.Linear(embedding, width * heads)
        self.keys, self.values = RelativePositions(grid, width), RelativePositions(grid, width)
        self.output = elastic.Linear(width * heads, embedding)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(-1, (-1, self.width)).transpose(1, 2)  # [B, heads, tokens, width]
            for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-2, -1)
        scores = scores + torch.einsum("bhnd,nmd->bhnm", query, self.keys(x))
        weights = (scores * self.width**-0.5).softmax(dim=-1)
        out = weights @ value + torch.einsum("bhnm,nmd->bhnd", weights, self.values(x))
        return self.output(out.transpose(1, 2).flatten(-2))


class Network(nn.Module):
    """A vision transformer. The classifier reads the mean of the patches."""

    def __init__(self, space: "ViT", task: Task):
        super().__init__()
        classes, channels = images_of(task)
        grid = (
            max(1, task.input_shape[1] // space.patch),
            max(1, task.input_shape[2] // space.patch),
        )
        embeddings, heads, ratios, depths = space.lists
        embedding = Choose("embedding", embeddings)
        self.patches = elastic.Conv2d(channels, embedding, space.patch, space.patch)
        self.token = elastic.Embedding(1, embedding)
        self.positions = elastic.Embedding(1 + grid[0] * grid[1], embedding)
        self.blocks = Depth(
            Choose("depth", depths),
            [
                Block(
                    embedding,
                    Choose(f"ratio{place}", ratios),
                    Attention(embedding, Choose(f"heads{place}", heads), space.head_width, grid),
                )
                for place in range(max(depths))
            ],
        )
        self.norm = elastic.LayerNorm(embedding)
        self.head = elastic.Linear(embedding, classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if isinstance(module, nn.Linear):
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        numbers = torch.arange(1 + x.shape[1], device=x.device)
        token = self.token(numbers[:1]).expand(x.shape[0], -1, -1)
        x = torch.cat((token, x), 1) + self.positions(numbers)
        return self.head(self.norm(self.blocks(x))[:, 1:].mean(1))


@dataclass
class ViT(Declared):
    """The spaces of AutoFormer. ``scale`` is tiny, small or base. ``embeddings``, ``heads``,
    ``ratios`` and ``depths`` are the values to choose from, if they are not those of the scale.

    A network has one embedding; each block has its own number of heads and its own ratio of the
    width of the MLP to the embedding. A head has ``head_width`` channels. ``patch`` is the side of
    a patch in pixels.

    Departure: no layer is dropped at random during training.
    """

    scale: str = "tiny"
    embeddings: list[Length] | None = None
    heads: list[Places] | None = None
    ratios: list[Ratio] | None = None
    depths: list[Places] | None = None
    head_width: Places = 64
    patch: Places = 16

    name = "vit"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale not in SCALES:
            raise UserError(f"space.scale: {unknown(self.scale, list(SCALES))}")

    @property
    def lists(self) -> tuple[list[int], list[int], list[float], list[int]]:
        """The embeddings, heads, ratios and depths to choose from."""
        embeddings, heads, ratios, depths = SCALES[self.scale]
        return (
            self.embeddings or embeddings,
            self.heads or heads,
            self.ratios or ratios,
            self.depths or depths,
        )

    def build(self, task: Task) -> nn.Module:
        return Network(self, task)

    def faults(self, task: Task, batch: int) -> Iterator[str]:
        if any(side % self.patch for side in task.input_shape[1:]):
            size = "×".join(map(str, task.input_shape[1:]))
            yield f"space.patch={self.patch} does not divide images of {size} pixels"

    def sizes(self, form: Form) -> list[Part]:
        embeddings, _, _, depths = SCALES[self.scale]
        return [
            Part("embedding", "space.embeddings", max(self.lists[0]), max(embeddings)),
            Part("blocks", "space.depths", max(self.lists[3]), max(depths)),
        ]
