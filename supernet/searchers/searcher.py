"""The interface of a searcher, and the loop that runs it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from supernet.bounds import Bounded
from supernet.cost.budget import Budget
from supernet.evaluate.accuracy import Judgement
from supernet.mixture import Architecture, Logits

Judged = tuple[Architecture, Judgement]


class Searcher(Bounded):
    """Proposes architectures, and gets their judgements. A subclass is a dataclass; its fields are
    its settings.

    Its decisions may depend on nothing but its generator and these judgements: to resume a search
    that was stopped, :func:`search` runs it from the start again, with the judgements that exist
    already. All architectures that it proposes must be within the budget.
    """

    where = "searcher"
    # whether it reads the scores, which mean nothing after a search without a learner
    needs_scores = False
    cost: str | None = None  # a metric that it minimises, while it maximises the goodness
    share = 1.0  # of the validation images, on which to judge the next architectures

    @property
    def total(self) -> int:
        """The greatest number of architectures that it proposes, repeated ones included: the
        setting ``candidates``, or one if it has no such setting.
        """
        return getattr(self, "candidates", 1)

    def begin(self, budget: Budget, scores: Logits, rng: np.random.Generator) -> None:
        """Called once before the first :meth:`ask`. ``scores`` are the sampler's; higher is
        better.
        """
        self.budget, self.space, self.scores, self.rng = budget, budget.space, scores, rng

    def ask(self) -> Sequence[Architecture]:
        """The next architectures to judge; none when the search is over."""
        raise NotImplementedError

    def tell(self, judged: Sequence[Judged]) -> None:
        """Called with the architectures of the last :meth:`ask` and their judgements."""


@dataclass(frozen=True)
class SearchResult:
    """The ``best`` architecture and its ``judgement``; in ``judged``, all architectures that were
    judged on all validation images; in ``told``, every judgement that the searcher got, by
    architecture and share of the images. Both are in the order in which the architectures were
    proposed.
    """

    best: Architecture
    judgement: Judgement
    judged: dict[Architecture, Judgement]
    told: dict[tuple[Architecture, float], Judgement]

    @property
    def images(self) -> int:
        """The number of validation images that all judgements together used."""
        return sum(judgement.images for judgement in self.told.values())

    def front(self, cost: Callable[[Architecture], float]) -> list[Judged]:
        """The Pareto front of ``judged``, the cheapest first: each architecture of it is better
        than all others that cost no more.
        """
        front: list[Judged] = []
        for one in sorted(self.judged.items(), key=lambda one: (cost(one[0]), *order(one[1]))):
            if not front or one[1].goodness > front[-1][1].goodness:
                front.append(one)
        return front


def order(judgement: Judgement) -> tuple[float, float]:
    """A key that sorts judgements, the best first: by goodness, and by loss where that is equal."""
    return -judgement.goodness, judgement.loss


def search(
    searcher: Searcher,
    judge: Callable[[Architecture, float], Judgement],
    known: dict[tuple[Architecture, float], Judgement] | None = None,
    update: Callable[[int, Judgement], None] = lambda count, judgement: None,
    same: Callable[[Architecture], Architecture] = lambda architecture: architecture,
) -> SearchResult:
    """Runs ``searcher`` to its end. ``judge`` gets an architecture and the share of the validation
    images on which to judge it.

    No architecture is judged twice on the same share, and none whose judgement is already in
    ``known``; new judgements are added to ``known``. ``update`` is called after every proposed
    architecture, with the number of proposals so far and the judgement.

    ``same`` gives the architecture that stands for all that count as the same, such as
    :meth:`~supernet.spaces.space.Space.canonical`. Only this architecture is judged, and the result
    contains it instead of the others. By default each architecture stands for itself.
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
