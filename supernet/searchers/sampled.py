"""The best of several architectures drawn from the scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from supernet.bounds import Count
from supernet.cost.budget import Budget
from supernet.mixture import Architecture, Logits
from supernet.searchers.searcher import Searcher

LEAST = 1e-6  # a lower score counts as this one, so that every option can be drawn


@dataclass
class Sampled(Searcher):
    """The derivation of ENAS (Pham et al., ICML 2018, section 2.2): ``candidates`` architectures
    are drawn from what the search has learnt, all of them are judged, and the best one is taken.
    The authors' code (melodyguan/enas) draws 10.

    A draw is the derivation from the logarithms of the scores plus Gumbel noise. If every slot may
    have any option, this draws the options of each slot with their scores as probabilities (Gumbel,
    1954). In other spaces a draw keeps the space's rules. It always keeps the budget.

    Departures: the scores of a policy are the frequencies of its options, so the slots are drawn
    independently of each other. All architectures are judged on the same validation images, not on
    one batch.
    """

    candidates: Count = 10

    needs_scores = True

    def begin(self, budget: Budget, scores: Logits, rng: np.random.Generator) -> None:
        super().begin(budget, scores, rng)
        self.left = self.candidates
        self.logarithms = {
            name: table.detach().double().clamp(min=LEAST).log() for name, table in scores.items()
        }

    def ask(self) -> Sequence[Architecture]:
        if self.left == 0:
            return []
        self.left -= 1
        noisy = {
            name: table + torch.from_numpy(self.rng.gumbel(size=table.shape))
            for name, table in self.logarithms.items()
        }
        return [self.budget.best(noisy)]
