"""The values that all other modules use: choice groups, mixtures, architectures. No training, no
files.

A *decision* is a place in a network where one of several *options* must be chosen, such as the
operation of an edge. A *choice group* is a table of decisions that have the same options; a
decision is one *slot* of its group. A *mixture* says, for one forward pass of a supernet, which
options run in every slot, and how much of each: all options by weight (DARTS), one option (then the
mixture is a *path*), or some of them. An *architecture* names one option for every slot. It is a
value that can be hashed, compared and written as JSON.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from supernet.errors import UserError

# The architecture parameters (alpha in papers): group name -> [slots, options]
Logits = dict[str, Tensor]


@dataclass(frozen=True)
class ChoiceGroup:
    """``slots`` decisions that share the same ``options``: in NAS-Bench-201, ``edges`` has 6 slots
    of 5 options.

    ``skip`` is the name of the option that hands on its input as it is, ``nothing`` that of the
    option that gives nothing and costs nothing; ``None`` where there is no such option.
    ``parameter_free`` are the options without parameters of their own. Only the space knows what
    its options are; all others go by these.
    """

    name: str
    slots: int
    options: tuple[str, ...]
    skip: str | None = None
    nothing: str | None = None
    parameter_free: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        return self.slots, len(self.options)


@dataclass(frozen=True)
class Choice:
    """What to run in each slot of one group.

    ``active[slot]`` names the options (by index) that run there; the others are not computed at
    all. ``weights``, a table ``[slots, options]``, scales each option's output; ``None`` means one.
    Which options run is known on the host, so that no step waits for a device; how much of each is
    a tensor, so that gradients reach the logits.
    """

    active: tuple[tuple[int, ...], ...]
    weights: Tensor | None = None

    @classmethod
    def dense(cls, weights: Tensor) -> "Choice":
        """Every option of every slot, scaled by ``weights`` ``[slots, options]``."""
        slots, options = weights.shape
        return cls((tuple(range(options)),) * slots, weights)

    @classmethod
    def path(cls, options: Sequence[int]) -> "Choice":
        """Exactly one option a slot, unscaled."""
        return cls(tuple((option,) for option in options))


Mixture = Mapping[str, Choice]  # group name -> what to run there


@dataclass(frozen=True)
class Architecture:
    """One option for every slot of every group: ``choices`` holds pairs of a group's name and its
    option names, slot by slot.
    """

    space: str
    choices: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def of(cls, space: str, **choices: Sequence[str]) -> "Architecture":
        return cls(space, tuple((name, tuple(options)) for name, options in choices.items()))

    def __getitem__(self, group: str) -> tuple[str, ...]:
        return dict(self.choices)[group]

    def to_dict(self) -> dict[str, Any]:
        return {
            "space": self.space,
            "choices": {name: list(options) for name, options in self.choices},
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Architecture":
        """The inverse of :meth:`to_dict`; keys beyond those two are ignored.

        Raises:
            UserError: the value is not of that form.
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
        try:
            return cls.from_dict(json.loads(text))
        except json.JSONDecodeError as error:
            raise UserError(
                f"not an architecture: invalid JSON ({error}) in {text[:80]!r}"
            ) from error


def softmax_mixture(logits: Logits) -> dict[str, Choice]:
    """The continuous relaxation of DARTS (Liu et al. 2019, eq. 2): every option, weighted by the
    softmax of its slot's logits.
    """
    return {name: Choice.dense(torch.softmax(table, dim=-1)) for name, table in logits.items()}


def detached(mixture: Mixture) -> dict[str, Choice]:
    """The same mixture with weights that do not require grad."""
    return {
        name: Choice(choice.active, None if choice.weights is None else choice.weights.detach())
        for name, choice in mixture.items()
    }
