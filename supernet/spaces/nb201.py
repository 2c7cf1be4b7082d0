"""NAS-Bench-201 (Dong & Yang, ICLR 2020): one cell of 4 nodes and 6 edges, 5 operations an edge,
15,625 architectures.
"""

import re
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from supernet.errors import UserError
from supernet.mixture import Architecture, ChoiceGroup, Mixture
from supernet.ops import ReLUConvBN
from supernet.spaces.cells import (
    NOTHING,
    Cell,
    CellSpace,
    Geometry,
    MixedCell,
    choices_of_edges,
    images_of,
)
from supernet.spaces.space import Form, Gene
from supernet.task import Task

EDGES = [
    (0, 1),
    (0, 2),
    (1, 2),
    (0, 3),
    (1, 3),
    (2, 3),
]  # (source, target), in the order of the architecture string


class Reduction(nn.Module):
    """The residual block of stride 2 between two stages (section 2.1): two 3×3 convolutions,
    shortcut of pooling and 1×1.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = ReLUConvBN(inputs, outputs, 3, stride=2)
        self.second = ReLUConvBN(outputs, outputs, 3)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
            nn.Conv2d(inputs, outputs, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.second(self.first(x))


class NB201Network(nn.Module):
    """Stem, three stages of ``cells`` cells with a reduction between them, head; ``edges`` lists
    (source, target, operation).
    """

    def __init__(
        self, edges, channels: int, cells: int, classes: int, in_channels: int, affine: bool
    ):
        super().__init__()
        self.settings = dict(
            edges=edges,
            channels=channels,
            cells=cells,
            classes=classes,
            in_channels=in_channels,
            affine=affine,
        )
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        blocks = [self.cell(edges, channels, affine) for _ in range(cells)]
        for width in (2 * channels, 4 * channels):
            blocks.append(Reduction(width // 2, width))
            blocks.extend(self.cell(edges, width, affine) for _ in range(cells))
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Sequential(
            nn.BatchNorm2d(4 * channels),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * channels, classes),
        )

    def cell(self, edges, channels: int, affine: bool) -> nn.Module:
        return Cell(edges, 4, 1, [1, 1, 1], channels, affine, pool_norm=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class NB201Supernet(NB201Network):
    """The same network with every option on every edge: ``edges`` is the group that all cells read."""

    def __init__(self, *arguments, partial_channels: int, **settings):
        self.partial_channels = partial_channels
        super().__init__(*arguments, **settings)

    def cell(self, group: ChoiceGroup, channels: int, affine: bool) -> nn.Module:
        return MixedCell(
            EDGES, 4, 1, [1, 1, 1], channels, affine, False, group, self.partial_channels
        )

    def forward(self, x: Tensor, mixture: Mixture) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, mixture=mixture) if isinstance(block, MixedCell) else block(x)
        return self.head(x)


@dataclass
class NB201(CellSpace):
    """Geometry: ``channels`` of the first stage and ``cells`` per stage; the paper's is 16 and 5 in
    both forms.

    As in the benchmark's own supernets, the candidates' BatchNorms have no scale and shift during
    search.
    """

    name = "nb201"
    groups = (
        choices_of_edges(
            "edges", 6, ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
        ),
    )
    wiring: ClassVar = EDGES
    paper: ClassVar = {"search": Geometry(16, 5), "evaluation": Geometry(16, 5)}

    def supernet(self, task: Task, form: Form = "search") -> nn.Module:
        geometry, (edges,) = getattr(self, form), self.groups
        network = NB201Supernet(
            edges,
            geometry.channels,
            geometry.cells,
            *images_of(task),
            affine=form == "evaluation",
            partial_channels=geometry.partial_channels,
        )
        network.task = task
        return network

    def standalone(
        self, architecture: Architecture, task: Task, form: Form = "evaluation"
    ) -> nn.Module:
        geometry = self.whole(form)
        edges = [
            (source, target, option)
            for (source, target), option in zip(
                EDGES, self.validate(architecture)["edges"], strict=True
            )
            if option != NOTHING
        ]
        return NB201Network(
            edges,
            geometry.channels,
            geometry.cells,
            *images_of(task),
            affine=form == "evaluation",
        )

    @property
    def genes(self) -> tuple[Gene, ...]:
        return tuple(Gene(f"{source}→{target}", self.groups[0].options) for source, target in EDGES)

    def sums(self, group: str) -> list[list[int]]:
        return [
            [slot for slot, (_, target) in enumerate(EDGES) if target == node]
            for node in range(1, 4)
        ]

    def encode(self, architecture: Architecture) -> str:
        """``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``: for each node its in-edges as operation~source."""
        text = [[], [], []]
        for (source, target), option in zip(EDGES, architecture["edges"], strict=True):
            text[target - 1].append(f"{option}~{source}")
        return "+".join(f"|{'|'.join(node)}|" for node in text)

    def decode(self, text: str) -> Architecture:
        found = [re.findall(r"\|?([^|~]+)~(\d+)", node) for node in text.strip().split("+")]
        sources = [[int(source) for _, source in node] for node in found]
        if sources != [[0], [0, 1], [0, 1, 2]]:
            raise UserError(
                f"not a NAS-Bench-201 cell: {text[:120]!r}; expected "
                "|op~0|+|op~0|op~1|+|op~0|op~1|op~2| "
                f"with op one of {', '.join(self.groups[0].options)}"
            )
        return self.validate(
            Architecture.of(self.name, edges=[option for node in found for option, _ in node])
        )

    def graph(self, architecture: Architecture) -> dict[str, list[tuple[str, str, str]]]:
        edges = zip(EDGES, architecture["edges"], strict=True)
        return {
            "cell": [
                (str(source), str(target), option)
                for (source, target), option in edges
                if option != NOTHING
            ]
        }
