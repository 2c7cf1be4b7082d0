"""What every searcher must do, and the loop that asks it and tells it."""

import copy
import hashlib
import math

import numpy as np
import pytest
import torch

from supernet.errors import UserError
from supernet.evaluate.accuracy import Judgement
from supernet.search.logits import Derived
from supernet.search.random import Random
from supernet.search.searcher import Searcher, search
from supernet.spaces.nb201 import NB201
from supernet.spaces.space import Geometry

SPACE = NB201(Geometry(4, 1), Geometry(4, 1))


class Stop(Exception):
    pass


class Judge:
    """Judges by a hash, coarsely, so that there are ties; remembers whom."""

    def __init__(self, limit=math.inf):
        self.asked, self.limit = [], limit

    def __call__(self, architecture):
        if len(self.asked) >= self.limit:
            raise Stop
        self.asked.append(architecture)
        first, second = hashlib.sha256(architecture.to_json().encode()).digest()[:2]
        return Judgement(first % 3 / 3, second / 255, 90)


def begun(searcher, space, seed=0):
    searcher = copy.deepcopy(searcher)
    noise = torch.Generator().manual_seed(1)
    searcher.begin(space, {g.name: torch.rand(g.shape, generator=noise) for g in space.groups}, np.random.default_rng(seed))
    return searcher


def test_it_ends_and_the_best_is_the_best_of_what_was_judged(space, searcher):
    judge = Judge()
    result = search(begun(searcher, space), judge)
    assert list(result.judged) == judge.asked and len(set(judge.asked)) == len(judge.asked) > 0
    assert result.judgement == result.judged[result.best]
    for architecture, judgement in result.judged.items():
        space.validate(architecture)
        assert (judgement.accuracy, -judgement.loss) <= (result.judgement.accuracy, -result.judgement.loss)


def test_the_same_seed_gives_the_same_search(space, searcher):
    first, second = (search(begun(searcher, space), Judge()) for _ in range(2))
    assert first == second and list(first.judged) == list(second.judged)


def test_stopped_after_any_judgement_it_goes_on_to_the_same_result(space, searcher):
    """Invariant 4: what is known is not judged again, and asking anew leads to the same place."""
    whole = search(begun(searcher, space), Judge())
    for limit in range(len(whole.judged)):
        known = {}
        with pytest.raises(Stop):
            search(begun(searcher, space), Judge(limit), known)
        assert len(known) == limit
        rest = Judge()
        assert search(begun(searcher, space), rest, known) == whole
        assert list(whole.judged)[limit:] == rest.asked
    nobody = Judge(0)
    assert search(begun(searcher, space), nobody, dict(whole.judged)) == whole and not nobody.asked


class Fixed(Searcher):
    """Asks for given architectures, batch by batch, and remembers what it is told."""

    def __init__(self, *batches):
        self.batches, self.told = list(batches), []

    def ask(self):
        return self.batches.pop(0) if self.batches else []

    def tell(self, judged):
        self.told.append(judged)


def test_ties_go_to_the_lower_loss_and_then_to_the_first():
    a, b, c, d = (SPACE.random(np.random.default_rng(seed)) for seed in range(4))
    judgements = {a: Judgement(0.5, 1.0, 10), b: Judgement(0.7, 2.0, 10), c: Judgement(0.7, 1.5, 10), d: Judgement(0.7, 1.5, 10)}
    for order in ((a, b, c, d), (c, b, a, d), (b, a, c, d)):
        assert search(Fixed(order), judgements.__getitem__).best == c
    assert search(Fixed((d, c)), judgements.__getitem__).best == d


def test_nothing_is_judged_twice_and_everything_asked_for_is_told():
    a, b, c = (SPACE.random(np.random.default_rng(seed)) for seed in range(3))
    judge, searcher = Judge(), Fixed([a, b, a], [b], [c, a])
    result = search(searcher, judge)
    assert judge.asked == [a, b, c]
    assert searcher.told == [[(x, result.judged[x]) for x in batch] for batch in ((a, b, a), (b,), (c, a))]


def test_what_is_known_but_was_not_asked_for_cannot_win():
    """A search is its searcher's: judgements left by another one are no candidates."""
    a, b = (SPACE.random(np.random.default_rng(seed)) for seed in range(2))
    result = search(Fixed([a]), Judge(), {b: Judgement(1.0, 0.0, 90)})
    assert result.best == a and set(result.judged) == {a}


def test_random_draws_as_many_as_told_and_others_by_another_seed(space):
    drawn = []
    for seed in (0, 0, 1):
        searcher, asked = begun(Random(candidates=7), space, seed), []
        while batch := searcher.ask():
            asked += batch
        drawn.append(asked)
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0]) == 7
    with pytest.raises(UserError, match=r"searcher\.candidates=0: must be at least 1"):
        Random(candidates=0)


def test_the_logits_searcher_gives_the_spaces_derivation(space):
    searcher = begun(Derived(), space)
    judge = Judge()
    assert search(searcher, judge).best == space.derive(searcher.scores) and len(judge.asked) == 1
