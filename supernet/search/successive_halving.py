"""Successive halving: many are judged on few images, the best of them on more."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from supernet.cost.budget import Budget
from supernet.errors import require
from supernet.mixture import Architecture, Logits
from supernet.search.searcher import Judged, Searcher, rank


@dataclass
class SuccessiveHalving(Searcher):
    """``candidates`` random architectures; in each of the ``rounds`` the best 1/``eta`` go on to ``eta`` times more of the
    validation images, in the last to all of them (Karnin et al., ICML 2013; Jamieson & Talwalkar, AISTATS 2016)."""

    candidates: int = 100
    eta: int = 3
    rounds: int = 4

    def __post_init__(self):
        require("searcher.candidates", self.candidates, least=1)
        require("searcher.eta", self.eta, least=2)
        require("searcher.rounds", self.rounds, least=1)

    @property
    def counts(self) -> list[int]:
        """How many architectures each round judges."""
        return [max(1, self.candidates // self.eta**round) for round in range(self.rounds)]

    @property
    def total(self) -> int:
        return sum(self.counts)

    def begin(self, budget: Budget, scores: Logits, rng: np.random.Generator) -> None:
        super().begin(budget, scores, rng)
        self.round = 0
        self.pool = [budget.random(rng) for _ in range(self.candidates)]

    def ask(self) -> Sequence[Architecture]:
        if self.round == self.rounds:
            return []
        self.share = float(self.eta) ** (self.round + 1 - self.rounds)
        return self.pool

    def tell(self, judged: Sequence[Judged]) -> None:
        self.round += 1
        if self.round < self.rounds:
            best_first = sorted(dict(judged).items(), key=lambda one: rank(one[1]))
            self.pool = [architecture for architecture, _ in best_first[: self.counts[self.round]]]
