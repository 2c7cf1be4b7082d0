"""Regularised evolution: each child replaces the oldest member of the population."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from supernet.bounds import Count
from supernet.cost.budget import Budget
from supernet.mixture import Architecture, Logits
from supernet.searchers.searcher import Judged, Searcher, order


@dataclass
class Evolution(Searcher):
    """Regularised evolution (Real et al., AAAI 2019, algorithm 1): ``candidates`` architectures in
    all, of which the last ``population`` form the population. For each child, ``sample`` members
    are drawn, and the best of them is the parent.

    Departures: a child differs from its parent by the mutation of one gene, which is drawn again
    until the child is within the budget. Architectures of equal accuracy are ranked by loss.
    """

    candidates: Count = 100
    population: Count = 20
    sample: Count = 5

    def begin(self, budget: Budget, scores: Logits, rng: np.random.Generator) -> None:
        super().begin(budget, scores, rng)
        self.left = self.candidates
        # when it is full, each new member removes the oldest one
        self.living: deque[Judged] = deque(maxlen=self.population)

    def ask(self) -> Sequence[Architecture]:
        if self.living:
            asked = [self.budget.within(self._child)][: self.left]
        else:
            asked = [self.budget.random(self.rng) for _ in range(min(self.population, self.left))]
        self.left -= len(asked)
        return asked

    def _child(self) -> Architecture:
        sample = [self.living[i] for i in self.rng.integers(len(self.living), size=self.sample)]
        parent, _ = min(sample, key=lambda one: order(one[1]))
        return self.space.mutate(parent, self.rng)

    def tell(self, judged: Sequence[Judged]) -> None:
        self.living.extend(judged)
