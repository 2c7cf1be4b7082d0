"""Several samplers in one search: one after another, or one drawn for each step."""

import bisect
import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from supernet.cost.budget import Budget
from supernet.errors import UserError, require
from supernet.randomness import Streams
from supernet.samplers.sampler import Sampler
from supernet.samplers.softmax import Softmax
from supernet.samplers.uniform import Uniform
from supernet.samplers.wrapper import Wrapper


@dataclass
class Schedule(Wrapper):
    """``phases`` are pairs [sampler, share]: each sampler leads this share of the search.

    By default the samplers follow one another. Each of them gets the progress of its own phase, and
    the last one gives the scores. If ``mixed`` is true, the leader of each step is drawn, with the
    shares as probabilities. All samplers then get the progress of the whole search. The most
    probable sampler (the first, if several are) gives the scores, and the mean mixture that stands
    for the search where the search is measured.
    """

    phases: list[Any] = field(default_factory=lambda: [[Uniform(), 0.5], [Softmax(), 0.5]])
    mixed: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for phase in self.phases:
            if not (
                isinstance(phase, list | tuple)
                and len(phase) == 2
                and isinstance(phase[0], Sampler)
                and isinstance(phase[1], int | float)
            ):
                raise UserError(
                    f"sampler.phases: {phase}: a phase is a pair of a sampler and its share, as in "
                    "sampler.phases=[[uniform,0.5],[softmax,0.5]]"
                )
            name = type(phase[0]).__name__
            if phase[0].scores_from != "logits":
                raise UserError(
                    f"sampler.phases: {name} has a policy, which no learner finds inside a "
                    "schedule; choose sampler=policy alone"
                )
            require(f"sampler.phases: the share of {name}", phase[1], above=0)
        self.samplers = [sampler for sampler, _ in self.phases]
        self.shares = [share for _, share in self.phases]
        if abs(sum(self.shares) - 1) > 1e-6:
            raise UserError(f"sampler.phases: the shares {self.shares} must add up to 1")
        self.starts = [0.0, *itertools.accumulate(self.shares[:-1])]
        self.leads: int = 0  # the index of the leader
        self.progress: float | None = None  # the one for which the last leader was drawn

    def begin(self, budget: Budget, streams: Streams, device: torch.device) -> None:
        super().begin(budget, streams, device)
        self.leads, self.progress = 0, None

    def led(self, progress: float) -> tuple[Sampler, float]:
        """See :meth:`Wrapper.led`. If ``mixed`` is true, one leader is drawn for each value of
        ``progress``.
        """
        if not self.mixed:
            self.leads, given = self.phase_at(progress)
            return self.leader, given
        if progress != self.progress:
            chances = np.divide(self.shares, sum(self.shares))
            self.leads = int(self.streams.host("schedule").choice(len(chances), p=chances))
            self.progress = progress
        return self.leader, progress

    def phase_at(self, progress: float) -> tuple[int, float]:
        """The index of the phase at ``progress``, and the share of this phase that is over."""
        rounded = progress + 1e-9  # because 0.1 + 0.2, a start, is more than 3 / 10, a progress
        phase = bisect.bisect_right(self.starts, rounded) - 1
        return phase, min(max((progress - self.starts[phase]) / self.shares[phase], 0.0), 1.0)

    @property
    def leader(self) -> Sampler:
        return self.samplers[self.leads]

    def measured(self, progress: float) -> tuple[Sampler, float]:
        if self.mixed:
            return self.scorer, progress
        phase, given = self.phase_at(progress)
        return self.samplers[phase], given

    @property
    def scorer(self) -> Sampler:
        return self.samplers[self.shares.index(max(self.shares)) if self.mixed else -1]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"leads": self.leads, "progress": self.progress}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.leads, self.progress = state["leads"], state["progress"]
