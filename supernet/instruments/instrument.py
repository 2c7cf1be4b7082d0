"""The interface of an instrument, and what an instrument sees of a search."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

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
    """A search at the end of an epoch. Expensive results are computed when they are first needed,
    and only once.

    ``mixture`` is the one without random draws (:meth:`~supernet.samplers.sampler.Sampler.mean`),
    differentiable in the logits. The images are always the same: ``validation`` holds some of the
    architecture split, ``calibration`` some of the weight split.
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
    epoch: int  # how many epochs are over
    start: torch.Generator  # draws the first vector of the iteration; always in the same state

    @cached_property
    def derived(self) -> Architecture:
        """The architecture that would be derived now."""
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
        """The accuracy of a mixture with the current weights and BatchNorm statistics of
        its own.
        """
        return inherited_accuracy(
            self.supernet,
            detached(mixture),
            self.validation,
            self.budget.task,
            self.calibration,
        )


class Instrument:
    """Measures a search and does not change it. A subclass is a dataclass; its fields are its
    settings.

    Three class attributes describe its figures for the report: the :attr:`title` above their
    curves, their :attr:`meaning` (what to look for), and the :attr:`prefixes` with which their
    names begin.
    """

    title: ClassVar[str]
    meaning: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]]
    # whether a reading takes longer than a step or two; if so, it is taken only every
    # ``measure.every`` epochs
    expensive: ClassVar[bool] = False

    def begin(self, space: Space, supernet: nn.Module) -> None:
        """Called with the supernet of each phase of the search, before the first step of this
        phase.
        """
        self.space, self.supernet = space, supernet

    def step(self, gradient: Logits | None) -> None:
        """Called in every step, when the weights have their gradients and have not moved yet.

        ``gradient`` is the one that the logits have just followed, or ``None`` if they have not
        moved.
        """

    def read(self, snapshot: Snapshot) -> dict[str, float]:
        """The figures to log at the end of an epoch. After each call, a mean over steps begins
        anew.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The state that the instrument needs to go on from a checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned."""
