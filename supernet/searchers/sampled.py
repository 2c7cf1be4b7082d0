"""The best of some architectures drawn as the scores would have it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from supernet.cost.budget import Budget
from supernet.errors import require
from supernet.mixture import Architecture, Logits
from supernet.searchers.searcher import Searcher

LEAST = 1e-6  # of a score, before its logarithm: no option is out of reach


@dataclass
class Sampled(Searcher):
    """``candidates`` draws, as ENAS derives: some architectures from what the search learnt,
    judged, of which the best is taken (Pham et al., ICML 2018, section 2.2; their code,
    melodyguan/enas, looks at 10).

    A draw is the derivation from the logarithms of the scores with Gumbel noise. Where every slot
    is free, that draws each slot's option with its score as probability (Gumbel, 1954); elsewhere
    it keeps the space's rules, and always the budget.

    Departures: the scores of a policy are the frequencies of its options, so that slots are drawn
    independently of each other; all are judged on the same validation images, not on a batch.
    """

    candidates: int = 10

    needs_scores = True

    def __post_init__(self):
        require("searcher.candidates", self.candidates, least=1)

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
