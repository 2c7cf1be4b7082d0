"""What samplers that contain other samplers have in common."""

from typing import Any

import torch
from torch import Tensor

from supernet.cost.budget import Budget
from supernet.mixture import Logits, Mixture
from supernet.randomness import Streams
from supernet.samplers.sampler import Loss, Sampler


class Wrapper(Sampler):
    """A sampler that contains other :attr:`samplers` and forwards every call to one of them.

    In this class the first sampler answers all calls. A subclass chooses the sampler that answers,
    and changes those answers that it wants to change. All samplers begin, and the states of all
    samplers are saved.
    """

    samplers: list[Sampler]

    def led(self, progress: float) -> tuple[Sampler, float]:
        """The sampler that leads the step at ``progress`` (the share of the search that is over),
        and the progress to give to it. From then on, this sampler is the :attr:`leader`.
        """
        return self.leader, progress

    @property
    def leader(self) -> Sampler:
        """The sampler that leads the current step."""
        return self.samplers[0]

    def measured(self, progress: float) -> tuple[Sampler, float]:
        """The sampler whose mean mixture stands for the search at ``progress``, and the progress to
        give to it. This depends on no random draw and changes no state.
        """
        return self.leader, progress

    @property
    def scorer(self) -> Sampler:
        """The sampler that gives the scores for the derivation."""
        return self.leader

    def own(self, logits: Logits, sampler: Sampler) -> Logits:
        """The tables of ``logits`` that ``sampler`` knows: those of the space's groups and
        its own.
        """
        known = [*(group.name for group in self.space.groups), *sampler.tables()]
        return {name: logits[name] for name in known if name in logits}

    def seen(self, logits: Logits, sampler: Sampler) -> Logits:
        """The logits as ``sampler`` sees them, differentiable."""
        return self.own(logits, sampler)

    @property
    def distils(self) -> bool:
        return self.leader.distils

    @property
    def scores_from(self) -> str:
        return self.scorer.scores_from

    def begin(self, budget: Budget, streams: Streams, device: torch.device) -> None:
        super().begin(budget, streams, device)
        for sampler in self.samplers:
            sampler.begin(budget, streams, device)

    def tables(self) -> dict[str, tuple[int, int]]:
        return {
            name: shape for sampler in self.samplers for name, shape in sampler.tables().items()
        }

    def advance(self, logits: Logits, progress: float) -> None:
        sampler, given = self.led(progress)
        sampler.advance(self.seen(logits, sampler), given)

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        sampler, given = self.led(progress)
        return sampler.mixtures(self.seen(logits, sampler), given, loss)

    def relaxation(self, logits: Logits, progress: float, noise: torch.Generator) -> Mixture:
        sampler, given = self.led(progress)
        return sampler.relaxation(self.seen(logits, sampler), given, noise)

    def probabilities(self, logits: Logits) -> Logits:
        return self.leader.probabilities(self.seen(logits, self.leader))

    def mean(self, logits: Logits, progress: float) -> Mixture:
        sampler, given = self.measured(progress)
        return sampler.mean(self.seen(logits, sampler), given)

    def penalty(self, logits: Logits, progress: float) -> Tensor:
        sampler, given = self.led(progress)
        return sampler.penalty(self.seen(logits, sampler), given)

    def settle(self, logits: Logits, before: Logits) -> None:
        self.leader.settle(self.own(logits, self.leader), self.own(before, self.leader))

    def scores(self, logits: Logits) -> Logits:
        return self.scorer.scores(self.seen(logits, self.scorer))

    def state_dict(self) -> dict[str, Any]:
        return {"samplers": [sampler.state_dict() for sampler in self.samplers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for sampler, saved in zip(self.samplers, state["samplers"], strict=True):
            sampler.load_state_dict(saved)
