"""Cells: small directed graphs of which a network is made. Each edge carries an operation.

A cell has inputs, which are its first nodes. Every other node is the sum of its in-edges. The cell
returns its last ``outputs`` nodes, concatenated. The operation on an edge has the stride
``strides[source]``.

:class:`MixedCell` is the cell of a supernet. It owns all options of every edge, and each call says
which of them run. :class:`Cell` is the cell of a plain network. It owns one operation for each
edge. :class:`CellSpace` is the base of the spaces whose networks are made of cells.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.bounds import Bounds, Few
from supernet.errors import UserError
from supernet.mixture import Architecture, Choice, ChoiceGroup, Mixture
from supernet.ops import OPERATIONS, PARAMETER_FREE, DropPath, Rectified
from supernet.ops.fast.program import Program, runs_at_once
from supernet.ops.fast.recompute import weighted
from supernet.spaces.capabilities import Drawable, Itemised, Resizable
from supernet.spaces.space import Form, Size
from supernet.task import Task

NOTHING, SKIP = "none", "skip_connect"
# matches the name of a tensor of an edge, in a plain network
EDGE = re.compile(r"(.+)\.edges\.from_(\d+)_to_(\d+)\.")

# slot, option, target node and operation of what runs on an edge
Chosen = tuple[int, int, int, nn.Module]


def choices_of_edges(name: str, slots: int, options: tuple[str, ...]) -> ChoiceGroup:
    """A choice group of ``slots`` edges that have these ``options``."""
    free = tuple(option for option in options if option in PARAMETER_FREE)
    return ChoiceGroup(name, slots, options, SKIP, NOTHING, free)


# What an exported network is made of has builtin types only, so that its file imports torch alone.


class Cell(nn.Module):
    """A cell with one operation for each edge: ``edges`` lists (source, target, operation)."""

    def __init__(
        self,
        edges: list[tuple[int, int, str]],
        nodes: int,
        outputs: int,
        strides: list[int],
        channels: int,
        affine: bool,
        pool_norm: bool,
    ):
        super().__init__()
        self.nodes, self.outputs, self.stride = nodes, outputs, strides[0]
        self.wiring = [
            (source, target, f"from_{source}_to_{target}") for source, target, _ in edges
        ]
        self.operations = {f"from_{source}_to_{target}": name for source, target, name in edges}
        self.edges = nn.ModuleDict(
            {
                f"from_{source}_to_{target}": OPERATIONS[name](
                    channels, strides[source], affine, pool_norm
                )
                for source, target, name in edges
            }
        )
        self.drop_path = DropPath()

    def forward(self, *inputs: Tensor) -> Tensor:
        states = list(inputs)
        for node in range(len(inputs), self.nodes):
            total = None
            for source, target, edge in self.wiring:
                if target == node:
                    out = self.edges[edge](states[source])
                    if not isinstance(self.edges[edge], nn.Identity):
                        out = self.drop_path(out)
                    total = out if total is None else total + out
            if total is None:  # the node has no in-edge
                total = torch.zeros_like(states[0][:, :, :: self.stride, :: self.stride])
            states.append(total)
        return states[-1] if self.outputs == 1 else torch.cat(states[-self.outputs :], dim=1)


class MixedCell(nn.Module):
    """A cell of a supernet. ``edges`` lists (source, target); edge ``k`` owns every option of slot
    ``k`` of ``group``.

    It runs what a mixture says of that group. Options that are not active are not computed. If
    several operations rectify the same tensor, it is rectified once. In training, when several
    weighted operations are active in a slot, the operations that read a node run at once
    (:mod:`supernet.ops.fast.program`). :attr:`recompute` makes that take less memory.

    With ``partial_channels`` K (PC-DARTS, Xu et al., ICLR 2020, section 3.2, eq. 2) the operations
    read and return only the first of K parts of the channels. The other parts pass each edge
    unchanged, except that they are pooled 2×2 if the stride is two. They are multiplied by the sum
    of the edge's weights: this is one for a distribution or a path, and the share of the edge under
    edge normalisation. When a node is summed, the channels of the K parts are shuffled, so that the
    next edges read other channels. The other parts pass an edge also if it chooses the option that
    returns zeros.
    """

    def __init__(
        self,
        edges: Sequence[tuple[int, int]],
        nodes: int,
        outputs: int,
        strides: Sequence[int],
        channels: int,
        affine: bool,
        pool_norm: bool,
        group: ChoiceGroup,
        partial_channels: int = 1,
    ):
        super().__init__()
        self.nodes, self.outputs, self.stride = nodes, outputs, strides[0]
        self.group, self.strides, self.divisor = group, strides, partial_channels
        self.programs: dict[int, Any] = {}  # by node: the last program that ran its operations
        self.recompute = False
        self.wiring = [(source, target, f"from_{source}_to_{target}") for source, target in edges]
        self.edges = nn.ModuleDict(
            {
                edge: nn.ModuleDict(
                    {
                        name: OPERATIONS[name](
                            channels // partial_channels, strides[source], affine, pool_norm
                        )
                        for name in group.options
                        if name != group.nothing
                    }
                )
                for source, _, edge in self.wiring
            }
        )

    def __getstate__(self) -> dict[str, Any]:
        # Programs hold memory addresses, so that a copy must make its own.
        return self.__dict__ | {"programs": {}}

    def options(self, edge: str) -> nn.ModuleDict:
        """The operations of an edge: name of an option -> module."""
        return cast(nn.ModuleDict, self.edges[edge])

    def forward(self, *inputs: Tensor, mixture: Mixture) -> Tensor:
        choice = mixture[self.group.name]
        several = choice.weights is not None and any(len(slot) > 1 for slot in choice.active)
        trains = self.training and several
        whole = list(inputs)
        totals: dict[int, Tensor] = {}  # by node: the sum of the outputs that reach it so far
        for node in range(self.nodes):
            if node >= len(inputs):
                total = totals.get(node)
                if total is None:  # nothing is active on its in-edges
                    total = torch.zeros_like(
                        self.read(inputs[0])[:, :, :: self.stride, :: self.stride]
                    )
                whole.append(
                    total if self.divisor == 1 else self.rejoined(total, node, whole, choice)
                )
            chosen = [
                (slot, option, target, self.options(edge)[self.group.options[option]])
                for slot, (source, target, edge) in enumerate(self.wiring)
                for option in (choice.active[slot] if source == node else ())
                if self.group.options[option] != self.group.nothing
            ]
            if chosen:
                x = self.read(whole[node])
                leave = self._at_once if trains and runs_at_once(x) else self._one_by_one
                leave(node, x, chosen, choice.weights, totals)
        return whole[-1] if self.outputs == 1 else torch.cat(whole[-self.outputs :], dim=1)

    def _one_by_one(
        self,
        node: int,
        x: Tensor,
        chosen: Sequence[Chosen],
        weights: Tensor | None,
        totals: dict[int, Tensor],
    ) -> None:
        """Runs the ``chosen`` operations on ``x``, and adds each output to its target's total."""
        rectified = None
        for slot, option, target, operation in chosen:
            run, read = operation, x
            if isinstance(operation, Rectified):
                rectified = F.relu(x) if rectified is None else rectified
                run, read = operation.body, rectified
            if weights is None:
                out = run(read)
            elif self.training and self.recompute:
                out = weighted(operation, run, read, weights[slot, option])
            else:
                out = run(read) * weights[slot, option]
            totals[target] = out if target not in totals else totals[target] + out

    def _at_once(
        self,
        node: int,
        x: Tensor,
        chosen: Sequence[Chosen],
        weights: Tensor | None,
        totals: dict[int, Tensor],
    ) -> None:
        """The same as :meth:`_one_by_one`, by a :class:`supernet.ops.fast.program.Program`.

        The last program of each node is kept, because most methods run the same one again.
        """
        assert weights is not None  # _one_by_one runs what has none
        slots, options, targets, operations = zip(*chosen, strict=True)
        known, targets_of, places, program = self.programs.get(node, (None,) * 4)
        key = slots, options, x.device, self.recompute
        if known != key:
            targets_of = list(dict.fromkeys(targets))
            places = torch.tensor([slots, options], device=weights.device)
            program = Program(
                [
                    (targets_of.index(t), operation)
                    for t, operation in zip(targets, operations, strict=True)
                ],
                x.device,
                self.recompute,
            )
            self.programs[node] = key, targets_of, places, program
        sums = program.run(
            x, weights[places[0], places[1]], [totals.get(target) for target in targets_of]
        )
        totals.update(zip(targets_of, sums, strict=True))

    def read(self, state: Tensor) -> Tensor:
        """The channels of a node's value ``state`` that operations read."""
        return state if self.divisor == 1 else state[:, : state.shape[1] // self.divisor]

    def rejoined(self, total: Tensor, node: int, whole: Sequence[Tensor], choice: Choice) -> Tensor:
        """The value of a node: ``total``, which its operations return, and the channels that bypass
        the operations.
        """
        passed = None
        for slot, (source, target, _) in enumerate(self.wiring):
            if target == node and choice.active[slot]:
                state = whole[source]
                part = state[:, state.shape[1] // self.divisor :]
                if self.strides[source] == 2:
                    part = F.max_pool2d(part, 2, ceil_mode=True)
                if choice.weights is not None:
                    part = part * choice.weights[slot, list(choice.active[slot])].sum()
                passed = part if passed is None else passed + part
        if passed is None:
            passed = total.repeat(1, self.divisor - 1, 1, 1)  # no active in-edge: total is zeros
        return torch.channel_shuffle(torch.cat([total, passed], dim=1), self.divisor)


@dataclass
class Geometry:
    """How large a network of cells is: the ``channels`` of its first cell, and the number of
    ``cells``. Each space defines what the number of cells counts.

    In a supernet, operations read the first of ``partial_channels`` parts of the channels. The
    other parts bypass the operations.
    """

    channels: Annotated[int, Bounds(least=2, most=2**14)]
    cells: Annotated[int, Bounds(least=1, most=256)]
    partial_channels: Few = 1


@dataclass
class CellSpace(Itemised, Resizable, Drawable):
    """A space of cells. ``search`` is the geometry of the supernet, ``evaluation`` the geometry of
    the network that is retrained. A supernet keeps the ``task`` that it was built for as an
    attribute.

    With partial channels in the search, a subnet is the supernet on one path, together with the
    channels that bypass the operations. No plain network has its weights. Therefore there is no
    standalone network of the form "search".
    """

    search: Geometry
    evaluation: Geometry

    wiring: ClassVar[list[tuple[int, int]]]  # the edges (source, target) of a cell, slot by slot
    # the paper's two geometries, with which a report compares the geometries of a run
    paper: ClassVar[dict[str, Geometry]] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        for form in ("search", "evaluation"):
            geometry, key = getattr(self, form), f"space.{form}"
            if geometry.channels % 2:
                raise UserError(
                    f"{key}.channels={geometry.channels}: must be even and at least 2; choose for "
                    "example 16"
                )
            parts = geometry.partial_channels
            if geometry.channels % parts:
                raise UserError(
                    f"{key}.partial_channels={parts}: must divide "
                    f"{key}.channels={geometry.channels}"
                )
        if self.evaluation.partial_channels != 1:
            raise UserError(
                "space.evaluation.partial_channels: it is the supernet that has partial "
                "channels; leave it at 1"
            )

    def read_by(self, cell: str, state: Mapping[str, Tensor]) -> str:
        """The group that decides what the cell with that name runs, in a plain network with that
        ``state``. By default there is one group, and all cells read it.
        """
        (group,) = self.groups
        return group.name

    def whole(self, form: Form) -> Geometry:
        """The geometry of a plain network of that form.

        Raises:
            UserError: no plain network has that form.
        """
        geometry = getattr(self, form)
        if geometry.partial_channels != 1:
            raise UserError(
                f"space.search.partial_channels={geometry.partial_channels}: no plain network has "
                "the weights of such a supernet; "
                "choose retrain.init=scratch, or space.search.partial_channels=1"
            )
        return geometry

    def require_inherit(self) -> None:
        self.whole("search")

    def inherit(self, supernet: nn.Module, architecture: Architecture) -> nn.Module:
        """Each edge takes the weights of the option that it runs."""
        network = self.standalone(architecture, cast(Task, supernet.task), "search")
        state, origins = supernet.state_dict(), self.origins(network, architecture)
        network.load_state_dict({name: state[origin] for name, origin in origins.items()})
        return network

    def origins(self, network: nn.Module, architecture: Architecture) -> dict[str, str]:
        """Where the weights of ``network`` come from: name of each tensor -> its name in the
        supernet. ``network`` is the standalone of ``architecture`` in the form "search".
        """
        state, found = network.state_dict(), {}
        edges = self.operations(state, architecture)
        for name in state:
            edge = EDGE.match(name)
            own = f"{edge[0]}{edges[edge[0]]}.{name.removeprefix(edge[0])}" if edge else name
            found[name] = own
        return found

    def changed(
        self,
        state: Mapping[str, Tensor],
        of: Architecture,
        network: nn.Module,
        architecture: Architecture,
    ) -> tuple[str, ...]:
        """The edges that run another operation than the same edge of the same cell. Two
        convolutions have BatchNorms of the same shape, but these belong to different features.
        """
        before = self.operations(state, of)
        after = self.operations(network.state_dict(), architecture)
        return tuple(edge for edge, option in after.items() if before.get(edge) != option)

    def operations(self, state: Mapping[str, Tensor], architecture: Architecture) -> dict[str, str]:
        """The option that each edge runs, by the prefix of the names of its tensors. Edges without
        tensors in ``state`` are left out. ``state`` is the state of a plain network of
        ``architecture``.
        """
        found = {}
        for edge in filter(None, map(EDGE.match, state)):
            cell, source, target = edge.groups()
            slot = self.wiring.index((int(source), int(target)))
            found[edge[0]] = architecture[self.read_by(cell, state)][slot]
        return found

    def candidates(self, network: nn.Module) -> dict[str, tuple[str, int, int]]:
        return {
            f"{name}.edges.{edge}.{option}": (
                cell.group.name,
                slot,
                cell.group.options.index(option),
            )
            for name, cell in mixed_cells(network)
            for slot, (_, _, edge) in enumerate(cell.wiring)
            for option in cell.options(edge)
        }

    def resized(self, cells: float = 1.0, partial_channels: int | None = None) -> Self:
        parts = self.search.partial_channels if partial_channels is None else partial_channels
        search = replace(
            self.search, cells=max(1, round(cells * self.search.cells)), partial_channels=parts
        )
        return self if search == self.search else replace(self, search=search)

    def network_settings(self, form: Form) -> dict[str, Any]:
        """The supernet depends on its geometry alone."""
        if form == "search":
            return {"search": asdict(self.search)}
        return {name: value for name, value in asdict(self).items() if name != "search"}

    def sizes(self, form: Form) -> list[Size]:
        paper = self.paper.get(form)
        return [
            Size(name, f"space.{form}.{name}", value, getattr(paper, name, None))
            for name, value in asdict(getattr(self, form)).items()
        ]


def mixed_cells(network: nn.Module) -> Iterator[tuple[str, MixedCell]]:
    """The mixed cells of a supernet, with their names."""
    for name, module in network.named_modules():
        if isinstance(module, MixedCell):
            yield name, module
