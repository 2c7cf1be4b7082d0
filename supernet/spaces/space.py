"""What a search space is: its choice groups, what is valid, how to build its networks, how to write
its architectures.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from supernet.errors import UserError, require, unknown
from supernet.mixture import Architecture, Choice, ChoiceGroup
from supernet.spaces.cell import Cell, MixedCell


@dataclass
class Geometry:
    """How large a network of the space is: ``channels`` of the first cell and number of ``cells``
    (each space says which).

    In a supernet, operations read one of ``partial_channels`` parts of the channels, and the rest
    passes them by.
    """

    channels: int
    cells: int
    partial_channels: int = 1


@dataclass(frozen=True)
class Gene:
    """One decision of an architecture, with the values that it can take."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Rule:
    """Of these ``options`` (indices) in these ``slots`` of ``group``, exactly ``count`` are chosen."""

    group: str
    slots: Sequence[int]
    options: Sequence[int]
    count: int


@dataclass
class Space(ABC):
    """A search space. ``search`` is the supernet's geometry, ``evaluation`` that of the network
    which is retrained.

    With partial channels in the search a subnet is the supernet on one path, what passes by
    included; no plain network has its weights, so that there is no :meth:`standalone` of the phase
    "search".
    """

    search: Geometry
    evaluation: Geometry

    name: ClassVar[str]
    groups: ClassVar[tuple[ChoiceGroup, ...]]
    paper: ClassVar[
        dict[str, Geometry]
    ] = {}  # the two geometries as its paper has them: what a report sets others beside

    def __post_init__(self):
        for phase in ("search", "evaluation"):
            geometry, key = getattr(self, phase), f"space.{phase}"
            if geometry.channels < 2 or geometry.channels % 2:
                raise UserError(
                    f"{key}.channels={geometry.channels}: must be even and at least 2; choose for "
                    "example 16"
                )
            require(f"{key}.cells", geometry.cells, least=1)
            parts = geometry.partial_channels
            if parts < 1 or geometry.channels % parts:
                raise UserError(
                    f"{key}.partial_channels={parts}: must divide "
                    f"{key}.channels={geometry.channels}"
                )
        if self.evaluation.partial_channels != 1:
            raise UserError(
                "space.evaluation.partial_channels: it is the supernet that has partial "
                "channels; leave it at 1"
            )

    def whole(self, phase: str) -> Geometry:
        """The geometry of a plain network.

        Raises:
            UserError: there is none in that phase.
        """
        geometry = getattr(self, phase)
        if geometry.partial_channels != 1:
            raise UserError(
                f"space.search.partial_channels={geometry.partial_channels}: no plain network has "
                "the weights of such a supernet; "
                "choose retrain.init=scratch, or space.search.partial_channels=1"
            )
        return geometry

    @abstractmethod
    def supernet(self, classes: int, in_channels: int, phase: str = "search") -> nn.Module:
        """A fresh supernet: ``forward(x [B, C, H, W], mixture) -> logits [B, classes]``.

        ``phase`` "search" has the search geometry; "evaluation" has every option in the form and
        size that it has in the networks which are retrained, to count costs by.
        """

    @abstractmethod
    def standalone(
        self, architecture: Architecture, classes: int, in_channels: int, phase: str = "evaluation"
    ) -> nn.Module:
        """A fresh plain network of the chosen operations alone: ``forward(x) -> logits``.

        ``phase`` "evaluation" has the evaluation geometry, for retraining; "search" has the form
        that subnets of the supernet have, so that it can take inherited weights.
        """

    # --- the space as a set: independent decisions, any combination of which is one valid architecture

    @property
    @abstractmethod
    def genes(self) -> tuple[Gene, ...]:
        """The decisions. Every choice of one value a gene is a valid architecture, and each
        architecture is one such choice.
        """

    @abstractmethod
    def express(self, values: Sequence[Any]) -> Architecture:
        """The architecture of one value a gene."""

    @abstractmethod
    def values(self, architecture: Architecture) -> list[Any]:
        """The inverse of :meth:`express`."""

    def random(self, rng: np.random.Generator) -> Architecture:
        """A valid architecture, drawn uniformly."""
        return self.express([gene.values[rng.integers(len(gene.values))] for gene in self.genes])

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """The architecture with another value in one gene, both drawn uniformly."""
        values, genes = self.values(architecture), self.genes
        free = [position for position, gene in enumerate(genes) if len(gene.values) > 1]
        position = free[rng.integers(len(free))]
        others = [value for value in genes[position].values if value != values[position]]
        values[position] = others[rng.integers(len(others))]
        return self.express(values)

    def neighbours(self, architecture: Architecture) -> list[Architecture]:
        """All architectures that differ in exactly one gene."""
        values = self.values(architecture)
        return [
            self.express([*values[:position], other, *values[position + 1 :]])
            for position, gene in enumerate(self.genes)
            for other in gene.values
            if other != values[position]
        ]

    def candidates(self, network: nn.Module) -> dict[str, tuple[str, int, int]]:
        """The name of each candidate operation's module in a supernet -> group, slot and option
        (index) that it is.
        """
        return {
            f"{name}.edges.{edge}.{option}": (
                cell.group.name,
                slot,
                cell.group.options.index(option),
            )
            for name, cell in network.named_modules()
            if isinstance(cell, MixedCell)
            for slot, (_, _, edge) in enumerate(cell.wiring)
            for option in cell.edges[edge]
        }

    # --- the space as linear rules, for a derivation under constraints

    def rules(self) -> list[Rule]:
        """What is valid, as equations: by default one option a slot."""
        return [
            Rule(group.name, [slot], range(len(group.options)), 1)
            for group in self.groups
            for slot in range(group.slots)
        ]

    def gains(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What each option adds to an architecture's score, such that :meth:`derive` maximises the
        sum over the chosen ones.
        """
        return dict(scores)

    def presence(self, group: str) -> Tensor:
        """For each slot of a group, how likely it is kept before anything is known of it: what
        expected costs are weighted by.
        """
        return torch.ones(next(g.slots for g in self.groups if g.name == group))

    def sums(self, group: str) -> list[list[int]]:
        """The slots whose outputs are added up, node by node: the edges into it. None where a space
        adds up nothing.
        """
        return []

    @abstractmethod
    def derive(self, scores: Mapping[str, Tensor]) -> Architecture:
        """The valid architecture of the highest ``scores`` (group -> [slots, options], higher is
        better), by the paper's rule.
        """

    @abstractmethod
    def encode(self, architecture: Architecture) -> str:
        """The architecture in the notation that papers print."""

    @abstractmethod
    def decode(self, text: str) -> Architecture:
        """The inverse of :meth:`encode`.

        Raises:
            UserError: the text is not in that notation or the architecture is not valid.
        """

    @abstractmethod
    def graph(self, architecture: Architecture) -> dict[str, list[tuple[str, str, str]]]:
        """For drawing: cell name -> edges (source node, target node, operation name)."""

    def validate(self, architecture: Architecture) -> Architecture:
        """Returns the architecture if it belongs to this space.

        Raises:
            UserError: it does not; the text says which group, slot or option is at fault.
        """
        if architecture.space != self.name:
            raise UserError(
                f"an architecture of the space {architecture.space!r} does not fit the space "
                f"{self.name!r}"
            )
        given = dict(architecture.choices)
        if list(given) != [group.name for group in self.groups]:
            raise UserError(
                f"{self.name} has the groups {[g.name for g in self.groups]}, not {list(given)}"
            )
        for group in self.groups:
            if len(given[group.name]) != group.slots:
                raise UserError(
                    f"{self.name}: group {group.name} has {group.slots} slots, not "
                    f"{len(given[group.name])}"
                )
            for slot, option in enumerate(given[group.name]):
                if option not in group.options:
                    raise UserError(
                        f"{self.name}: {group.name}[{slot}]: {unknown(option, group.options)}"
                    )
        return architecture

    def path(self, architecture: Architecture) -> dict[str, Choice]:
        """The mixture that runs exactly this architecture."""
        chosen = dict(architecture.choices)
        return {
            g.name: Choice.path([g.options.index(option) for option in chosen[g.name]])
            for g in self.groups
        }

    def share(self, architecture: Architecture, options: Collection[str]) -> float:
        """The share of an architecture's decisions that fell on one of ``options``; an edge left
        out by a rule is no decision.
        """
        dropped = ["none"] * sum(
            len(rule.slots) - rule.count for rule in self.rules() if len(rule.slots) > 1
        )
        chosen = Counter(
            option for _, options in architecture.choices for option in options
        ) - Counter(dropped)
        return sum(chosen[option] for option in options) / chosen.total()

    def inherited(
        self, state: Mapping[str, Tensor], standalone: nn.Module, architecture: Architecture
    ) -> dict[str, Tensor]:
        """The standalone network's state (``phase="search"``), cut out of a supernet's ``state``."""
        prefixes = {edge: f"{edge}{option}." for edge, option in operations_of(standalone).items()}
        result = {}
        for key in standalone.state_dict():
            prefix = next((p for p in prefixes if key.startswith(p)), "")
            result[key] = state[prefixes.get(prefix, "") + key.removeprefix(prefix)]
        return result

    def shared(
        self, state: Mapping[str, Tensor], operations: Mapping[str, str], network: nn.Module
    ) -> dict[str, Tensor]:
        """What ``network`` can take over from the ``state`` of another standalone network, whose
        edges run ``operations``.

        That is every tensor of the same name and shape, on the edges of cells only where the same
        edge of the same cell runs the same operation: two convolutions have BatchNorms of one
        shape, but these belong to other features.
        """
        other = tuple(
            edge
            for edge, option in operations_of(network).items()
            if operations.get(edge) != option
        )
        return {
            name: state[name]
            for name, own in network.state_dict().items()
            if name in state and state[name].shape == own.shape and not name.startswith(other)
        }


def operations_of(network: nn.Module) -> dict[str, str]:
    """What each edge of a standalone network's cells runs, by the prefix of its names in the
    network's state.
    """
    cells = [(name, module) for name, module in network.named_modules() if isinstance(module, Cell)]
    return {
        f"{name}.edges.{edge}.": option
        for name, cell in cells
        for edge, option in cell.operations.items()
    }
