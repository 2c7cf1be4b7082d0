"""A policy whose reward is the accuracy of the architectures that it draws."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from supernet.bounds import Count, Positive, Probability
from supernet.cost.budget import Budget
from supernet.mixture import Architecture, Logits
from supernet.searchers.searcher import Judged, Searcher


@dataclass
class ReinforceSearcher(Searcher):
    """``candidates`` draws from a policy that follows the gradient of its expected reward,
    ``(r - b) ∇ log p(a)`` (Williams 1992), with Adam at the learning rate ``lr``. The reward r of
    an architecture a is its accuracy. The baseline b is the moving average of earlier rewards (Zoph
    & Le, ICLR 2017).

    Departures: the genes are drawn independently of each other, from logits and not from a
    recurrent network. An architecture over the budget is drawn again, and the gradient does not
    take this into account.
    """

    candidates: Count = 100
    lr: Positive = 0.1
    decay: Probability = 0.9  # of the moving average

    def begin(self, budget: Budget, scores: Logits, rng: np.random.Generator) -> None:
        super().begin(budget, scores, rng)
        self.left = self.candidates
        self.genes = self.space.genes
        self.policy = [
            torch.zeros(len(gene.values), dtype=torch.float64, requires_grad=True)
            for gene in self.genes
        ]
        self.optimizer = torch.optim.Adam(self.policy, self.lr)
        self.baseline: float | None = None

    def ask(self) -> Sequence[Architecture]:
        if self.left == 0:
            return []
        self.left -= 1
        probabilities = [torch.softmax(logits.detach(), dim=0).numpy() for logits in self.policy]

        def draw() -> Architecture:
            return self.space.express(
                [
                    gene.values[self.rng.choice(len(p), p=p)]
                    for gene, p in zip(self.genes, probabilities, strict=True)
                ]
            )

        return [self.budget.within(draw)]

    def tell(self, judged: Sequence[Judged]) -> None:
        for architecture, judgement in judged:
            reward = judgement.goodness
            baseline = reward if self.baseline is None else self.baseline
            self.baseline = self.decay * baseline + (1 - self.decay) * reward
            chosen = zip(self.policy, self.genes, self.space.values(architecture), strict=True)
            terms = (
                F.log_softmax(logits, dim=0)[gene.values.index(value)]
                for logits, gene, value in chosen
            )
            log_p = sum(terms, torch.zeros((), dtype=torch.float64))
            self.optimizer.zero_grad()
            ((baseline - reward) * log_p).backward()
            self.optimizer.step()
