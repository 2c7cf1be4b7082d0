"""NAS-Bench-201 (Dong & Yang, ICLR 2020). Its cell has 4 nodes and 6 edges. Each edge has 5
operations, so that there are 15,625 architectures.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

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
)
from supernet.spaces.space import Form, Gene, images_of
from supernet.task import Task

# (source, target), in the order of the architecture string
EDGES = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]

POOLING = "avg_pool_3x3"


class Reduction(nn.Module):
    """The residual block of stride 2 between two stages (section 2.1): two 3×3 convolutions, and a
    shortcut of a pooling and a 1×1 convolution.
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
    """A network of NAS-Bench-201: a stem, three stages of ``cells`` cells with a reduction between
    them, and a head. ``edges`` lists (source, target, operation).
    """

    def __init__(
        self,
        edges: list[tuple[int, int, str]],
        channels: int,
        cells: int,
        classes: int,
        in_channels: int,
        affine: bool,
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

    def cell(self, edges: list[tuple[int, int, str]], channels: int, affine: bool) -> nn.Module:
        return Cell(edges, 4, 1, [1, 1, 1], channels, affine, pool_norm=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class NB201Supernet(NB201Network):
    """The same network with every option on every edge. Its ``edges`` are the group that all cells
    read.
    """

    task: Task  # the task that it was built for

    def __init__(self, *arguments: Any, partial_channels: int, **settings: Any):
        self.partial_channels = partial_channels
        super().__init__(*arguments, **settings)

    def cell(  # type: ignore[override]
        self, group: ChoiceGroup, channels: int, affine: bool
    ) -> nn.Module:
        return MixedCell(
            EDGES, 4, 1, [1, 1, 1], channels, affine, False, group, self.partial_channels
        )

    def forward(self, x: Tensor, mixture: Mixture) -> Tensor:  # type: ignore[override]
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, mixture=mixture) if isinstance(block, MixedCell) else block(x)
        return self.head(x)


# how many poolings, and the edge whose output they read (None: the input of the cell)
Term = tuple[int, int | None]
Function = tuple[tuple[Term, ...], tuple[tuple[str, tuple[Term, ...]], ...]]


def function_of(options: Sequence[str]) -> Function:
    """The function that a cell computes, in a normal form.

    Two cells have the same form exactly if they compute the same function of the input and of the
    weights of their convolutions. (The convolutions of one cell are put in the places of those of
    the other.)

    The value of a node is a sum of terms. A term is the input of the cell or the output of a
    convolution, after a number of poolings. A skip passes all terms on. A pooling pools each term,
    because the average of a sum is the sum of the averages. A convolution makes one new term of all
    its terms. Parts that the output does not depend on are left out, and the order of the terms
    does not matter. A convolution of zeros does not return zeros, because the BatchNorm behind it
    adds a number that it learns.

    Returns:
        The terms of the output, and for each convolution its kind and the terms that it reads.
    """
    nodes: list[tuple[Term, ...]] = [((0, None),)]
    # edge of a convolution -> its kind, and the terms that it reads
    read: dict[int, tuple[str, tuple[Term, ...]]] = {}
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
        origin = waiting.pop()
        if origin is not None and origin not in used:
            used.append(origin)
            waiting += [before for _, before in read[origin][1]]

    def named(order: tuple[int, ...]) -> Function:
        """The same function, with the convolutions numbered by their position in ``order``."""

        def sum_of(terms: tuple[Term, ...]) -> tuple[Term, ...]:
            numbered = [(n, -1 if edge is None else order.index(edge)) for n, edge in terms]
            return tuple(sorted(numbered))

        return sum_of(nodes[3]), tuple((read[edge][0], sum_of(read[edge][1])) for edge in order)

    return min(named(order) for order in itertools.permutations(used))


def benchmark_name(options: Sequence[str]) -> str:
    """The string by which the benchmark's own code distinguishes cells: 6,466 of the 15,625 differ
    (Dong & Yang 2020; ``to_unique_str`` with ``consider_zero=True``).

    The name of a node is the sorted list of its in-edges. An in-edge is written as the name of its
    source and its operation. A skip is written as the name of its source. "none", or an edge from a
    node without a name, is written as ``#``.

    This describes what a cell computes only approximately, in both directions. First, each ``#``
    stays in the list, and the terms that a skip passes on stay together. Therefore cells that
    compute the same function can have several names. Second, a node that is read twice is written
    twice, as if there were two nodes of the same kind. Therefore cells with the same name can have
    different numbers of convolutions.
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
    """The cell that stands for each function. It is the cell with the fewest convolutions. If there
    are several, it is the one with the fewest other operations, and then the first in the order of
    the options.

    The first call takes about a second.
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
    """The space of NAS-Bench-201. In its geometry, ``channels`` are the channels of the first
    stage, and ``cells`` is the number of cells per stage. The paper has 16 and 5 in both forms.

    As in the benchmark's own supernets, the BatchNorms of the candidates have no scale and shift
    during search.
    """

    name = "nb201"
    groups = (
        choices_of_edges("edges", 6, (NOTHING, SKIP, "nor_conv_1x1", "nor_conv_3x3", POOLING)),
    )
    wiring: ClassVar = EDGES
    # the residual block of He et al. (CVPR 2016), to which the benchmark compares
    hand_made: ClassVar = (
        "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"
    )
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
        """The cheapest cell that computes the same function (:func:`function_of`). It never has
        more convolutions of either kind than the given cell. The 15,625 cells compute 5,653
        different functions.

        That is fewer than the 6,466 of the benchmark's own rule (:func:`benchmark_name`). The
        benchmark's rule is not used here, because it gives the same name to cells that compute
        different functions and have different costs. With the weights of a supernet, two cells of
        the same function do not return the same numbers, because they run it on different edges,
        which have different weights.
        """
        options = self.validate(architecture)["edges"]
        return Architecture.of(self.name, edges=representatives()[function_of(options)])

    def sums(self, group: str) -> list[list[int]]:
        return [
            [slot for slot, (_, target) in enumerate(EDGES) if target == node]
            for node in range(1, 4)
        ]

    def encode(self, architecture: Architecture) -> str:
        """``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``: each node's in-edges, as operation~source."""
        text: list[list[str]] = [[], [], []]
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
