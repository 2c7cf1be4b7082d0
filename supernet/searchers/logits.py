"""The architecture that the logits themselves name."""

from collections.abc import Sequence
from dataclasses import dataclass

from supernet.mixture import Architecture
from supernet.searchers.searcher import Searcher


@dataclass
class ByLogits(Searcher):
    """One candidate: the space's derivation from the scores (DARTS, section 2.4), within the
    budget.
    """

    needs_scores = True

    def __post_init__(self):
        self.done = False

    def ask(self) -> Sequence[Architecture]:
        if self.done:
            return []
        self.done = True
        return [self.budget.best(self.scores)]
