"""Random architectures of about the same cost: the best or the worst of them is trained."""

from dataclasses import dataclass

import torch

from supernet.bounds import Few
from supernet.cost.budget import TRIES, Budget
from supernet.errors import UserError, unknown
from supernet.mixture import Architecture, Logits, Mixture
from supernet.randomness import Streams
from supernet.samplers.sampler import Loss, Sampler, require_metric


@dataclass
class Attentive(Sampler):
    """AttentiveNAS (Wang et al., CVPR 2021, section 3 and eqs. 5 to 7): of several architectures of
    about the same cost, the best or the worst is trained.

    Each step trains ``paths`` architectures. For each of them, a first random architecture within
    the budget sets the cost, so that costs are as frequent as they are among the architectures
    within the budget. More random architectures are drawn until ``candidates`` of them have about
    this cost. The step trains the candidate with the lowest loss on the step's images
    (``mode="best"``) or the one with the highest loss (``mode="worst"``). The range from the lowest
    to the highest cost is divided into ``buckets`` intervals of equal width; costs in the same
    interval count as about the same. ``metric`` names the cost: "params" or "madds".

    Departures: the paper trains these paths beside the largest and the smallest architecture, with
    distillation. Besides the loss on a minibatch, the paper also uses a trained predictor of the
    accuracy. If a bucket is so rare that 10,000 draws give too few candidates, only the candidates
    that were found compete.
    """

    mode: str = "worst"
    candidates: Few = 3
    paths: Few = 1
    buckets: Few = 10
    metric: str = "madds"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("best", "worst"):
            raise UserError(f"sampler.mode: {unknown(self.mode, ['best', 'worst'])}")

    def begin(self, budget: Budget, streams: Streams, device: torch.device) -> None:
        super().begin(budget, streams, device)
        require_metric(self.metric, budget)
        self.cost = budget.tables[self.metric].of
        self.least, self.most = (
            self.cost(end(self.metric)) for end in (budget.smallest, budget.largest)
        )

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        attention = min if self.mode == "best" else max
        rivals = [[self.space.path(one) for one in self.alike()] for _ in range(self.paths)]
        # all losses are read at once, because the host waits for the device when it reads
        losses = iter(torch.stack([loss(path) for paths in rivals for path in paths]).tolist())
        known = [[(next(losses), path) for path in paths] for paths in rivals]
        return [attention(pairs, key=lambda pair: pair[0])[1] for pairs in known]

    def bucket(self, architecture: Architecture) -> int:
        """The index of the cost interval that the cost of ``architecture`` lies in."""
        width = (self.most - self.least) / self.buckets or 1.0
        return min(int((self.cost(architecture) - self.least) / width), self.buckets - 1)

    def alike(self) -> list[Architecture]:
        """Draws candidates of about the same cost: ``candidates`` of them, or fewer if the draws
        give fewer.

        The first draw chooses the bucket. Given the bucket, the first architecture has the same
        distribution as those that are then drawn from this bucket.
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
