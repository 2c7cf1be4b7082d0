"""What an instrument is, and what it sees."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from supernet.cost.budget import Budget
from supernet.evaluate.accuracy import Judgement, inherited_accuracy
from supernet.instruments.curvature import dominant_eigenvalue
from supernet.mixture import Architecture, Logits, Mixture, detached
from supernet.spaces.space import Space

Batch = tuple[Tensor, Tensor]  # images [B, C, H, W] and labels [B]


@dataclass
class Snapshot:
    """A search at the end of an epoch. What is dear is computed when somebody asks for it, and then
    once.

    ``mixture`` is the one without chance (:meth:`~supernet.samplers.sampler.Sampler.mean`),
    differentiable in the logits; the images are always the same: ``validation`` those of the
    architecture split, ``calibration`` those of the weight split.
    """

    space: Space
    budget: Budget
    supernet: nn.Module
    logits: Logits
    scores: Logits  # on the CPU
    mixture: Callable[[Logits], Mixture]
    loss: Callable[[Tensor, Tensor], Tensor]  # of outputs and labels
    validation: Sequence[Batch]
    calibration: Sequence[Tensor]
    epoch: int  # that many are over
    start: torch.Generator  # always in the same state: where the power iteration sets out

    @cached_property
    def derived(self) -> Architecture:
        """What would be derived now."""
        return self.budget.best(self.scores)

    @cached_property
    def eigenvalue(self) -> float:
        """The largest eigenvalue of the validation loss's Hessian in the logits, on the first
        batch.
        """
        return dominant_eigenvalue(
            self.supernet, self.logits, self.mixture, self.loss, self.validation[:1], self.start
        )

    def judged(self, mixture: Mixture) -> Judgement:
        """A mixture by the weights of now, with BatchNorm statistics of its own."""
        return inherited_accuracy(
            self.supernet,
            detached(mixture),
            self.validation,
            self.budget.task,
            self.calibration,
        )


class Instrument:
    """Measures something of a search and leaves it as it was."""

    # whether a reading costs more than a step or two: then it is taken every ``instruments.every``
    # epochs
    dear = False

    def begin(self, space: Space, supernet: nn.Module) -> None:
        """Called once before the first step."""
        self.space, self.supernet = space, supernet

    def step(self, gradient: Logits | None) -> None:
        """Called in every step, when the weights have their gradients and have not moved yet.

        ``gradient`` is the one that the logits have just followed, if they did.
        """

    def read(self, snapshot: Snapshot) -> dict[str, float]:
        """Figures for the log at the end of an epoch; a mean over the steps begins anew."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict` gave."""
