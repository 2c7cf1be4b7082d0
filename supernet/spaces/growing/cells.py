"""Growth of cells, from a small network of residual cells outwards (Petridish, Hu et al., NeurIPS
2019).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from torch import Tensor, nn

from supernet.bounds import Bounded, Bounds
from supernet.errors import UserError
from supernet.ops import FactorizedReduce, ReLUConvBN, SepConv
from supernet.spaces.darts import AuxiliaryHead
from supernet.spaces.growing.shortcuts import Shape
from supernet.spaces.growing.space import GrowingSpace, Target
from supernet.spaces.space import Form, Size, images_of
from supernet.task import Task

Channels = Annotated[int, Bounds(least=2, most=2**14)]
Cells = Annotated[int, Bounds(least=1, most=64)]  # of one resolution


class Residual(nn.Module):
    """``x + SepConv(x)``: a node of a cell before growth."""

    def __init__(self, channels: int, affine: bool):
        super().__init__()
        self.body = SepConv(channels, 3, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class SeedCell(nn.Module):
    """A cell before growth: ``nodes`` residual nodes, one after the other. ``first`` reads the cell
    before; in a reduction it halves the image.
    """

    def __init__(self, first: nn.Module, nodes: int, channels: int, affine: bool):
        super().__init__()
        self.first = first
        self.nodes = nn.Sequential(*(Residual(channels, affine) for _ in range(nodes)))

    def forward(self, x: Tensor) -> Tensor:
        return self.nodes(self.first(x))


class SeedNetwork(nn.Module):
    """A stem, cells, and a head. There are ``cells`` normal cells of each resolution, and between
    two resolutions a reduction, which halves the image and doubles the channels.
    """

    def __init__(
        self,
        channels: int,
        cells: int,
        reductions: int,
        nodes: int,
        classes: int,
        in_channels: int,
        affine: bool,
    ):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        self.cells, width = nn.Sequential(), channels
        for reduction in kinds(cells, reductions):
            read, width = width, 2 * width if reduction else width
            first = FactorizedReduce if reduction else ReLUConvBN
            self.cells.append(SeedCell(first(read, width, affine=affine), nodes, width, affine))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(self.stem(x)))


def halves(cell: SeedCell) -> bool:
    """Whether a cell is a reduction."""
    return isinstance(cell.first, FactorizedReduce)


def kinds(cells: int, reductions: int) -> list[bool]:
    """For each cell of a network, whether it is a reduction."""
    return (([False] * cells + [True]) * (reductions + 1))[:-1]


@dataclass
class Geometry(Bounded):
    """How wide a network is: the ``channels`` of its first cells. ``cells`` is the number of normal
    cells of each resolution; ``None`` is that of the seed.
    """

    channels: Channels
    cells: Cells | None = None


@dataclass
class GrowingCells(GrowingSpace):
    """Growth of a normal cell and a reduction cell. All cells of a kind get the same shortcuts,
    each with weights of its own; with ``macro`` every cell grows by itself.

    A network begins as one of ``seeds``, written CELLSxREDUCTIONSxNODES: the number of normal cells
    of each resolution, of reductions, and of nodes of a cell.

    A shortcut ends at the output of its cell. It reads the input of the cell (``last``), the cell
    before (``before``), the nodes but for the last one (``node0``, ...), or an earlier addition of
    the same cell (``added0``, ...).

    Departures from the original code: the 1×1 convolution of a reduction keeps half of the places
    of each image twice, as DARTS's does; a shortcut from the cell before has a 1×1 convolution of
    its own where the shapes differ.
    """

    search: Geometry
    evaluation: Geometry
    seeds: list[str] = field(default_factory=lambda: ["3x2x1"])
    macro: bool = False
    auxiliary: bool = True  # a second head for training only, in networks that are retrained

    name = "growing_cells"

    def __post_init__(self) -> None:
        super().__post_init__()
        for seed in self.seeds:
            _ = numbers(seed)

    @property
    def seed_names(self) -> list[str]:
        return self.seeds

    def network(self, seed: str, task: Task, form: Form) -> nn.Module:
        geometry: Geometry = getattr(self, form)
        cells, reductions, nodes = numbers(seed)
        return SeedNetwork(
            geometry.channels,
            geometry.cells or cells,
            reductions,
            nodes,
            *images_of(task),
            affine=form == "evaluation",
        )

    def places(self, seed: str, form: Form) -> dict[str, list[Target]]:
        geometry: Geometry = getattr(self, form)
        cells, reductions, nodes = numbers(seed)
        if self.macro and form == "evaluation" and geometry.cells not in (None, cells):
            raise UserError(
                f"space.evaluation.cells={geometry.cells}: with space.macro every cell grows by "
                "itself, so that their number cannot change; set space.evaluation.cells=null"
            )
        found: dict[str, list[Target]] = {}
        for number, reduction in enumerate(kinds(geometry.cells or cells, reductions)):
            kind = f"cell{number}" if self.macro else "reduce" if reduction else "normal"
            own = f"cells.{number}"
            roles = {
                "before": f"cells.{number - 2}" if number > 1 else "stem",
                "last": f"{own}.first",
                **{f"node{node}": f"{own}.nodes.{node}" for node in range(nodes - 1)},
            }
            found.setdefault(kind, []).append(Target(own, roles))
        return found

    def auxiliary_head(
        self, network: nn.Module, task: Task, form: Form, shapes: Mapping[str, Shape]
    ) -> tuple[str, nn.Module | None]:
        """DARTS's head behind the last cell before the last reduction, as in the paper's code."""
        cells: Any = network.cells
        where = max((n for n, one in enumerate(cells) if halves(one)), default=0) - 1
        if form == "search" or not self.auxiliary or where < 0:
            return "", None
        return f"cells.{where}", AuxiliaryHead(shapes[f"cells.{where}"][0], task.outputs)

    def sizes(self, form: Form) -> list[Size]:
        geometry, where = getattr(self, form), f"space.{form}"
        full = 16 if form == "search" else 32
        return [Size("channels", f"{where}.channels", geometry.channels, full)]


def numbers(seed: str) -> tuple[int, int, int]:
    """The number of normal cells of each resolution, of reductions, and of nodes of a cell.

    Raises:
        UserError: ``seed`` does not say so.
    """
    found = [int(part) for part in seed.split("x") if part.isascii() and part.isdigit()]
    if len(found) != 3 or seed.count("x") != 2 or not (0 < found[0] <= 64 and found[1] <= 8):
        raise UserError(
            f"space.seeds: {seed!r}: must be CELLSxREDUCTIONSxNODES, such as 3x2x1: at least one "
            "cell, at most 64 cells and 8 reductions"
        )
    if not 0 < found[2] <= 16:
        raise UserError(f"space.seeds: {seed!r}: a cell has at least one node, and at most 16")
    cells, reductions, nodes = found
    return cells, reductions, nodes
