"""What a searcher is, and the loop that asks it and tells it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from supernet.evaluate.accuracy import Judgement
from supernet.mixture import Architecture, Logits
from supernet.spaces.space import Space

Judged = tuple[Architecture, Judgement]


class Searcher:
    """Proposes architectures and learns how good they are. A subclass is a dataclass whose fields are its settings.

    It must decide from its generator and from what it is told alone: a stopped search is resumed by asking anew, with the
    judgements that are there already.
    """

    needs_scores = False  # whether it reads the logits, so that a search without a learner has nothing to say to it

    def begin(self, space: Space, scores: Logits, rng: np.random.Generator) -> None:
        """Called once before the first :meth:`ask`; ``scores`` are the sampler's, higher is better."""
        self.space, self.scores, self.rng = space, scores, rng

    def ask(self) -> Sequence[Architecture]:
        """The next architectures to judge; none when the search is over."""
        raise NotImplementedError

    def tell(self, judged: Sequence[Judged]) -> None:
        """What was last asked for, with its judgements."""


@dataclass(frozen=True)
class SearchResult:
    best: Architecture
    judgement: Judgement
    judged: dict[Architecture, Judgement]


def search(
    searcher: Searcher,
    judge: Callable[[Architecture], Judgement],
    known: dict[Architecture, Judgement] | None = None,
) -> SearchResult:
    """Runs ``searcher`` to its end; the best is the most accurate, and of equals the one with the lower loss.

    No architecture is judged twice, and none that is in ``known``.
    """
    known = {} if known is None else known
    told: dict[Architecture, Judgement] = {}
    while asked := searcher.ask():
        for architecture in asked:
            if architecture not in known:
                known[architecture] = judge(architecture)
            told[architecture] = known[architecture]
        searcher.tell([(architecture, known[architecture]) for architecture in asked])
    best = max(told, key=lambda a: (told[a].accuracy, -told[a].loss))
    return SearchResult(best, told[best], told)
