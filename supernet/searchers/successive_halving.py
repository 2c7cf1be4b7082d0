"""Successive halving: many architectures are judged on few images, the best of them on more."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from supernet.bounds import Count, Factor, Few, Two
from supernet.cost.budget import Budget
from supernet.mixture import Architecture, Logits
from supernet.searchers.searcher import Judged, Searcher, order


@dataclass
class SuccessiveHalving(Searcher):
    """Successive halving (Karnin et al., ICML 2013; Jamieson & Talwalkar, AISTATS 2016) from
    ``candidates`` random architectures.

    After each of the ``rounds`` except the last one, the best 1/``eta`` of the architectures go on,
    and are judged on ``growth`` times more of the validation images; the last round uses all of
    them. By default ``growth`` is ``eta``, as in Jamieson & Talwalkar, so that every round costs
    the same.

    Random search with weight sharing (Li & Talwalkar, UAI 2019, section 4) is this method with two
    rounds. In the authors' code (liamcli/randomNAS_release, searchers/random_weight_share.py),
    1,000 random architectures are judged on 10 batches of 64 of the 25,000 validation images, which
    is 1/39 of them, and the best 10 on all of them. Departures: here all architectures of a round
    are judged on the same images. The authors do all this about five times in a search on CIFAR-10,
    and leave the BatchNorm statistics as training left them (``judge.recalibration_batches=0``).
    """

    candidates: Count = 100
    eta: Two = 3
    rounds: Few = 4
    growth: Factor | None = None

    @property
    def counts(self) -> list[int]:
        """The number of architectures that each round judges."""
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
