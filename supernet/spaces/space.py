"""What a search space is: its decisions, what is valid, how to build its networks, and how to write
its architectures.

Nothing here knows what the networks look like. Cells, with their operations and geometry, are in
:mod:`supernet.spaces.cells`; what only some spaces can do is in
:mod:`supernet.spaces.capabilities`.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from supernet.errors import UserError, unknown
from supernet.mixture import Architecture, Choice, ChoiceGroup
from supernet.task import Task

# Networks come in two forms: "search" is that of the supernet, "evaluation" that of the networks
# which are retrained. A space may make them of different sizes.
Form = Literal["search", "evaluation"]


@dataclass(frozen=True)
class Gene:
    """One decision of an architecture, with the values that it can take."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Rule:
    """Exactly ``count`` of these ``options`` (indices) are chosen in these ``slots`` of ``group``."""

    group: str
    slots: Sequence[int]
    options: Sequence[int]
    count: int


class Size(NamedTuple):
    """How large one thing is: its name, the setting that says so, its value, and the paper's value
    (``None`` where no paper has one).
    """

    name: str
    setting: str
    value: float
    full: float | None


class Space(ABC):
    """A search space. A subclass is a dataclass whose fields are its settings.

    It says :attr:`name` and :attr:`groups`, builds the networks, and derives architectures. The
    methods that are not abstract are right for a space in which every slot may have any of its
    options, whatever the others have.

    Attributes:
        name: what architectures and messages call the space.
        groups: the decisions, in tables of those that have the same options.
    """

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
        """A fresh network of the chosen operations alone: ``forward(inputs) -> outputs``.

        It is plain torch, without a trace of the search. In the form "search" it can take the
        supernet's weights (:meth:`inherit`). To be exported it needs an attribute ``settings``, the
        arguments that build it again. A second head for training alone is its attribute
        ``auxiliary``; then it has a method ``forward_with_auxiliary``.

        Raises:
            UserError: the architecture is not of this space, or there is no such network.
        """

    @abstractmethod
    def inherit(self, supernet: nn.Module, architecture: Architecture) -> nn.Module:
        """The standalone network in the form "search", on the CPU, with the weights that
        ``supernet`` has for it: it computes what the supernet computes on the architecture's path.

        Raises:
            UserError: the architecture is not of this space, or :meth:`require_inherit` fails.
        """

    def require_inherit(self) -> None:  # noqa: B027 - most spaces have nothing to check
        """Raises a UserError if no standalone network can have the supernet's weights."""

    def taken_over(
        self,
        state: Mapping[str, Tensor],
        of: Architecture,
        network: nn.Module,
        architecture: Architecture,
    ) -> dict[str, Tensor]:
        """The tensors that ``network``, the standalone of ``architecture``, can take over from
        ``state``, that of a standalone network of the architecture ``of``.

        By default, all tensors of the same name and shape.
        """
        return {
            name: state[name]
            for name, own in network.state_dict().items()
            if name in state and state[name].shape == own.shape
        }

    def settings(self, form: Form) -> dict[str, Any]:
        """The settings that the networks of a form depend on: networks of equal ones have weights
        of the same names and shapes. By default all.
        """
        return dataclasses.asdict(cast(Any, self))

    def sizes(self, form: Form) -> Sequence[Size]:
        """How large the networks of a form are, for the report to compare with the paper's."""
        return ()

    # --- the space as a set: independent genes, any combination of which is one valid architecture

    @property
    def genes(self) -> tuple[Gene, ...]:
        """The decisions as independent ones. Every choice of one value for each gene is a valid
        architecture, and each architecture is one such choice.
        """
        return tuple(
            Gene(f"{group.name}/{slot}", group.options)
            for group in self.groups
            for slot in range(group.slots)
        )

    def express(self, values: Sequence[Any]) -> Architecture:
        """The architecture of one value for each gene."""
        rows, given = {}, list(values)
        for group in self.groups:
            rows[group.name], given = given[: group.slots], given[group.slots :]
        return Architecture.of(self.name, **rows)

    def values(self, architecture: Architecture) -> list[Any]:
        """The inverse of :meth:`express`."""
        return [option for _, options in architecture.choices for option in options]

    def canonical(self, architecture: Architecture) -> Architecture:
        """The one architecture that stands for all that compute the same function as the given one.

        By default the architecture itself.
        """
        return architecture

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

    # --- the space as linear rules, for a derivation under constraints

    def rules(self) -> list[Rule]:
        """What is valid, as equations: by default one option for each slot."""
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
        """The slots whose outputs are added up, sum by sum: in a cell, the edges into each node. It
        is empty where a space adds up nothing.
        """
        return []

    def derive(self, scores: Mapping[str, Tensor]) -> Architecture:
        """The valid architecture of the highest ``scores`` (group -> [slots, options], higher is
        better), by the paper's rule; by default the best option of each slot.
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
        """The architecture in the notation that papers print; by default ``group=option,option
        group=option``.
        """
        return " ".join(f"{name}={','.join(options)}" for name, options in architecture.choices)

    def decode(self, text: str) -> Architecture:
        """The inverse of :meth:`encode`.

        Raises:
            UserError: the text is not in that notation or the architecture is not valid.
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

    def share(self, architecture: Architecture, options: Mapping[str, Collection[str]]) -> float:
        """The share of an architecture's decisions that fell on one of ``options`` (group ->
        names).

        Where a rule says how many of several slots are kept, "nothing" in the others follows from
        the rule and is no decision.
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
    """Whether a supernet computes cheap activations again in backward instead of keeping them: the
    same bits in less memory and more time.

    It holds for every module that has an attribute ``recompute``, which a module sets if it is able
    to do so.
    """
    for module in supernet.modules():
        if hasattr(module, "recompute"):
            module.recompute = recompute
