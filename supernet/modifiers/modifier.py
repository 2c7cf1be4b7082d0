"""The interface of a modifier, and the sampler that applies modifiers to another sampler."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from supernet.bounds import Bounded
from supernet.cost.budget import Budget
from supernet.errors import UserError
from supernet.mixture import Choice, ChoiceGroup, Logits, Mixture
from supernet.randomness import Streams
from supernet.samplers.sampler import Loss, Sampler
from supernet.samplers.wrapper import Wrapper
from supernet.spaces.space import Space


class Modifier(Bounded):
    """Changes the results of any sampler. A subclass is a dataclass; its fields are its settings.
    It overrides the methods for the results that it changes.
    """

    # whether :meth:`applied` draws random numbers; :meth:`Modified.mean`, which has none, then
    # leaves it out
    draws = False

    @property
    def where(self) -> str:  # type: ignore[override]
        """The name of its settings: that of the option, which is the name of its module."""
        return f"modifier.{type(self).__module__.rpartition('.')[2]}"

    def begin(self, space: Space, streams: Streams) -> None:
        """Called once before the first step.

        Raises:
            UserError: the space has nothing to modify.
        """
        self.space, self.streams = space, streams

    def tables(self) -> dict[str, tuple[int, int]]:
        """The architecture parameters that the modifier needs: name -> shape. Each row is one
        distribution.
        """
        return {}

    def advance(self, logits: Logits, progress: float) -> None:
        """Called first in every step."""

    def seen(self, logits: Logits) -> Logits:
        """The logits as the sampler sees them, differentiable."""
        return logits

    def applied(
        self, mixture: Mixture, logits: Logits, progress: float, noise: torch.Generator
    ) -> Mixture:
        """The mixture, changed for both the step of the logits and the step of the weights.
        Differentiable.
        """
        return mixture

    def trained(self, mixture: Mixture, progress: float, loss: Loss) -> Mixture:
        """The mixture, changed for the step of the weights alone."""
        return mixture

    def penalty(self, logits: Logits, progress: float) -> Tensor:
        """The term that a gradient learner adds to the validation loss and the sampler's own
        penalty.
        """
        return torch.zeros(())

    def scored(self, scores: Logits, logits: Logits) -> Logits:
        """The scores that the derivation maximises, made from the sampler's ``scores``."""
        return scores

    def state_dict(self) -> dict[str, Any]:
        """The state for the checkpoint, besides the streams and the logits."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned."""


class Modified(Wrapper):
    """A sampler that contains ``sampler``, and changes its results by ``modifiers``, in
    this order.
    """

    def __init__(self, sampler: Sampler, modifiers: Sequence[Modifier]):
        self.samplers, self.modifiers = [sampler], list(modifiers)

    def begin(self, budget: Budget, streams: Streams, device: torch.device) -> None:
        super().begin(budget, streams, device)
        for modifier in self.modifiers:
            modifier.begin(self.space, streams)

    def tables(self) -> dict[str, tuple[int, int]]:
        tables = super().tables()
        for modifier in self.modifiers:
            tables |= modifier.tables()
        return tables

    def seen(self, logits: Logits, sampler: Sampler) -> Logits:
        for modifier in self.modifiers:
            logits = modifier.seen(logits)
        return self.own(logits, sampler)

    def applied(
        self, mixture: Mixture, logits: Logits, progress: float, noise: torch.Generator
    ) -> Mixture:
        """The mixture after all modifiers have changed it for both steps."""
        for modifier in self.modifiers:
            mixture = modifier.applied(mixture, logits, progress, noise)
        return mixture

    def advance(self, logits: Logits, progress: float) -> None:
        super().advance(logits, progress)
        for modifier in self.modifiers:
            modifier.advance(logits, progress)

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        changed = []
        for mixture in super().mixtures(logits, progress, loss):
            mixture = self.applied(mixture, logits, progress, self.streams.tensor("modifiers"))
            for modifier in self.modifiers:
                mixture = modifier.trained(mixture, progress, loss)
            changed.append(mixture)
        return changed

    def relaxation(self, logits: Logits, progress: float, noise: torch.Generator) -> Mixture:
        mixture = super().relaxation(logits, progress, noise)
        return self.applied(mixture, logits, progress, noise)

    def mean(self, logits: Logits, progress: float) -> Mixture:
        mixture, noise = super().mean(logits, progress), torch.Generator()
        for modifier in self.modifiers:
            if not modifier.draws:
                mixture = modifier.applied(mixture, logits, progress, noise)
        return mixture

    def penalty(self, logits: Logits, progress: float) -> Tensor:
        seen = self.seen(logits, self.leader)
        return super().penalty(logits, progress) + sum(
            modifier.penalty(seen, progress) for modifier in self.modifiers
        )

    def scores(self, logits: Logits) -> Logits:
        scores = super().scores(logits)
        for modifier in self.modifiers:
            scores = modifier.scored(scores, logits)
        return scores

    def state_dict(self) -> dict[str, Any]:
        modifiers = [modifier.state_dict() for modifier in self.modifiers]
        return super().state_dict() | {"modifiers": modifiers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for modifier, saved in zip(self.modifiers, state["modifiers"], strict=True):
            modifier.load_state_dict(saved)


def weights_of(choice: Choice, group: ChoiceGroup, like: Tensor | None = None) -> Tensor:
    """The weights of a choice [slots, options]; the weight of an option that does not run is zero.

    A path has no weights: its options get the weight one, as a tensor like ``like``.
    """
    runs = torch.tensor(
        [[option in slot for option in range(len(group.options))] for slot in choice.active]
    )
    if choice.weights is not None:
        return torch.where(runs.to(choice.weights.device), choice.weights, 0.0)
    return runs.to(torch.get_default_dtype()) if like is None else runs.to(like)


def skips(space: Space, modifier: str) -> dict[str, int]:
    """Group -> index of its skip option, for each group that has one.

    Raises:
        UserError: no group has a skip option.
    """
    found = {
        group.name: group.options.index(group.skip)
        for group in space.groups
        if group.skip is not None
    }
    if not found:
        raise UserError(
            f"modifier={modifier}: the space {space.name} has no skip option; leave this modifier "
            "out"
        )
    return found
