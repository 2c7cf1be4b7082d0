"""Of several random architectures of about the same cost, the best or the worst."""

from dataclasses import dataclass

import torch

from supernet.cost.budget import TRIES, Budget
from supernet.errors import UserError, require, unknown
from supernet.mixture import Architecture, Logits, Mixture
from supernet.randomness import Streams
from supernet.samplers.sampler import Loss, Sampler, require_metric


@dataclass
class Attentive(Sampler):
    """AttentiveNAS (Wang et al., CVPR 2021, section 3 and eqs. 5 to 7): attention to the best or to
    the worst of each cost.

    For each of ``paths`` a cost is drawn as it is distributed among the architectures within the
    budget, ``candidates`` are drawn that cost about as much, and the one of the lowest
    (``mode="best"``) or highest (``mode="worst"``) loss on the step's images is trained. Costs
    count as about the same in one of ``buckets`` intervals of equal width from the cheapest to the
    most expensive.

    Departures: the paper trains these paths beside the largest and the smallest, with distillation,
    and besides the loss on a minibatch knows a trained predictor of the accuracy; of a bucket so
    rare that ten thousand draws hold too few candidates, those that were found compete.
    """

    mode: str = "worst"
    candidates: int = 3
    paths: int = 1
    buckets: int = 10
    metric: str = "madds"

    def __post_init__(self) -> None:
        if self.mode not in ("best", "worst"):
            raise UserError(f"sampler.mode: {unknown(self.mode, ['best', 'worst'])}")
        for name in ("candidates", "paths", "buckets"):
            require(f"sampler.{name}", getattr(self, name), least=1)

    def begin(self, budget: Budget, streams: Streams, device: torch.device) -> None:
        super().begin(budget, streams, device)
        require_metric(self.metric, budget)
        self.cost = budget.tables[self.metric].of
        self.least, self.most = (
            self.cost(end(self.metric)) for end in (budget.smallest, budget.largest)
        )

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        attention = min if self.mode == "best" else max
        return [
            attention(
                (self.space.path(candidate) for candidate in self.alike()),
                key=lambda path: float(loss(path)),
            )
            for _ in range(self.paths)
        ]

    def bucket(self, architecture: Architecture) -> int:
        width = (self.most - self.least) / self.buckets or 1.0
        return min(int((self.cost(architecture) - self.least) / width), self.buckets - 1)

    def alike(self) -> list[Architecture]:
        """Candidates of about the same cost.

        The first one stands for the draw of the cost: given its bucket it is distributed as those
        that are then drawn from there.
        """
        rng = self.streams.host("paths")
        found = [self.budget.random(rng)]
        bucket = self.bucket(found[0])
        for _ in range(TRIES):
            if len(found) == self.candidates:
                break
            if self.bucket(other := self.budget.random(rng)) == bucket:
                found.append(other)
        return found
