"""Successive halving: many are judged on few images, the best of them on more."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from supernet.cost.budget import Budget
from supernet.errors import require
from supernet.mixture import Architecture, Logits
from supernet.searchers.searcher import Judged, Searcher, order


@dataclass
class SuccessiveHalving(Searcher):
    """``candidates`` random architectures; in each of the ``rounds`` the best 1/``eta`` go on to
    ``growth`` times more of the validation images, in the last to all of them (Karnin et al., ICML
    2013; Jamieson & Talwalkar, AISTATS 2016, where ``growth`` is ``eta``, so that every round costs
    the same; so it is here unless it is set).

    Random search with weight sharing (Li & Talwalkar, UAI 2019, section 4) is two rounds of it: in
    the authors' code (liamcli/randomNAS_release, searchers/random_weight_share.py) 1,000 random
    architectures are judged on 10 batches of 64 of the 25,000 validation images, which is 1/39, and
    the best 10 of them on all. Departures: all are judged on the same images; theirs go through
    this some five times in a search on CIFAR-10, and leave the BatchNorm statistics as training
    left them (``judge.recalibration_batches=0``).
    """

    candidates: int = 100
    eta: int = 3
    rounds: int = 4
    growth: float | None = None

    def __post_init__(self):
        require("searcher.candidates", self.candidates, least=1)
        require("searcher.eta", self.eta, least=2)
        require("searcher.rounds", self.rounds, least=1)
        if self.growth is not None:
            require("searcher.growth", self.growth, least=1)

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
        self.share = float(self.growth or self.eta) ** (self.round + 1 - self.rounds)
        return self.pool

    def tell(self, judged: Sequence[Judged]) -> None:
        self.round += 1
        if self.round < self.rounds:
            best_first = sorted(dict(judged).items(), key=lambda one: order(one[1]))
            self.pool = [architecture for architecture, _ in best_first[: self.counts[self.round]]]
