"""NAS-Bench-201 (Dong & Yang, ICLR 2020): one cell of 4 nodes and 6 edges, 5 operations an edge,
15,625 architectures.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from torch import Tensor, nn

from supernet.errors import UserError
from supernet.mixture import Architecture, ChoiceGroup, Mixture
from supernet.ops import ReLUConvBN
from supernet.spaces.cells import (
    NOTHING,
    SKIP,
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

POOLING = "avg_pool_3x3"


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


Term = tuple[int, int | None]  # so many poolings, of the output of that edge (None: of the input)
Function = tuple[tuple[Term, ...], tuple[tuple[str, tuple[Term, ...]], ...]]


def function_of(options: Sequence[str]) -> Function:
    """What a cell computes, in a form that two cells have in common exactly if they compute the
    same function of the input and of the weights of their convolutions (with the convolutions of
    one put in the places of those of the other).

    The value of a node is a sum of terms, each the input of the cell or the output of a
    convolution, pooled so many times. A skip hands all terms on; a pooling pools each of them, as
    an average of sums is the sum of averages; a convolution makes one new term of them. What the
    output does not depend on is left out, and the order of terms means nothing. A convolution of
    nothing is no zero: the BatchNorm behind it adds a number that it learns.

    Returns:
        The terms of the output, and of each convolution its kind and the terms that it reads.
    """
    nodes: list[tuple[Term, ...]] = [((0, None),)]
    read: dict[int, tuple[str, tuple[Term, ...]]] = {}  # edge of a convolution -> what it reads
    for node in range(1, 4):
        terms: list[Term] = []
        for edge, ((source, target), option) in enumerate(zip(EDGES, options, strict=True)):
            if target != node or option == NOTHING:
                continue
            if option == SKIP:
                terms += nodes[source]
            elif option == POOLING:
                terms += [(poolings + 1, origin) for poolings, origin in nodes[source]]
            else:
                read[edge] = option, nodes[source]
                terms.append((0, edge))
        nodes.append(tuple(terms))
    used: list[int] = []
    waiting = [origin for _, origin in nodes[3]]
    while waiting:
        if (edge := waiting.pop()) is not None and edge not in used:
            used.append(edge)
            waiting += [origin for _, origin in read[edge][1]]

    def named(order: tuple[int, ...]) -> Function:
        """The same with convolutions numbered as they stand in ``order``."""

        def sum_of(terms: tuple[Term, ...]) -> tuple[Term, ...]:
            numbered = [(n, -1 if edge is None else order.index(edge)) for n, edge in terms]
            return tuple(sorted(numbered))

        return sum_of(nodes[3]), tuple((read[edge][0], sum_of(read[edge][1])) for edge in order)

    return min(named(order) for order in itertools.permutations(used))


def benchmark_name(options: Sequence[str]) -> str:
    """The string by which the benchmark's own code tells cells apart: 6,466 of the 15,625 differ
    (Dong & Yang 2020; ``to_unique_str`` with ``consider_zero=True``).

    A node is the sorted list of its in-edges, each as the name of its source and its operation; a
    skip is the name of its source, "none" or an edge from a node without name a ``#``. It is an
    approximation of what a cell computes, in both directions. These ``#`` stay in the list, and the
    terms of a node that a skip hands on stay together, so that cells which compute the same have
    several names. And a node that is read twice stands there twice, as if it were two of the same
    kind: cells of one name can differ in their number of convolutions.
    """
    names = ["0"]
    for node in range(1, 4):
        terms = []
        for (source, target), option in zip(EDGES, options, strict=True):
            if target == node:
                if option == NOTHING or names[source] == "#":
                    terms.append("#")
                else:
                    terms.append(names[source] if option == SKIP else f"({names[source]})@{option}")
        names.append("+".join(sorted(terms)))
    return names[3]


@cache
def representatives() -> dict[Function, tuple[str, ...]]:
    """The cell that stands for each function: the one of the fewest convolutions, and of these of
    the fewest other operations; of several the first in the order of the options.

    It takes about a second, once.
    """
    (group,) = NB201.groups

    def order(options: tuple[str, ...]) -> tuple[int, int]:
        convolutions = sum(option not in group.parameter_free for option in options)
        return convolutions, sum(option != NOTHING for option in options)

    found: dict[Function, tuple[str, ...]] = {}
    for options in sorted(itertools.product(group.options, repeat=len(EDGES)), key=order):
        found.setdefault(function_of(options), options)
    return found


@dataclass
class NB201(CellSpace):
    """Geometry: ``channels`` of the first stage and ``cells`` per stage; the paper's is 16 and 5 in
    both forms.

    As in the benchmark's own supernets, the candidates' BatchNorms have no scale and shift during
    search.
    """

    name = "nb201"
    groups = (
        choices_of_edges("edges", 6, (NOTHING, SKIP, "nor_conv_1x1", "nor_conv_3x3", POOLING)),
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

    def canonical(self, architecture: Architecture) -> Architecture:
        """The cheapest cell that computes the same function (:func:`function_of`): 5,653 of the
        15,625 differ. It has no more convolutions of either kind than the given one.

        These are fewer than the 6,466 of the benchmark's own rule (:func:`benchmark_name`), which
        is not used here because it gives one name to cells that compute different things, at
        different costs. With the supernet's weights two cells of one function do not give the same
        numbers: they run it on edges that have other weights.
        """
        options = self.validate(architecture)["edges"]
        return Architecture.of(self.name, edges=representatives()[function_of(options)])

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
