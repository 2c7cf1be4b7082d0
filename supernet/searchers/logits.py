"""The architecture that is derived from the logits."""

from collections.abc import Sequence
from dataclasses import dataclass

from supernet.mixture import Architecture
from supernet.searchers.searcher import Searcher


@dataclass
class ByLogits(Searcher):
    """One candidate: the architecture that the space derives from the scores (DARTS, section 2.4),
    within the budget.
    """

    needs_scores = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.done = False

    def ask(self) -> Sequence[Architecture]:
        if self.done:
            return []
        self.done = True
        return [self.budget.best(self.scores)]
