"""The interface of a search space: its decisions, which architectures are valid, how to build its
networks, and how to write its architectures.

Nothing here knows what the networks look like. Cells, with their operations and geometry, are in
:mod:`supernet.spaces.cells`. Abilities that only some spaces have are in
:mod:`supernet.spaces.capabilities`.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from supernet.bounds import Bounded
from supernet.errors import UserError, unknown
from supernet.files import read_json
from supernet.mixture import Architecture, Choice, ChoiceGroup
from supernet.task import Task

# Networks have two forms. "search" is the form of the supernet, "evaluation" the form of the
# networks that are retrained. A space may build the two forms in different sizes.
Form = Literal["search", "evaluation"]


@dataclass(frozen=True)
class Gene:
    """One decision of an architecture, with the values that it can take."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Rule:
    """In these ``slots`` of ``group``, exactly ``count`` of ``options`` (indices) are chosen."""

    group: str
    slots: Sequence[int]
    options: Sequence[int]
    count: int


class Size(NamedTuple):
    """How large a part of a network is: its name, the setting that changes it, its value, and the
    value in the paper (``None`` if no paper has one).
    """

    name: str
    setting: str
    value: float
    full: float | None


class Space(Bounded, ABC):
    """A search space. A subclass is a dataclass whose fields are its settings.

    A subclass defines :attr:`name` and :attr:`groups`, builds the networks, and derives
    architectures. The methods that are not abstract are correct for a space in which each slot may
    have any of its options, independently of the other slots.

    Attributes:
        name: the name of the space in architectures and messages.
        groups: the choice groups. Decisions that have the same options are one group.
        hand_made: the architecture that people made before there was a search, in the notation of
            the space; ``None`` if there is none.
        limited: whether its parameters and multiply-adds can be limited though the space is not
            :class:`~supernet.spaces.capabilities.Costed`: each network is counted.
    """

    where = "space"
    hand_made: ClassVar[str | None] = None
    limited: ClassVar[bool] = False

    name: str
    groups: tuple[ChoiceGroup, ...]

    # --- networks

    @abstractmethod
    def supernet(self, task: Task, form: Form = "search") -> nn.Module:
        """A fresh supernet for ``task``: ``forward(inputs, mixture) -> outputs``."""

    @abstractmethod
    def standalone(
        self, architecture: Architecture, task: Task, form: Form = "evaluation"
    ) -> nn.Module:
        """A fresh network that has the chosen operations only. It is called as ``forward(inputs) ->
        outputs``.

        It is plain torch and holds no part of the search. In the form "search" it can take the
        weights of the supernet (:meth:`inherit`). Export needs an attribute ``settings``: the
        arguments that build the network again. A network may have a second head for training only,
        as an attribute ``auxiliary``; then it has a method ``forward_with_auxiliary``.

        Raises:
            UserError: the architecture does not belong to this space, or there is no such network.
        """

    @abstractmethod
    def inherit(self, supernet: nn.Module, architecture: Architecture) -> nn.Module:
        """The standalone network in the form "search", on the CPU, with its weights from
        ``supernet``. It computes what the supernet computes on the path of the architecture.

        Raises:
            UserError: the architecture does not belong to this space, or :meth:`require_inherit`
                raises.
        """

    def require_inherit(self) -> None:
        """Raises a UserError if no standalone network can have the supernet's weights."""

    def taken_over(
        self,
        state: Mapping[str, Tensor],
        of: Architecture,
        network: nn.Module,
        architecture: Architecture,
    ) -> dict[str, Tensor]:
        """The tensors that ``network`` can take over from another network. ``network`` is the
        standalone of ``architecture``; ``state`` is the state of a standalone of the architecture
        ``of``.

        These are all tensors of the same name and shape, but for those that :meth:`changed` names.
        """
        changed = self.changed(state, of, network, architecture)
        return {
            name: state[name]
            for name, own in network.state_dict().items()
            if name in state and state[name].shape == own.shape and not name.startswith(changed)
        }

    def changed(
        self,
        state: Mapping[str, Tensor],
        of: Architecture,
        network: nn.Module,
        architecture: Architecture,
    ) -> tuple[str, ...]:
        """With what the names of those tensors begin that belong to other features in the other
        network, though they may have the same name and shape. The arguments are those of
        :meth:`taken_over`. By default there are none.
        """
        return ()

    def network_settings(self, form: Form) -> dict[str, Any]:
        """The settings that the networks of a form depend on; by default all settings. Two networks
        with the same settings have weights of the same names and shapes.
        """
        return dataclasses.asdict(cast(Any, self))

    def sizes(self, form: Form) -> Sequence[Size]:
        """How large the networks of a form are. The report compares these with the paper."""
        return ()

    def faults(self, task: Task, batch: int) -> Iterator[str]:
        """Yields what is wrong with the networks, one line each, if they are trained on ``batch``
        inputs of the task at once. It is looked for before anything is trained. By default nothing
        is looked for.
        """
        yield from ()

    def notes(self) -> Iterator[str]:
        """Yields what a check of the space prints beside its size, one line each."""
        yield from ()

    # --- the space as a set: genes are independent, and all combinations of values are valid

    @property
    def genes(self) -> tuple[Gene, ...]:
        """The space as independent decisions. Each combination of one value for each gene is
        exactly one valid architecture, and each architecture is exactly one such combination.
        """
        return tuple(
            Gene(f"{group.name}/{slot}", group.options)
            for group in self.groups
            for slot in range(group.slots)
        )

    def express(self, values: Sequence[Any]) -> Architecture:
        """The architecture that has these values of the genes."""
        rows, given = {}, list(values)
        for group in self.groups:
            rows[group.name], given = given[: group.slots], given[group.slots :]
        return Architecture.of(self.name, **rows)

    def values(self, architecture: Architecture) -> list[Any]:
        """The inverse of :meth:`express`."""
        return [option for _, options in architecture.choices for option in options]

    def canonical(self, architecture: Architecture) -> Architecture:
        """The architecture that stands for all architectures that compute the same function as the
        given one.

        By default this is the given architecture.
        """
        return architecture

    def random(self, rng: np.random.Generator) -> Architecture:
        """A valid architecture, drawn uniformly."""
        return self.express([gene.values[rng.integers(len(gene.values))] for gene in self.genes])

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """The architecture with another value of one gene. The gene and the value are drawn
        uniformly.
        """
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

    # --- the space as linear rules, for a derivation under constraints

    def rules(self) -> list[Rule]:
        """The valid architectures, described by equations. By default each slot has one option."""
        return [
            Rule(group.name, [slot], range(len(group.options)), 1)
            for group in self.groups
            for slot in range(group.slots)
        ]

    def gains(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The amount that each option adds to the score of an architecture. :meth:`derive`
        maximises the sum over the chosen options.
        """
        return dict(scores)

    def presence(self, group: str) -> Tensor:
        """The probability that each slot of a group is kept, before anything is learnt. Expected
        costs are weighted by it.
        """
        return torch.ones(next(g.slots for g in self.groups if g.name == group))

    def sums(self, group: str) -> list[list[int]]:
        """The slots whose outputs are added, one list for each sum. In a cell, a sum is a node, and
        its slots are the edges into that node. The list is empty if the space adds nothing.
        """
        return []

    def derive(self, scores: Mapping[str, Tensor]) -> Architecture:
        """The valid architecture with the highest ``scores`` (group -> [slots, options], higher is
        better), by the rule of the space's paper. By default it takes the best option of each slot.
        """
        return Architecture.of(
            self.name,
            **{
                group.name: [group.options[i] for i in scores[group.name].argmax(dim=-1).tolist()]
                for group in self.groups
            },
        )

    # --- notations

    def encode(self, architecture: Architecture) -> str:
        """The architecture in the notation of papers. By default this is ``group=option,option
        group=option``.
        """
        return " ".join(f"{name}={','.join(options)}" for name, options in architecture.choices)

    def decode(self, text: str) -> Architecture:
        """The inverse of :meth:`encode`.

        Raises:
            UserError: the text is not in that notation, or the architecture is not valid.
        """
        pairs = [word.partition("=") for word in text.split()]
        if [name for name, _, _ in pairs] != [group.name for group in self.groups]:
            example = " ".join(
                f"{g.name}={','.join([g.options[0]] * g.slots)}" for g in self.groups
            )
            raise UserError(
                f"not an architecture of the space {self.name}: {text[:120]!r}; expected the form "
                f"of {example}"
            )
        return self.validate(
            Architecture.of(self.name, **{name: options.split(",") for name, _, options in pairs})
        )

    def validate(self, architecture: Architecture) -> Architecture:
        """Returns the architecture if it belongs to this space.

        Raises:
            UserError: it does not. The message names the group, slot or option that is wrong.
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

    def share(self, architecture: Architecture, options: Mapping[str, Collection[str]]) -> float:
        """The share of an architecture's decisions that chose one of ``options`` (group -> names).

        A rule may say how many of several slots are kept. Then the option "nothing" in the other
        slots follows from the rule, and is not counted as a decision.
        """
        found = decisions = 0
        for group in self.groups:
            left_out = sum(
                len(rule.slots) - rule.count
                for rule in self.rules()
                if rule.group == group.name and len(rule.slots) > 1
            )
            wanted = options.get(group.name, ())
            found += sum(option in wanted for option in architecture[group.name])
            found -= left_out if group.nothing in wanted else 0
            decisions += group.slots - left_out
        return found / decisions


def set_recompute(supernet: nn.Module, recompute: bool = True) -> None:
    """Sets whether a supernet computes cheap activations again in the backward pass, and does not
    keep them. The bits are the same; it takes less memory and more time.

    It applies to every module that has an attribute ``recompute``. A module that can recompute has
    this attribute.
    """
    for module in supernet.modules():
        if hasattr(module, "recompute"):
            module.recompute = recompute  # type: ignore[assignment]


def images_of(task: Task) -> tuple[int, int]:
    """The number of classes and the number of channels of an image.

    Raises:
        UserError: the inputs of the task are not images.
    """
    if len(task.input_shape) != 3:
        raise UserError(
            f"the space reads images (channels, height, width), not inputs of shape "
            f"{task.input_shape}; choose another space or other data"
        )
    return task.outputs, task.input_shape[0]


def read_architecture(space: Space, text: str) -> Architecture:
    """Reads an architecture: the space's own notation, JSON, or the path of a JSON file."""
    text = text.strip()
    if text.startswith("{"):
        return space.validate(Architecture.from_json(text))
    if text.endswith(".json"):
        return space.validate(Architecture.from_dict(read_json(Path(text))))
    return space.decode(text)
