"""The values that all other modules use: choice groups, mixtures and architectures.

A *supernet* is one network that holds many architectures. At some places in it, a decision must be
made between several *options*; on an edge of a cell, for example, between a convolution, a pooling
and a skip connection. The supernet holds all options of each decision.

A *choice group* is a table of decisions that have the same options. Each decision is one *slot* of
its group.

A *mixture* says what the supernet computes in one forward pass. For every slot of every group it
says which options run, and by which weight the output of each is multiplied before the outputs are
added. In DARTS all options of every slot run, each with its weight. In a *path* exactly one option
of every slot runs, so that the supernet computes one architecture. Everything between is possible.

The weights of a mixture come from the *logits* (alpha in papers): one number for each option of
each slot, which a gradient method learns.

An *architecture* names one option for every slot. It is a value that can be hashed, compared and
written as JSON.

Nothing here trains a network or reads a file.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from supernet.errors import UserError

# The architecture parameters (alpha in papers): name of a group -> [slots, options]
Logits = dict[str, Tensor]


@dataclass(frozen=True)
class ChoiceGroup:
    """``slots`` decisions that have the same ``options``. In NAS-Bench-201, for example, the group
    ``edges`` has 6 slots of 5 options.

    Only the space knows what its options do. All other modules use these three fields: ``skip`` is
    the option that returns its input unchanged; ``nothing`` is the option that returns zeros and
    costs nothing (both are ``None`` if there is no such option); ``parameter_free`` are the options
    that have no parameters.
    """

    name: str
    slots: int
    options: tuple[str, ...]
    skip: str | None = None
    nothing: str | None = None
    parameter_free: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of a table of logits or weights: (slots, options)."""
        return self.slots, len(self.options)


@dataclass(frozen=True)
class Choice:
    """The part of a mixture that belongs to one choice group: what runs in each of its slots.

    ``active[slot]`` holds the indices of the options that run in a slot. The other options are not
    computed at all. ``weights``, a table ``[slots, options]``, holds the factor of each option's
    output; ``None`` means that all factors are 1.

    ``active`` is known on the host, so that no step waits for the device. ``weights`` is a tensor,
    so that gradients flow back to the logits.
    """

    active: tuple[tuple[int, ...], ...]
    weights: Tensor | None = None

    @classmethod
    def dense(cls, weights: Tensor) -> "Choice":
        """All options of every slot run, multiplied by ``weights`` ``[slots, options]``."""
        slots, options = weights.shape
        return cls((tuple(range(options)),) * slots, weights)

    @classmethod
    def path(cls, options: Sequence[int]) -> "Choice":
        """One option runs in each slot, with the factor 1. ``options`` holds its index by slot."""
        return cls(tuple((option,) for option in options))


# What a supernet computes in one forward pass (see above): name of a group -> what runs in it
Mixture = Mapping[str, Choice]


@dataclass(frozen=True)
class Architecture:
    """One option for every slot of every group of a space.

    ``space`` is the name of the space. ``choices`` holds, for each group, a pair: the name of the
    group and the names of the chosen options, slot by slot.
    """

    space: str
    choices: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def of(cls, space: str, **choices: Sequence[str]) -> "Architecture":
        """An architecture of ``space``; each keyword is a group, its value the chosen options."""
        return cls(space, tuple((name, tuple(options)) for name, options in choices.items()))

    def __getitem__(self, group: str) -> tuple[str, ...]:
        """The chosen options of a group, slot by slot."""
        return dict(self.choices)[group]

    def to_dict(self) -> dict[str, Any]:
        """The architecture as a value that JSON can hold."""
        return {
            "space": self.space,
            "choices": {name: list(options) for name, options in self.choices},
        }

    def to_json(self) -> str:
        """The architecture as one line of JSON."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Architecture":
        """The inverse of :meth:`to_dict`. Keys other than "space" and "choices" are ignored.

        Raises:
            UserError: the value does not have this form.
        """
        try:
            space, choices = value["space"], value["choices"]
            if not isinstance(space, str) or not all(
                isinstance(o, str) for options in choices.values() for o in options
            ):
                raise TypeError
            return cls.of(space, **choices)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                'not an architecture: expected {"space": NAME, "choices": {GROUP: [OPTION, ...]}}, '
                f"got {str(value)[:80]!r}"
            ) from error

    @classmethod
    def from_json(cls, text: str) -> "Architecture":
        """The inverse of :meth:`to_json`.

        Raises:
            UserError: the text is not JSON, or its value does not have the form of an architecture.
        """
        try:
            return cls.from_dict(json.loads(text))
        except json.JSONDecodeError as error:
            raise UserError(
                f"not an architecture: invalid JSON ({error}) in {text[:80]!r}"
            ) from error


def softmax_mixture(logits: Logits) -> dict[str, Choice]:
    """The continuous relaxation of DARTS (Liu et al. 2019, eq. 2): all options of every slot run,
    with the softmax of the slot's logits as their weights.
    """
    return {name: Choice.dense(torch.softmax(table, dim=-1)) for name, table in logits.items()}


def detached(mixture: Mixture) -> dict[str, Choice]:
    """The same mixture with weights that do not require grad."""
    return {
        name: Choice(choice.active, None if choice.weights is None else choice.weights.detach())
        for name, choice in mixture.items()
    }
