"""Local search: from a random start to the best neighbour, until none is better."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from supernet.cost.budget import Budget
from supernet.errors import require
from supernet.evaluate.accuracy import Judgement
from supernet.mixture import Architecture, Logits
from supernet.searchers.searcher import Judged, Searcher, order


@dataclass
class LocalSearch(Searcher):
    """Hill climbing by steepest ascent over all architectures that differ in one gene (White et
    al., UAI 2021; Den Ottelander et al., EMO 2021), begun anew at random until there were
    ``candidates``. What was judged on the way is not asked for again.
    """

    candidates: int = 100

    def __post_init__(self):
        require("searcher.candidates", self.candidates, least=1)

    def begin(self, budget: Budget, scores: Logits, rng: np.random.Generator) -> None:
        super().begin(budget, scores, rng)
        self.left = self.candidates
        self.judged: dict[Architecture, Judgement] = {}
        self.here: Architecture | None = None

    def ask(self) -> Sequence[Architecture]:
        while self.left and self.here is not None:
            around = [one for one in self.space.neighbours(self.here) if self.budget.allows(one)]
            if unknown := [one for one in around if one not in self.judged]:
                # In random order: where the search ends among them, the first genes are not
                # preferred.
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
