"""What every searcher must do, what each one does, and the loop that drives them."""

import copy
import hashlib
import itertools
import math
from collections import deque
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import yaml

from supernet.config import build
from supernet.cost.budget import Budget
from supernet.errors import UserError
from supernet.evaluate.accuracy import Judgement
from supernet.searchers.evolution import Evolution
from supernet.searchers.gp import GaussianProcess
from supernet.searchers.local_search import LocalSearch
from supernet.searchers.logits import ByLogits
from supernet.searchers.nsga2 import NSGA2
from supernet.searchers.predictor import Predictor
from supernet.searchers.random import Random
from supernet.searchers.reinforce import ReinforceSearcher
from supernet.searchers.sampled import Sampled
from supernet.searchers.searcher import Searcher, SearchResult, order, search
from supernet.searchers.successive_halving import SuccessiveHalving
from supernet.searchers.tpe import TPE
from supernet.spaces.cells import Geometry
from supernet.spaces.nb201 import NB201
from supernet.spaces.space import Gene
from tests.budgets import unlimited
from tests.commands import ROOT
from tests.tasks import task_of
from tests.variants import ALL_SPACES

SPACE = NB201(Geometry(4, 1), Geometry(4, 1))


def budget_of(space, **limits):
    """A budget with tables that were built before. ``limits`` are quantiles of the costs of random
    architectures.
    """
    budget, rng = Budget(space, task_of(10, 3)), np.random.default_rng(0)
    budget.tables = unlimited(space.name).tables
    some = [space.random(rng) for _ in range(200 if limits else 0)]
    budget.limits = {
        m: float(np.quantile([budget.tables[m].of(one) for one in some], q))
        for m, q in limits.items()
    }
    return budget


class Stop(Exception):
    pass


class Judge:
    """Judges by a coarse hash, so that there are ties. Remembers architectures and shares."""

    def __init__(self, limit=math.inf):
        self.asked, self.limit = [], limit

    def __call__(self, architecture, share):
        if len(self.asked) >= self.limit:
            raise Stop
        self.asked.append((architecture, share))
        first, second = hashlib.sha256(f"{architecture.to_json()}{share}".encode()).digest()[:2]
        return Judgement(first % 3 / 3, second / 255, 90)


def begun(searcher, space, seed=0, **limits):
    searcher = copy.deepcopy(searcher)
    noise = torch.Generator().manual_seed(1)
    scores = {g.name: torch.rand(g.shape, generator=noise) for g in space.groups}
    searcher.begin(budget_of(space, **limits), scores, np.random.default_rng(seed))
    return searcher


def additive(space, seed):
    """Judges by a sum of one random number for each value of each gene. The best architecture has
    the accuracy 1.
    """
    rng, genes = np.random.default_rng(seed), space.genes
    worth = [dict(zip(gene.values, rng.random(len(gene.values)), strict=True)) for gene in genes]
    best = sum(max(one.values()) for one in worth)

    def judge(architecture, share=1.0):
        accuracy = (
            sum(one[value] for one, value in zip(worth, space.values(architecture), strict=True))
            / best
        )
        return Judgement(accuracy, 1 - accuracy, 90)

    return judge


@cache
def every_cell():
    return [
        SPACE.express(values) for values in itertools.product(SPACE.groups[0].options, repeat=6)
    ]


# --- what every searcher must do


def test_it_ends_and_the_best_is_the_best_of_what_was_judged(space, searcher):
    judge, known = Judge(), {}
    result = search(begun(searcher, space), judge, known)
    assert list(known) == judge.asked and len(set(judge.asked)) == len(judge.asked) > 0
    assert result.judged == {
        architecture: j for (architecture, share), j in known.items() if share == 1.0
    }
    assert result.judgement == result.judged[result.best]
    for architecture, judgement in result.judged.items():
        space.validate(architecture)
        assert (judgement.accuracy, -judgement.loss) <= (
            result.judgement.accuracy,
            -result.judgement.loss,
        )


def test_it_asks_for_as_many_as_it_says_and_each_is_reported(space, searcher):
    searcher, seen, known = begun(searcher, space), [], {}
    search(searcher, Judge(), known, lambda count, judgement: seen.append((count, judgement)))
    assert [count for count, _ in seen] == list(range(1, searcher.total + 1))
    assert {judgement for _, judgement in seen} == set(known.values())


def test_the_same_seed_gives_the_same_search(space, searcher):
    first, second = Judge(), Judge()
    assert search(begun(searcher, space), first) == search(begun(searcher, space), second)
    assert first.asked == second.asked


def test_stopped_after_any_judgement_it_goes_on_to_the_same_result(space, searcher):
    """Invariant 4: what is known is not judged again. A new search has the same result."""
    judge, everything = Judge(), {}
    whole = search(begun(searcher, space), judge, everything)
    for limit in {0, len(judge.asked) // 2, len(judge.asked) - 1}:
        known = {}
        with pytest.raises(Stop):
            search(begun(searcher, space), Judge(limit), known)
        assert len(known) == limit
        rest = Judge()
        assert search(begun(searcher, space), rest, known) == whole
        assert judge.asked[limit:] == rest.asked
    nobody = Judge(0)
    assert search(begun(searcher, space), nobody, everything) == whole and not nobody.asked


def test_nothing_beyond_the_budget_is_ever_asked_for(space, searcher):
    """One in ten random architectures is within each limit. So most of a searcher's proposals are
    not.
    """
    if hasattr(searcher, "candidates"):
        searcher = replace(searcher, candidates=12 if isinstance(searcher, GaussianProcess) else 40)
    searcher = begun(
        searcher,
        space,
        params=0.1,
        madds=0.1,
    )
    asked = 0
    while batch := searcher.ask():
        for architecture in batch:
            assert all(
                unlimited(space.name).tables[metric].of(architecture) <= limit
                for metric, limit in searcher.budget.limits.items()
            )
        asked += len(batch)
        searcher.tell([(architecture, additive(space, 0)(architecture)) for architecture in batch])
    assert asked == searcher.total


# searcher by its number of candidates -> candidates and seeds for each space
BETTER = {
    "evolution": (Evolution, {"nb201": (100, 6), "darts": (200, 3), "Net": (60, 4)}),
    "local_search": (LocalSearch, {"nb201": (100, 6), "darts": (1500, 1), "Net": (60, 4)}),
    "reinforce": (ReinforceSearcher, {"nb201": (100, 6), "darts": (150, 2), "Net": (60, 4)}),
    "tpe": (TPE, {"nb201": (60, 4), "darts": (100, 2), "Net": (30, 2)}),
    "gp": (GaussianProcess, {"nb201": (25, 2), "darts": (25, 1), "Net": (20, 2)}),
    "predictor": (Predictor, {"nb201": (40, 3), "darts": (60, 1), "Net": (30, 2)}),
    "nsga2": (NSGA2, {"nb201": (200, 6), "darts": (200, 2), "Net": (100, 4)}),
}


@pytest.mark.parametrize("name", BETTER)
def test_it_finds_better_than_chance_does_with_as_many(space, name):
    make, sizes = BETTER[name]
    candidates, seeds = sizes[space.name]
    found, chance = (
        [
            search(begun(kind(candidates), space, seed), additive(space, seed)).judgement.accuracy
            for seed in range(seeds)
        ]
        for kind in (make, Random)
    )
    assert np.mean(found) > np.mean(chance) + 0.01
    assert max(found) <= 1


@pytest.mark.parametrize("name", BETTER)
def test_on_the_published_table_it_comes_near_the_best_cell(shared, name):
    """CIFAR-10 after 200 epochs, the mean of the test accuracies. The regret is in percent."""
    table = np.load(shared / "nb201_cifar10.npz")
    accuracy = dict(zip(table["arch"].tolist(), table["test_200"].astype(float) / 100, strict=True))

    def judge(architecture, share):
        value = accuracy[SPACE.encode(architecture)]
        return Judgement(value, 1 - value, 10_000)

    def regret(make, candidates, seed):
        return (
            max(accuracy.values())
            - search(begun(make(candidates), SPACE, seed), judge).judgement.accuracy
        )

    candidates, seeds = {"tpe": (100, 3), "gp": (30, 1), "predictor": (80, 1)}.get(name, (300, 5))
    found, chance = (
        np.mean([regret(make, candidates, seed) for seed in range(seeds)])
        for make in (BETTER[name][0], Random)
    )
    assert found < chance < max(accuracy.values()) - np.median(list(accuracy.values()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *[
            (lambda kind=kind: kind(candidates=0), "candidates=0: must be at least 1")
            for kind, _ in BETTER.values()
        ],
        (lambda: Random(candidates=0), "candidates=0: must be at least 1"),
        (lambda: SuccessiveHalving(candidates=0), "candidates=0: must be at least 1"),
        (lambda: Evolution(population=0), "population=0: must be at least 1"),
        (lambda: Evolution(sample=0), "sample=0: must be at least 1"),
        (lambda: SuccessiveHalving(eta=1), "eta=1: must be at least 2"),
        (lambda: SuccessiveHalving(rounds=0), "rounds=0: must be at least 1"),
        (lambda: SuccessiveHalving(growth=0.5), "growth=0.5: must be at least 1"),
        (lambda: Sampled(candidates=0), "candidates=0: must be at least 1"),
        (lambda: ReinforceSearcher(lr=0), "lr=0: must be greater than 0"),
        (lambda: ReinforceSearcher(decay=1), "decay=1: must be at least 0 and below 1"),
        (lambda: TPE(random=-1), "random=-1: must be at least 0"),
        (lambda: Predictor(batch=0), "batch=0: must be at least 1"),
        (lambda: NSGA2(population=1), "population=1: must be at least 2"),
        (lambda: NSGA2(cost="param"), "cost: unknown 'param'; did you mean 'params'"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(UserError, match=rf"^searcher\.{message}"):
        make()


# --- the loop


class Fixed(Searcher):
    """Asks for given architectures, batch by batch, and remembers the judgements that it gets."""

    def __init__(self, *batches):
        self.batches, self.told = list(batches), []

    def ask(self):
        return self.batches.pop(0) if self.batches else []

    def tell(self, judged):
        self.told.append(judged)


def test_ties_go_to_the_lower_loss_and_then_to_the_first():
    a, b, c, d = (SPACE.random(np.random.default_rng(seed)) for seed in range(4))
    judgements = {
        a: Judgement(0.5, 1.0, 10),
        b: Judgement(0.7, 2.0, 10),
        c: Judgement(0.7, 1.5, 10),
        d: Judgement(0.7, 1.5, 10),
    }
    for asked in ((a, b, c, d), (c, b, a, d), (b, a, c, d)):
        assert search(Fixed(asked), lambda one, share: judgements[one]).best == c
    assert search(Fixed((d, c)), lambda one, share: judgements[one]).best == d


def test_nothing_is_judged_twice_and_everything_asked_for_is_told():
    a, b, c = (SPACE.random(np.random.default_rng(seed)) for seed in range(3))
    judge, searcher = Judge(), Fixed([a, b, a], [b], [c, a])
    result = search(searcher, judge)
    assert judge.asked == [(a, 1.0), (b, 1.0), (c, 1.0)]
    assert searcher.told == [
        [(x, result.judged[x]) for x in batch] for batch in ((a, b, a), (b,), (c, a))
    ]


@pytest.mark.parametrize("name", ["nb201", "elastic"])
def test_of_architectures_that_count_as_the_same_one_is_judged(name):
    space, rng = ALL_SPACES[name](), np.random.default_rng(0)
    asked = [space.random(rng) for _ in range(100)]
    judge, searcher = Judge(), Fixed(asked[:50], asked[50:])
    result = search(searcher, judge, same=space.canonical)
    distinct = list(dict.fromkeys(map(space.canonical, asked)))
    assert [one for one, _ in judge.asked] == distinct == list(result.judged)
    assert len(distinct) < len(set(asked)) and result.best in distinct
    told = [pair for batch in searcher.told for pair in batch]
    assert told == [(one, result.judged[space.canonical(one)]) for one in asked]


def test_what_is_known_but_was_not_asked_for_cannot_win():
    """A search has its own candidates: judgements that another searcher left are not among them."""
    a, b = (SPACE.random(np.random.default_rng(seed)) for seed in range(2))
    result = search(Fixed([a]), Judge(), {(b, 1.0): Judgement(1.0, 0.0, 90)})
    assert result.best == a and set(result.judged) == {a}


def test_the_front_is_what_nothing_beats_by_brute_force():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        cells = list({SPACE.random(rng) for _ in range(60)})
        # with ties
        judged = {one: Judgement(rng.integers(12) / 12, rng.integers(3) / 3, 12) for one in cells}
        cost = {one: float(rng.integers(12)) for one in cells}
        points = {(cost[one], -judged[one].accuracy) for one in cells}
        undominated = sorted(
            p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)
        )
        front = SearchResult(cells[0], judged[cells[0]], judged, {}).front(cost.__getitem__)
        assert [(cost[one], -judgement.accuracy) for one, judgement in front] == undominated
        for one, judgement in front:  # of several at one point, it is the one of the lowest loss
            equal = [
                judged[x].loss
                for x in cells
                if (cost[x], judged[x].accuracy) == (cost[one], judgement.accuracy)
            ]
            assert judgement == judged[one] and judgement.loss == min(equal)


# --- what each one does


def test_random_draws_as_many_as_the_setting_says_and_others_by_another_seed(space):
    drawn = []
    for seed in (0, 0, 1):
        searcher, asked = begun(Random(candidates=7), space, seed), []
        while batch := searcher.ask():
            asked += batch
        drawn.append(asked)
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0]) == 7


def test_the_logits_searcher_gives_the_spaces_derivation(space):
    searcher = begun(ByLogits(), space)
    judge = Judge()
    assert search(searcher, judge).best == space.derive(searcher.scores) and len(judge.asked) == 1


def test_sampled_draws_each_option_with_its_score_as_probability():
    """Chi-squared over the options of every slot. The slots do not depend on each other."""
    from scipy.stats import chi2_contingency, chisquare

    searcher, draws = begun(Sampled(candidates=2000), SPACE), []
    scores = torch.softmax(2 * torch.randn(6, 5, generator=torch.Generator().manual_seed(3)), dim=1)
    searcher.begin(searcher.budget, {"edges": scores}, np.random.default_rng(0))
    while batch := searcher.ask():
        draws += batch
    rows = np.array(
        [[SPACE.groups[0].options.index(option) for option in one["edges"]] for one in draws]
    )
    for slot in range(6):
        expected = scores[slot].double().numpy()
        assert (
            chisquare(
                np.bincount(rows[:, slot], minlength=5), 2000 * expected / expected.sum()
            ).pvalue
            > 1e-3
        )
    together = np.zeros((5, 5))
    np.add.at(together, (rows[:, 0], rows[:, 1]), 1)
    assert chi2_contingency(together[:, together.any(0)][together.any(1)]).pvalue > 1e-3


def test_sampled_draws_what_a_certain_score_says(space):
    """If one architecture has all of the score, every draw is this one. The rules of a space are
    kept.
    """
    architecture = space.random(np.random.default_rng(5))
    scores = {n: torch.zeros(g.shape) for g in space.groups for n in [g.name]}
    for name, choice in space.path(architecture).items():
        for slot, (option,) in enumerate(choice.active):
            scores[name][slot, option] = 1.0
    searcher = begun(Sampled(candidates=20), space)
    searcher.begin(searcher.budget, scores, np.random.default_rng(0))
    drawn = [one for _ in range(20) for one in searcher.ask()]
    # a score of zero is a probability of one in a million
    assert drawn.count(architecture) >= 19 and not searcher.ask()


def test_random_search_with_weight_sharing_is_that_of_the_authors_code():
    """1,000 architectures on 10 batches of 64 of 25,000 images, then the best 10 on all images. The
    test counts how much is judged.
    """
    node = yaml.safe_load(
        (ROOT / "conf" / "searcher" / "random_search_ws.yaml").read_text(encoding="utf-8")
    )
    searcher, known = begun(build(node, "searcher"), SPACE), {}

    def judge(architecture, share):
        first, second = hashlib.sha256(architecture.to_json().encode()).digest()[:2]
        return Judgement(first / 255, second / 255, round(share * 25_000))

    result = search(searcher, judge, known)
    few = {one: judgement for (one, share), judgement in known.items() if share < 1}
    assert {judgement.images for judgement in few.values()} == {641} and 900 < len(few) <= 1000
    assert set(result.judged) == set(sorted(few, key=lambda one: order(few[one]))[:10])
    assert len(result.told) == len(known) == len(few) + 10
    assert result.images == 641 * len(few) + 25_000 * 10


def test_evolution_is_algorithm_1(space):
    """Compared with the paper's pseudocode, written out: a population, a history, samples with
    replacement, and the removal of the oldest.
    """
    judge, rng = additive(space, 0), np.random.default_rng(5)
    population, history = deque(), []
    while len(population) < 6:
        model = space.random(rng)
        population.append((model, judge(model)))
        history.append(model)
    while len(history) < 50:
        sample = []
        while len(sample) < 3:
            sample.append(population[rng.integers(6)])
        parent = max(sample, key=lambda one: one[1].accuracy)
        child = space.mutate(parent[0], rng)
        population.append((child, judge(child)))
        history.append(child)
        population.popleft()
    searcher, asked = begun(Evolution(candidates=50, population=6, sample=3), space, 5), []
    while batch := searcher.ask():
        asked += batch
        searcher.tell([(one, judge(one)) for one in batch])
    assert asked == history
    assert list(searcher.living) == list(population)


@pytest.mark.parametrize("limits", [{}, {"params": 0.2}])
def test_local_search_ends_where_no_neighbour_is_better(limits):
    searcher = begun(LocalSearch(candidates=400), SPACE, **limits)
    judge = Judge()
    result = search(searcher, judge)
    for other in every_cell():
        if sum(
            a != b for a, b in zip(other["edges"], result.best["edges"], strict=True)
        ) == 1 and searcher.budget.allows(other):
            assert order(result.judged[other]) >= order(result.judgement)


def test_local_search_climbs_to_the_one_peak_there_is_by_the_steepest_way():
    judge, searcher = additive(SPACE, 3), begun(LocalSearch(candidates=150), SPACE)
    (here,) = searcher.ask()
    searcher.tell([(here, judge(here))])
    while True:  # the steepest way, written out, one gene at a time
        around = [
            SPACE.express([*here["edges"][:i], option, *here["edges"][i + 1 :]])
            for i in range(6)
            for option in SPACE.groups[0].options
        ]
        best = max(around, key=lambda one: judge(one).accuracy)
        if best == here:
            break
        asked = searcher.ask()
        assert (
            searcher.here == here
            and set(asked) <= set(around)
            and set(around) <= {*searcher.judged, *asked}
        )
        searcher.tell([(one, judge(one)) for one in asked])
        here = best
    assert judge(here).accuracy == pytest.approx(1)


def test_successive_halving_judges_fewer_on_more():
    searcher, judge = begun(SuccessiveHalving(candidates=81, eta=3, rounds=4), SPACE), Judge()
    rounds = []
    while batch := searcher.ask():
        rounds.append((searcher.share, batch))
        judged = [(one, judge(one, searcher.share)) for one in batch]
        if len(rounds) > 1:
            assert set(batch) <= set(rounds[-2][1])
        searcher.tell(judged)
        ranks = sorted(
            {one: order(judgement) for one, judgement in judged}.items(), key=lambda one: one[1]
        )
        if len(rounds) < 4:
            # the best third, and no other
            assert searcher.pool == [one for one, _ in ranks[: len(batch) // 3]]
    assert [len(batch) for _, batch in rounds] == [81, 27, 9, 3]
    assert [share for share, _ in rounds] == [1 / 27, 1 / 9, 1 / 3, 1.0]
    assert searcher.total == 120


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ((10, 2, 5), [10, 5, 2, 1, 1]),
        ((7, 3, 1), [7]),
        ((100, 3, 4), [100, 33, 11, 3]),
        ((1, 2, 2), [1, 1]),
    ],
)
def test_successive_halving_always_ends_on_all_images(settings, counts):
    searcher, judge = begun(SuccessiveHalving(*settings), SPACE), Judge()
    result = search(searcher, judge)
    shares = [share for _, share in judge.asked]
    assert searcher.counts == counts and searcher.share == 1.0
    assert [shares.count(share) for share in dict.fromkeys(shares)] == counts
    assert len(result.judged) == counts[-1]


def test_reinforce_follows_the_gradient_of_the_expected_reward(space):
    """Its gradient is computed by hand. The architecture that the policy prefers at the end is
    good.
    """
    searcher, rewards, baseline = begun(ReinforceSearcher(decay=0.8), space), [0.5, 0.9, 0.2], 0.5
    for reward in rewards:
        (asked,) = searcher.ask()
        before = [torch.softmax(logits.detach(), 0).numpy() for logits in searcher.policy]
        chosen = [
            gene.values.index(value)
            for gene, value in zip(space.genes, space.values(asked), strict=True)
        ]
        searcher.tell([(asked, Judgement(reward, 1.0, 10))])
        for logits, p, index in zip(searcher.policy, before, chosen, strict=True):
            np.testing.assert_allclose(
                logits.grad, -(reward - baseline) * (np.eye(len(p))[index] - p), atol=1e-15
            )
        baseline = 0.8 * baseline + 0.2 * reward
        assert searcher.baseline == pytest.approx(baseline)
    searcher = begun(ReinforceSearcher(candidates=120, lr=0.2), space)
    search(searcher, additive(space, 1))
    likeliest = [
        gene.values[int(logits.argmax())]
        for gene, logits in zip(space.genes, searcher.policy, strict=True)
    ]
    assert additive(space, 1)(space.express(likeliest)).accuracy > 0.8


def test_reinforce_draws_by_its_policy():
    searcher = begun(ReinforceSearcher(candidates=1000), SPACE)
    with torch.no_grad():
        searcher.policy[0][3] = 2.0
    drawn = [searcher.ask()[0]["edges"] for _ in range(1000)]
    for edge, expected in ((0, np.exp(2) / (np.exp(2) + 4)), (1, 0.2)):
        share = np.mean([cell[edge] == SPACE.groups[0].options[3] for cell in drawn])
        assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 1000)


class Half(NB201):
    """NAS-Bench-201 with three of its six edges decided: 125 cells."""

    @property
    def genes(self):
        return tuple(
            Gene(gene.name, gene.values if i % 2 else ("skip_connect",))
            for i, gene in enumerate(super().genes)
        )


@pytest.mark.parametrize("cost", ["params", "madds"])
def test_nsga2_finds_the_front_of_a_small_problem(cost):
    """Compared with brute force."""
    space = Half(Geometry(4, 1), Geometry(4, 1))
    searcher, worth = begun(NSGA2(candidates=300, cost=cost), space), additive(space, 7)
    price = searcher.budget.tables[cost].of
    every = [
        space.express(values)
        for values in itertools.product(*(gene.values for gene in space.genes))
    ]
    most = max(map(price, every))

    # an expensive cell is better; otherwise one cell would be the whole front
    def judge(architecture, share=1.0):
        accuracy = (worth(architecture).accuracy + price(architecture) / most) / 2
        return Judgement(accuracy, 1 - accuracy, 90)

    points = {(price(one), -judge(one).accuracy) for one in every}
    undominated = sorted(
        p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)
    )
    found = search(searcher, judge)
    assert [
        (price(one), -judgement.accuracy) for one, judgement in found.front(price)
    ] == undominated
    assert len(undominated) > 3


def test_nsga2_comes_near_the_front_of_a_large_problem():
    """All cells; more parameters make better ones. Compared is the area below the front: of all
    cells, of NSGA-II, and of random search.
    """
    worth, price = additive(SPACE, 7), budget_of(SPACE).tables["params"].of
    prices = {one: price(one) for one in every_cell()}
    most = max(prices.values())

    def judge(architecture, share=1.0):
        accuracy = (worth(architecture).accuracy + prices[architecture] / most) / 2
        return Judgement(accuracy, 1 - accuracy, 90)

    def area(result):
        front = result.front(prices.__getitem__)
        ends = [*(prices[one] for one, _ in front[1:]), most]
        return sum(
            (end - prices[one]) * judgement.accuracy
            for (one, judgement), end in zip(front, ends, strict=True)
        )

    best = area(SearchResult(None, None, {one: judge(one) for one in prices}, {}))
    found, chance = (
        area(search(begun(searcher, SPACE), judge))
        for searcher in (NSGA2(candidates=500), Random(500))
    )
    assert found <= best
    assert best - found < (best - chance) / 2


def test_optuna_says_nothing(capfd):
    search(begun(TPE(candidates=12), SPACE, params=0.1), Judge())
    search(begun(NSGA2(candidates=12, population=4), SPACE, params=0.1), Judge())
    assert capfd.readouterr() == ("", "")
