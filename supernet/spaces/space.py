"""What a search space is: its choice groups, what is valid, how to build its networks, how to write its architectures."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from supernet.errors import UserError, unknown
from supernet.mixture import Architecture, Choice, ChoiceGroup
from supernet.spaces.cell import Cell


@dataclass
class Geometry:
    """How large a network of the space is: ``channels`` of the first cell and number of ``cells`` (each space says which)."""

    channels: int
    cells: int

    def __post_init__(self):
        if self.channels < 2 or self.channels % 2:
            raise UserError(f"channels={self.channels}: must be even and at least 2; choose for example channels=16")
        if self.cells < 1:
            raise UserError(f"cells={self.cells}: must be at least 1")


@dataclass
class Space(ABC):
    """A search space. ``search`` is the supernet's geometry, ``evaluation`` that of the network which is retrained."""

    search: Geometry
    evaluation: Geometry

    name: ClassVar[str]
    groups: ClassVar[tuple[ChoiceGroup, ...]]

    @abstractmethod
    def supernet(self, classes: int, in_channels: int) -> nn.Module:
        """A fresh supernet of the search geometry: ``forward(x [B,C,H,W], mixture) -> logits [B, classes]``."""

    @abstractmethod
    def standalone(self, architecture: Architecture, classes: int, in_channels: int, phase: str = "evaluation") -> nn.Module:
        """A fresh plain network of the chosen operations alone: ``forward(x) -> logits``.

        ``phase`` "evaluation" has the evaluation geometry, for retraining; "search" has the form that subnets of the supernet have,
        so that it can take inherited weights.
        """

    @abstractmethod
    def random(self, rng: np.random.Generator) -> Architecture:
        """A valid architecture, drawn uniformly."""

    @abstractmethod
    def derive(self, scores: Mapping[str, Tensor]) -> Architecture:
        """The valid architecture of the highest ``scores`` (group -> [slots, options], higher is better), by the paper's rule."""

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
            raise UserError(f"an architecture of the space {architecture.space!r} does not fit the space {self.name!r}")
        given = dict(architecture.choices)
        if list(given) != [group.name for group in self.groups]:
            raise UserError(f"{self.name} has the groups {[g.name for g in self.groups]}, not {list(given)}")
        for group in self.groups:
            if len(given[group.name]) != group.slots:
                raise UserError(f"{self.name}: group {group.name} has {group.slots} slots, not {len(given[group.name])}")
            for slot, option in enumerate(given[group.name]):
                if option not in group.options:
                    raise UserError(f"{self.name}: {group.name}[{slot}]: {unknown(option, group.options)}")
        return architecture

    def path(self, architecture: Architecture) -> dict[str, Choice]:
        """The mixture that runs exactly this architecture."""
        chosen = dict(architecture.choices)
        return {g.name: Choice.path([g.options.index(option) for option in chosen[g.name]]) for g in self.groups}

    def inherited(self, state: Mapping[str, Tensor], standalone: nn.Module, architecture: Architecture) -> dict[str, Tensor]:
        """The standalone network's state (``phase="search"``), cut out of a supernet's ``state``."""
        prefixes = {}  # a standalone edge's prefix -> the supernet's prefix of the chosen option on that edge
        for name, module in standalone.named_modules():
            if isinstance(module, Cell):
                for edge, option in module.operations.items():
                    prefixes[f"{name}.edges.{edge}."] = f"{name}.edges.{edge}.{option}."
        result = {}
        for key in standalone.state_dict():
            prefix = next((p for p in prefixes if key.startswith(p)), "")
            result[key] = state[prefixes.get(prefix, "") + key.removeprefix(prefix)]
        return result
