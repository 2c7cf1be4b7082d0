"""Local search: from a random start to the best neighbour, until no neighbour is better."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from supernet.bounds import Count
from supernet.cost.budget import Budget
from supernet.evaluate.accuracy import Judgement
from supernet.mixture import Architecture, Logits
from supernet.searchers.searcher import Judged, Searcher, order


@dataclass
class LocalSearch(Searcher):
    """Hill climbing by steepest ascent (White et al., UAI 2021; Den Ottelander et al., EMO 2021).
    The neighbours of an architecture are all that differ from it in one gene.

    When no neighbour is better, the search starts again from a random architecture, until it has
    proposed ``candidates`` architectures. It proposes no neighbour that is already judged.
    """

    candidates: Count = 100

    def begin(self, budget: Budget, scores: Logits, rng: np.random.Generator) -> None:
        super().begin(budget, scores, rng)
        self.left = self.candidates
        self.judged: dict[Architecture, Judgement] = {}
        self.here: Architecture | None = None

    def ask(self) -> Sequence[Architecture]:
        while self.left and self.here is not None:
            around = [one for one in self.space.neighbours(self.here) if self.budget.allows(one)]
            if unknown := [one for one in around if one not in self.judged]:
                # In random order, because the search may end among them, and would prefer the first
                # genes.
                return self._take([unknown[i] for i in self.rng.permutation(len(unknown))])
            best = min([self.here, *around], key=lambda one: order(self.judged[one]))
            self.here = None if best == self.here else best
        self.here = self.budget.random(self.rng)
        return self._take([self.here])

    def _take(self, wanted: list[Architecture]) -> list[Architecture]:
        taken = wanted[: self.left]
        self.left -= len(taken)
        return taken

    def tell(self, judged: Sequence[Judged]) -> None:
        self.judged.update(judged)
