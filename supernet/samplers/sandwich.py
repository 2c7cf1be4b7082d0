"""The largest, the smallest and some random architectures; the largest one teaches the others."""

from dataclasses import dataclass

import torch

from supernet.bounds import FewOrZero
from supernet.cost.budget import Budget
from supernet.mixture import Logits, Mixture
from supernet.randomness import Streams
from supernet.samplers.sampler import Loss, Sampler, require_metric


@dataclass
class Sandwich(Sampler):
    """The sandwich rule with in-place distillation (BigNAS, Yu et al., ECCV 2020, section 3.1; Yu &
    Huang, ICCV 2019).

    Each step trains the largest architecture within the budget on the labels. It trains the
    smallest one and ``paths`` random ones on the softmax of the largest one's outputs, without
    labels. ``metric`` defines which architecture is the largest and which is the smallest, because
    a space need not have any other order of size.

    Departures: the gradients are averaged, not summed; all architectures see images of the same
    size; there is no dropout.
    """

    paths: FewOrZero = 2
    metric: str = "madds"

    distils = True

    def __post_init__(self) -> None:
        super().__post_init__()

    def begin(self, budget: Budget, streams: Streams, device: torch.device) -> None:
        super().begin(budget, streams, device)
        require_metric(self.metric, budget)
        self.ends = [self.space.path(end(self.metric)) for end in (budget.largest, budget.smallest)]

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        rng = self.streams.host("paths")
        return [*self.ends, *(self.space.path(self.budget.random(rng)) for _ in range(self.paths))]
