"""Several samplers in one search: one after the other, or each step one by chance."""

import bisect
import importlib
import inspect
import itertools
import pkgutil
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supernet import samplers
from supernet.cost.budget import Budget
from supernet.errors import UserError, require, unknown
from supernet.mixture import Logits, Mixture
from supernet.randomness import Streams
from supernet.samplers.sampler import Loss, Sampler

# Modules beside this one that hold no sampler for a phase: a policy's learner would not find it
# behind a schedule.
NO_CHOICE = ("sampler", "schedule", "policy")


@dataclass
class Schedule(Sampler):
    """``phases`` are pairs [name of a sampler, share]: each sampler, with its default settings,
    leads that share of the search.

    One follows the other, and sees as its progress that of its own phase; the logits are scored by
    the last one. If ``mixed``, the one that leads a step is drawn with the shares as probabilities,
    all see the progress of the whole search, and the logits are scored by the most probable one
    (the first, if several are).
    """

    phases: list[Any] = field(default_factory=lambda: [["uniform", 0.5], ["softmax", 0.5]])
    mixed: bool = False

    def __post_init__(self):
        for phase in self.phases:
            if not (
                isinstance(phase, list | tuple)
                and len(phase) == 2
                and isinstance(phase[1], int | float)
            ):
                raise UserError(
                    f"sampler.phases: {phase}: a phase is a pair, as in "
                    "sampler.phases=[[uniform,0.5],[softmax,0.5]]"
                )
            require(f"sampler.phases: the share of {phase[0]}", phase[1], above=0)
        self.shares = [share for _, share in self.phases]
        if abs(sum(self.shares) - 1) > 1e-6:
            raise UserError(f"sampler.phases: the shares {self.shares} must add up to 1")
        self.samplers = [named(str(name))() for name, _ in self.phases]
        self.leader, self.progress = 0, None  # who leads the step at this progress

    def begin(self, budget: Budget, streams: Streams, device: torch.device) -> None:
        super().begin(budget, streams, device)
        for sampler in self.samplers:
            sampler.begin(budget, streams, device)

    def led(self, progress: float) -> tuple[Sampler, float]:
        """The sampler that leads the step at ``progress``, and the progress that it sees; a step is
        drawn for only once.
        """
        if self.mixed:
            if progress != self.progress:
                self.leader = int(
                    self.streams.host("schedule").choice(
                        len(self.shares), p=np.divide(self.shares, sum(self.shares))
                    )
                )
            seen = progress
        else:
            starts = [0.0, *itertools.accumulate(self.shares[:-1])]
            rounded = progress + 1e-9  # 0.1 + 0.2 is more than 3 steps of 10
            self.leader = bisect.bisect_right(starts, rounded) - 1
            seen = min(max((progress - starts[self.leader]) / self.shares[self.leader], 0.0), 1.0)
        self.progress = progress
        return self.samplers[self.leader], seen

    @property
    def distils(self) -> bool:
        return self.samplers[self.leader].distils

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        sampler, seen = self.led(progress)
        return sampler.mixtures(logits, seen, loss)

    def relaxation(self, logits: Logits, progress: float, noise: torch.Generator) -> Mixture:
        sampler, seen = self.led(progress)
        return sampler.relaxation(logits, seen, noise)

    def probabilities(self, logits: Logits) -> Logits:
        return self.samplers[self.leader].probabilities(logits)

    def penalty(self, logits: Logits, progress: float) -> Tensor:
        sampler, seen = self.led(progress)
        return sampler.penalty(logits, seen)

    def settle(self, logits: Logits, before: Logits) -> None:
        self.samplers[self.leader].settle(logits, before)

    def scores(self, logits: Logits) -> Logits:
        return self.samplers[self.shares.index(max(self.shares)) if self.mixed else -1].scores(
            logits
        )

    def state_dict(self) -> dict[str, Any]:
        samplers = [sampler.state_dict() for sampler in self.samplers]
        return {"leader": self.leader, "progress": self.progress, "samplers": samplers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.leader, self.progress = state["leader"], state["progress"]
        for sampler, saved in zip(self.samplers, state["samplers"], strict=True):
            sampler.load_state_dict(saved)


def named(name: str) -> type[Sampler]:
    """The sampler in the module of that name beside this one.

    Raises:
        UserError: there is none.
    """
    names = sorted(
        module.name
        for module in pkgutil.iter_modules(samplers.__path__)
        if module.name not in NO_CHOICE
    )
    if name not in names:
        raise UserError(f"sampler.phases: {unknown(name, names)}")
    module = importlib.import_module(f"{samplers.__name__}.{name}")
    (kind,) = (
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Sampler)
        and value.__module__ == module.__name__
    )
    return kind
