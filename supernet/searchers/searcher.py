"""What a searcher is, and the loop that asks it and tells it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from supernet.cost.budget import Budget
from supernet.evaluate.accuracy import Judgement
from supernet.mixture import Architecture, Logits

Judged = tuple[Architecture, Judgement]


class Searcher:
    """Proposes architectures and learns how good they are. A subclass is a dataclass whose fields
    are its settings.

    It must decide from its generator and from what it is told alone: a stopped search is resumed by
    asking anew, with the judgements that are there already. All that it asks for must be within the
    budget.
    """

    # whether it reads the logits, so that a search without a learner has nothing to say to it
    needs_scores = False
    cost: str | None = None  # the metric that it weighs accuracy against, if any
    share = 1.0  # of the validation images, on which what is asked for next is to be judged

    @property
    def total(self) -> int:
        """How many architectures it asks for at most, repeated ones included: its ``candidates``,
        or one where it has no such.
        """
        return getattr(self, "candidates", 1)

    def begin(self, budget: Budget, scores: Logits, rng: np.random.Generator) -> None:
        """Called once before the first :meth:`ask`; ``scores`` are the sampler's, higher is better."""
        self.budget, self.space, self.scores, self.rng = budget, budget.space, scores, rng

    def ask(self) -> Sequence[Architecture]:
        """The next architectures to judge; none when the search is over."""
        raise NotImplementedError

    def tell(self, judged: Sequence[Judged]) -> None:
        """What was last asked for, with its judgements."""


@dataclass(frozen=True)
class SearchResult:
    """The best architecture, all that were judged on the whole of the validation images, and every
    judgement that was asked for, by architecture and share of the images, both in the order of
    asking.
    """

    best: Architecture
    judgement: Judgement
    judged: dict[Architecture, Judgement]
    told: dict[tuple[Architecture, float], Judgement]

    @property
    def images(self) -> int:
        """How many validation images all judgements together looked at."""
        return sum(judgement.images for judgement in self.told.values())

    def front(self, cost: Callable[[Architecture], float]) -> list[Judged]:
        """The Pareto front, cheapest first: whatever is judged and is not beaten in accuracy by
        something as cheap.
        """
        front: list[Judged] = []
        for one in sorted(self.judged.items(), key=lambda one: (cost(one[0]), *order(one[1]))):
            if not front or one[1].accuracy > front[-1][1].accuracy:
                front.append(one)
        return front


def order(judgement: Judgement) -> tuple[float, float]:
    """The order of judgements, best first: by accuracy, and of equals by loss."""
    return -judgement.accuracy, judgement.loss


def search(
    searcher: Searcher,
    judge: Callable[[Architecture, float], Judgement],
    known: dict[tuple[Architecture, float], Judgement] | None = None,
    update: Callable[[int, Judgement], None] = lambda count, judgement: None,
    same: Callable[[Architecture], Architecture] = lambda architecture: architecture,
) -> SearchResult:
    """Runs ``searcher`` to its end; ``judge`` takes an architecture and the share of the validation
    images to judge it on.

    No architecture is judged twice on the same share, and none that is in ``known``, which is added
    to. ``update`` is called after every architecture asked for, with how many these were and the
    judgement.

    ``same`` gives the architecture that stands for all that count as the same, such as
    :meth:`~supernet.spaces.space.Space.canonical`: it is judged for all of them, and the result has
    it in their place. By default each architecture stands for itself.
    """
    known = {} if known is None else known
    told: dict[tuple[Architecture, float], Judgement] = {}
    count = 0
    while asked := searcher.ask():
        judged = []
        for architecture in asked:
            key = same(architecture), searcher.share
            if key not in known:
                known[key] = judge(*key)
            told[key] = known[key]
            judged.append((architecture, known[key]))
            count += 1
            update(count, known[key])
        searcher.tell(judged)
    whole = {
        architecture: judgement for (architecture, share), judgement in told.items() if share == 1.0
    }
    best = min(whole, key=lambda architecture: order(whole[architecture]))
    return SearchResult(best, whole[best], whole, told)
