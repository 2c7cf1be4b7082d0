"""The best of several architectures drawn uniformly: the baseline that every searcher has
to beat.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from supernet.bounds import Count
from supernet.mixture import Architecture
from supernet.searchers.searcher import Searcher


@dataclass
class Random(Searcher):
    """Random search (Li & Talwalkar, UAI 2019): ``candidates`` draws with replacement."""

    candidates: Count = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self.left = self.candidates

    def ask(self) -> Sequence[Architecture]:
        if self.left == 0:
            return []
        self.left -= 1
        return [self.budget.random(self.rng)]
