"""The DARTS space (Liu, Simonyan & Yang, ICLR 2019). It has a normal cell and a reduction cell.
Each has 4 nodes, 14 edges and 8 operations for each edge.
"""

import ast
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.errors import UserError
from supernet.mixture import Architecture, ChoiceGroup, Mixture
from supernet.ops import FactorizedReduce, ReLUConvBN
from supernet.spaces.cells import (
    NOTHING,
    Cell,
    CellSpace,
    Geometry,
    MixedCell,
    choices_of_edges,
)
from supernet.spaces.space import Form, Gene, Rule, images_of
from supernet.task import Task


def edges_of(nodes: int) -> list[tuple[int, int]]:
    """The edges (source, target) of a cell that has ``nodes`` nodes of its own, sorted by target,
    then by source. Nodes 0 and 1 are the outputs of the two cells before it; its own nodes begin at
    2.
    """
    return [(source, target) for target in range(2, 2 + nodes) for source in range(target)]


EDGES = edges_of(4)
OPTIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)


class Layer(nn.Module):
    """A cell, behind the 1×1 convolutions that bring both inputs to the resolution and width of the
    cell.
    """

    def __init__(
        self,
        cell: nn.Module,
        before: int,
        last: int,
        channels: int,
        last_reduced: bool,
        affine: bool,
    ):
        super().__init__()
        self.preprocess0 = (
            FactorizedReduce(before, channels, affine)
            if last_reduced
            else ReLUConvBN(before, channels, affine=affine)
        )
        self.preprocess1 = ReLUConvBN(last, channels, affine=affine)
        self.cell = cell

    def forward(self, before: Tensor, last: Tensor, **arguments: object) -> Tensor:
        return self.cell(self.preprocess0(before), self.preprocess1(last), **arguments)


class AuxiliaryHead(nn.Module):
    """A second classifier at two thirds of the depth, for training only. The paper's input is 8×8;
    a smaller input is pooled to 2×2.
    """

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        x = F.avg_pool2d(x, 5, stride=3) if min(x.shape[2:]) >= 8 else F.adaptive_avg_pool2d(x, 2)
        return self.classifier(self.features(x))


class DartsNetwork(nn.Module):
    """A network of DARTS: a stem, ``cells`` layers, and a head. The layers at one third and two
    thirds of the depth are reductions: they halve the image and double the width.

    ``normal`` and ``reduce`` list the edges (source, target, operation) of the two cells. Each cell
    has ``nodes`` nodes of its own.
    """

    def __init__(
        self,
        normal: list[tuple[int, int, str]],
        reduce: list[tuple[int, int, str]],
        channels: int,
        cells: int,
        classes: int,
        in_channels: int,
        affine: bool = True,
        pool_norm: bool = False,
        auxiliary: bool = False,
        nodes: int = 4,
    ):
        super().__init__()
        self.settings = dict(
            normal=normal,
            reduce=reduce,
            channels=channels,
            cells=cells,
            classes=classes,
            in_channels=in_channels,
            affine=affine,
            pool_norm=pool_norm,
            nodes=nodes,
        )
        self.nodes = nodes
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, 3 * channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(3 * channels),
        )
        self.reductions = {cells // 3, 2 * cells // 3} if cells > 2 else set(range(1, cells))
        before, last, width, last_reduced = 3 * channels, 3 * channels, channels, False
        self.layers = nn.ModuleList()
        self.auxiliary = None
        for index in range(cells):
            reduction = index in self.reductions
            width = 2 * width if reduction else width
            strides = [2 if reduction else 1] * 2 + [1] * (nodes - 1)
            cell = self.cell(reduce if reduction else normal, strides, width, affine, pool_norm)
            self.layers.append(Layer(cell, before, last, width, last_reduced, affine))
            before, last, last_reduced = last, nodes * width, reduction
            if auxiliary and index == 2 * cells // 3:
                self.auxiliary = AuxiliaryHead(last, classes)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, classes))

    def cell(
        self,
        edges: list[tuple[int, int, str]],
        strides: list[int],
        channels: int,
        affine: bool,
        pool_norm: bool,
    ) -> nn.Module:
        return Cell(edges, 2 + self.nodes, self.nodes, strides, channels, affine, pool_norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_with_auxiliary(x)[0]

    def forward_with_auxiliary(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits, and the logits of the auxiliary head in training if there is one."""
        before = last = self.stem(x)
        second = None
        for index, layer in enumerate(self.layers):
            before, last = last, layer(before, last)
            if self.training and self.auxiliary is not None and index == 2 * len(self.layers) // 3:
                second = self.auxiliary(last)
        return self.head(last), second


class DartsSupernet(DartsNetwork):
    """The same network with every option on every edge. Its ``normal`` and ``reduce`` are the
    groups that the cells read.
    """

    task: Task  # the task that it was built for

    def __init__(self, *arguments: Any, partial_channels: int, **settings: Any):
        self.partial_channels = partial_channels
        super().__init__(*arguments, **settings)

    def cell(  # type: ignore[override]
        self,
        group: ChoiceGroup,
        strides: list[int],
        channels: int,
        affine: bool,
        pool_norm: bool,
    ) -> nn.Module:
        wiring = edges_of(self.nodes)
        return MixedCell(
            wiring,
            2 + self.nodes,
            self.nodes,
            strides,
            channels,
            affine,
            pool_norm,
            group,
            self.partial_channels,
        )

    def forward(self, x: Tensor, mixture: Mixture) -> Tensor:  # type: ignore[override]
        before = last = self.stem(x)
        for layer in self.layers:
            before, last = last, layer(before, last, mixture=mixture)
        return self.head(last)


@dataclass
class Darts(CellSpace):
    """The space of DARTS. In its geometry, ``channels`` are the channels of the first cells, and
    ``cells`` is the number of all cells. The paper has 16 and 8 for search, 36 and 20 for
    evaluation.

    A valid architecture keeps exactly two in-edges of each node of a cell; the other in-edges are
    ``none``. During search, BatchNorms have no scale and shift, and each pooling is followed by a
    BatchNorm (section 3.1 and the paper's code). In evaluation it is the reverse.
    """

    auxiliary: bool = True

    name = "darts"
    # The nodes that belong to a cell. A subclass with another number, and with groups of that many
    # edges, can build a supernet only.
    nodes: ClassVar[int] = 4
    groups = (choices_of_edges("normal", 14, OPTIONS), choices_of_edges("reduce", 14, OPTIONS))
    wiring: ClassVar = EDGES
    paper: ClassVar = {"search": Geometry(16, 8), "evaluation": Geometry(36, 20)}

    def supernet(self, task: Task, form: Form = "search") -> nn.Module:
        geometry, searching = getattr(self, form), form == "search"
        network = DartsSupernet(
            *self.groups,
            geometry.channels,
            geometry.cells,
            *images_of(task),
            affine=not searching,
            pool_norm=searching,
            partial_channels=geometry.partial_channels,
            nodes=self.nodes,
        )
        network.task = task
        return network

    def standalone(
        self, architecture: Architecture, task: Task, form: Form = "evaluation"
    ) -> nn.Module:
        self.validate(architecture)
        searching = form == "search"
        geometry = self.whole(form)
        return DartsNetwork(
            _kept(architecture["normal"]),
            _kept(architecture["reduce"]),
            geometry.channels,
            geometry.cells,
            *images_of(task),
            affine=not searching,
            pool_norm=searching,
            auxiliary=self.auxiliary and not searching,
        )

    def read_by(self, cell: str, state: Mapping[str, Tensor]) -> str:
        """A layer is wider than the layer before it exactly if its cell is a reduction."""
        layer = int(cell.split(".")[1])  # the name is layers.LAYER.cell

        def width(index: int) -> int:
            return len(state[f"layers.{index}.preprocess1.body.0.weight"])

        return "reduce" if layer > 0 and width(layer) > width(layer - 1) else "normal"

    def validate(self, architecture: Architecture) -> Architecture:
        super().validate(architecture)
        for group in self.groups:
            for node in range(2, 6):
                kept = sum(target == node for _, target, _ in _kept(architecture[group.name]))
                if kept != 2:
                    raise UserError(
                        f"darts: node {node - 2} of the {group.name} cell has {kept} in-edges, "
                        "not two"
                    )
        return architecture

    @cached_property  # every random draw reads it
    def genes(self) -> tuple[Gene, ...]:
        """For each node of each cell: the two nodes that it reads, and the two operations."""
        return tuple(
            gene
            for group in self.groups
            for node in range(2, 6)
            for gene in (
                Gene(f"{group.name}/{node}/sources", tuple(itertools.combinations(range(node), 2))),
                Gene(f"{group.name}/{node}/first", OPTIONS[1:]),
                Gene(f"{group.name}/{node}/second", OPTIONS[1:]),
            )
        )

    def express(self, values: Sequence[Any]) -> Architecture:
        rows, genes = {group.name: [NOTHING] * group.slots for group in self.groups}, self.genes
        for position in range(0, len(values), 3):
            sources, *operations = values[position : position + 3]
            name, node = genes[position].name.split("/")[:2]
            for source, operation in zip(sources, operations, strict=True):
                rows[name][EDGES.index((source, int(node)))] = operation
        return Architecture.of(self.name, **rows)

    def values(self, architecture: Architecture) -> list[Any]:
        result = []
        for group in self.groups:
            kept = _kept(architecture[group.name])
            for node in range(2, 6):
                (first, _, one), (second, _, other) = (edge for edge in kept if edge[1] == node)
                result += [(first, second), one, other]
        return result

    def rules(self) -> list[Rule]:
        """One option for each slot, and two in-edges of every node that are not ``none``."""
        operations = range(1, len(OPTIONS))
        return super().rules() + [
            Rule(group.name, slots, operations, 2)
            for group in self.groups
            for slots in self.sums(group.name)
        ]

    def sums(self, group: str) -> list[list[int]]:
        return [
            [slot for slot, (_, target) in enumerate(EDGES) if target == node]
            for node in range(2, 6)
        ]

    def gains(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The score of ``none`` is zero: an edge is left out because other edges are better, and
        not because ``none`` has a high score.
        """
        return {
            name: table.index_fill(-1, torch.tensor([0]), 0.0)
            for name, table in super().gains(scores).items()
        }

    def presence(self, group: str) -> Tensor:
        return torch.tensor([2 / target for _, target in EDGES])

    def derive(self, scores: Mapping[str, Tensor]) -> Architecture:
        """Keeps two in-edges of each node: those whose best operation has the highest score
        (section 2.4). ``none`` does not count as an operation.
        """
        choices = {}
        for group in self.groups:
            best = scores[group.name][:, 1:].max(dim=-1)
            row = [NOTHING] * group.slots
            for slots in self.sums(group.name):
                for position in torch.topk(best.values[slots], 2).indices.tolist():
                    row[slots[position]] = OPTIONS[1 + int(best.indices[slots[position]])]
            choices[group.name] = row
        return Architecture.of(self.name, **choices)

    def encode(self, architecture: Architecture) -> str:
        """``Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=...,
        reduce_concat=...)``.
        """
        cells = ", ".join(
            f"{name}={[(option, source) for source, _, option in _kept(architecture[name])]}, "
            f"{name}_concat=range(2, 6)"
            for name in ("normal", "reduce")
        )
        return f"Genotype({cells})"

    def decode(self, text: str) -> Architecture:
        """Reads a ``Genotype(...)`` as papers print it. For each node it has two pairs (operation,
        source), in either order.
        """
        try:
            call = ast.parse(
                text.strip().partition("=")[2]
                if text.lstrip().startswith("DARTS")
                else text.strip(),
                mode="eval",
            )
            keywords = cast(ast.Call, call.body).keywords
            cells = {keyword.arg: ast.unparse(keyword.value) for keyword in keywords}
            rows = {name: list(ast.literal_eval(cells[name])) for name in ("normal", "reduce")}
            choices = {}
            for name, pairs in rows.items():
                if len(pairs) != 8:
                    raise UserError(
                        f"darts: the {name} cell of a genotype has 8 (operation, source) pairs, "
                        f"not {len(pairs)}"
                    )
                row = [NOTHING] * len(EDGES)
                for position, (option, source) in enumerate(pairs):
                    edge = (int(source), 2 + position // 2)
                    if edge not in EDGES or row[EDGES.index(edge)] != NOTHING:
                        raise UserError(
                            f"darts: {name}[{position}] = {(option, source)}: no such free edge "
                            "in the cell"
                        )
                    row[EDGES.index(edge)] = str(option)
                choices[name] = row
        except UserError:
            raise
        except (SyntaxError, AttributeError, KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"not a DARTS genotype: {text[:120]!r}; expected "
                "Genotype(normal=[('sep_conv_3x3', 0), ...], "
                "normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6))"
            ) from error
        return self.validate(Architecture.of(self.name, **choices))

    def graph(self, architecture: Architecture) -> dict[str, list[tuple[str, str, str]]]:
        def node(index: int) -> str:
            return ("c_{k-2}", "c_{k-1}", "0", "1", "2", "3")[index]

        return {
            name: [
                (node(source), node(target), option)
                for source, target, option in _kept(architecture[name])
            ]
            for name in ("normal", "reduce")
        }


def _kept(row: Sequence[str]) -> list[tuple[int, int, str]]:
    """The edges (source, target, operation) that are not ``none``. ``row`` are the options of a
    cell.
    """
    return [
        (source, target, option)
        for (source, target), option in zip(EDGES, row, strict=True)
        if option != NOTHING
    ]
