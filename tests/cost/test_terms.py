"""Costs that several decisions have together: measured on whole networks, limited, expected and
timed. Each is compared with all architectures of a small space.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from supernet.cost.budget import Budget
from supernet.cost.count import count
from supernet.cost.latency import Bench, latency_error, measured, read_table, write_table
from supernet.cost.program import maximised
from supernet.cost.table import CostTable, Term, decomposed, nothing
from supernet.device import choose_device
from supernet.errors import UserError
from supernet.mixture import Choice, softmax_mixture
from supernet.randomness import Streams
from supernet.samplers.fair import Fair
from supernet.samplers.sandwich import Sandwich
from supernet.searchers.nsga2 import NSGA2
from supernet.spaces.capabilities import Costed
from supernet.spaces.space import Space
from tests.spaces.elastic import Elastic
from tests.tasks import task_of

TASK = task_of(10, 3)
SPACE = Elastic(blocks=2)
EVERY = [
    SPACE.express(values) for values in itertools.product(*(gene.values for gene in SPACE.genes))
]
METRICS = ("params", "madds")


@pytest.fixture(scope="module")
def budget() -> Budget:
    return Budget(SPACE, TASK)


@pytest.fixture(scope="module")
def costs() -> dict[str, np.ndarray]:
    """The costs of every architecture, by counting its network."""
    found = [count(SPACE.standalone(one, TASK), TASK) for one in EVERY]
    return {metric: np.array([getattr(one, metric) for one in found]) for metric in METRICS}


def limited(budget: Budget, **limits: float) -> Budget:
    narrow = Budget(SPACE, TASK)
    narrow.tables, narrow.limits = budget.tables, limits
    return narrow


def scores(seed: int) -> dict[str, torch.Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return {g.name: torch.randn(g.shape, generator=noise).double() for g in SPACE.groups}


def totals(table: dict[str, torch.Tensor]) -> np.ndarray:
    """The score of every architecture."""
    groups = {g.name: g for g in SPACE.groups}
    return np.array(
        [
            sum(
                float(table[name][slot, groups[name].options.index(option)])
                for name, options in one.choices
                for slot, option in enumerate(options)
            )
            for one in EVERY
        ]
    )


def test_tables_give_the_cost_of_every_network(budget, costs):
    assert len(EVERY) == 3**2 * 2**2 * 2
    for metric in METRICS:
        assert [budget.tables[metric].of(one) for one in EVERY] == costs[metric].tolist()
        assert len(budget.tables[metric].joint) == 2


def test_a_sum_of_overlapping_terms_is_found_again():
    """Random functions of overlapping slots. Their values are known only for architectures that
    differ from the first one in one of the terms.
    """
    rng = np.random.default_rng(0)

    class Other(Elastic):
        def terms(self):
            return [
                (("kernel", 0), ("width", 0)),
                (("width", 0), ("width", 1), ("depth", 0)),
                (("width", 1),),
                (("kernel", 1), ("depth", 0), ("width", 0)),
            ]

    space, shape = Other(blocks=2), {g.name: len(g.options) for g in SPACE.groups}
    functions = {t: rng.normal(size=[shape[g] for g, _ in t]) for t in space.terms()}

    def cost(one) -> float:
        path = space.path(one)
        return 3.0 + sum(
            float(values[tuple(path[g].active[s][0] for g, s in slots)])
            for slots, values in functions.items()
        )

    table = decomposed(space, {one: cost(one) for one in EVERY})
    assert [table.of(one) for one in EVERY] == pytest.approx([cost(one) for one in EVERY])


def test_terms_that_leave_a_slot_out_are_one_line():
    class Wrong(Elastic):
        def terms(self):
            return [(("depth", 0), ("width", i), ("kernel", i)) for i in range(self.blocks)]

    with pytest.raises(UserError, match=r"the space elastic: its terms\(\) give .* which has") as e:
        _ = Budget(Wrong(), TASK).tables
    assert "\n" not in str(e.value)


def test_the_best_within_limits_is_that_of_all_architectures(budget, costs):
    rng, moved = np.random.default_rng(1), 0
    for seed in range(60):
        table = scores(seed)
        limits = {
            metric: float(rng.choice(costs[metric]))
            for metric in (("params",), ("madds",), METRICS)[seed % 3]
        }
        within = np.all([costs[metric] <= limit for metric, limit in limits.items()], axis=0)
        found = limited(budget, **limits).best(table)
        if not within.any():
            assert found is None
            continue
        assert within[EVERY.index(found)]
        assert totals(table)[EVERY.index(found)] == pytest.approx(totals(table)[within].max())
        moved += found != SPACE.derive(table)
    assert moved > 20  # the limits change the result


def test_the_ends_are_those_of_all_architectures(budget, costs):
    for metric, other in (METRICS, METRICS[::-1]):
        limit = float(np.quantile(costs[other], 0.4))
        narrow, table = limited(budget, **{other: limit}), budget.tables[metric]
        within = costs[metric][costs[other] <= limit]
        assert table.of(budget.cheapest(metric)) == costs[metric].min()
        assert table.of(narrow.smallest(metric)) == within.min()
        assert table.of(narrow.largest(metric)) == within.max()


@pytest.mark.parametrize("seed", range(20))
def test_any_terms_are_solved_exactly(seed):
    """The terms, costs and values are random, and some are negative."""
    rng, groups = np.random.default_rng(seed), {g.name: g for g in SPACE.groups}
    slots = [(g.name, s) for g in SPACE.groups for s in range(g.slots)]

    def random_table() -> CostTable:
        options = {g.name: torch.from_numpy(rng.normal(size=g.shape)) for g in SPACE.groups}
        joint = []
        for _ in range(3):
            chosen = rng.choice(len(slots), size=rng.integers(2, 4), replace=False)
            read = tuple(slots[i] for i in chosen)
            shape = [len(groups[g].options) for g, _ in read]
            joint.append(Term(read, torch.from_numpy(rng.normal(size=shape))))
        return CostTable(SPACE, float(rng.normal()), options, tuple(joint))

    value, cost = random_table(), random_table()
    of_all = np.array([cost.of(one) for one in EVERY])
    limit = float(np.quantile(of_all, 0.2))
    best = max(value.of(one) for one, c in zip(EVERY, of_all, strict=True) if c <= limit)
    found = maximised(value, [(cost, limit)])
    assert cost.of(found) <= limit and value.of(found) == pytest.approx(best)


def test_expected_costs_are_means_over_all_architectures(budget, costs):
    """The gradients are the slopes of these means."""
    tables = scores(3)

    def probability(logits) -> torch.Tensor:
        shares = {name: torch.softmax(table, -1) for name, table in logits.items()}
        return torch.stack(
            [
                math.prod(
                    shares[name][slot, option]
                    for name, choice in SPACE.path(one).items()
                    for slot, (option,) in enumerate(choice.active)
                )
                for one in EVERY
            ]
        )

    for metric in METRICS:
        logits = {name: table.clone().requires_grad_() for name, table in tables.items()}
        mean = (probability(logits) * torch.from_numpy(costs[metric])).sum()
        expected = torch.autograd.grad(mean, list(logits.values()))
        found = budget.tables[metric].expected(softmax_mixture(logits))
        torch.testing.assert_close(found, mean)
        gradients = torch.autograd.grad(found, list(logits.values()))
        for one, other in zip(gradients, expected, strict=True):
            torch.testing.assert_close(one, other)


def test_random_near_and_fair_architectures_keep_the_budget(budget, costs):
    narrow = limited(budget, params=float(np.quantile(costs["params"], 0.3)))
    rng = np.random.default_rng(2)
    for one in [narrow.random(rng) for _ in range(20)] + [narrow.nearest(one) for one in EVERY]:
        assert narrow.allows(one)
    wide = limited(budget, params=float(np.quantile(costs["params"], 0.9)))
    sampler = Fair()
    sampler.begin(wide, Streams(0), torch.device("cpu"))
    largest = 0.0
    for step in range(20):
        for mixture in sampler.mixtures({}, step / 20, lambda mixture: torch.zeros(())):
            one = SPACE.express(
                [g.options[option] for g in SPACE.groups for (option,) in mixture[g.name].active]
            )
            largest = max(largest, wide.tables["params"].of(one))
    assert costs["params"].min() < largest <= wide.limits["params"]


def test_a_latency_table_is_read_off_whole_networks_and_survives_its_file(
    costs, tmp_path, monkeypatch
):
    """If times add up, the table is exact for all networks. With the times of a real clock, it is
    written and read again.
    """
    bench = Bench(SPACE, TASK, choose_device("cpu"), Streams(0), rounds=2)
    monkeypatch.setattr(Bench, "networks", lambda self, some: {one: one for one in some})
    times = dict(zip(EVERY, costs["madds"] / 1000, strict=True))
    monkeypatch.setattr(Bench, "timed", lambda self, jobs: {one: times[one] for one in jobs})
    table = measured(bench)
    assert [table.of(one) for one in EVERY] == pytest.approx([times[one] for one in EVERY])
    assert latency_error(table, bench, 10).rank_correlation == pytest.approx(1)
    monkeypatch.undo()
    table = measured(bench)
    write_table(tmp_path / "times.csv", table)
    again = read_table(tmp_path / "times.csv", SPACE)
    assert [again.of(one) for one in EVERY] == [table.of(one) for one in EVERY]
    text = (tmp_path / "times.csv").read_text()
    (tmp_path / "short.csv").write_text(text[: text.rindex("depth+")])
    with pytest.raises(UserError, match=r"short\.csv: no row depth\+width\+width\+kernel,"):
        read_table(tmp_path / "short.csv", SPACE)


@dataclass
class Uncosted(Space):
    """The same space, which defines no costs."""

    blocks: int = 2

    name = "free"

    def __post_init__(self):
        self.groups = Elastic(self.blocks).groups

    def supernet(self, task, form="search"):
        return Elastic(self.blocks).supernet(task)

    def standalone(self, architecture, task, form="evaluation"):
        elastic = Elastic(self.blocks)
        return elastic.standalone(elastic.express(self.values(architecture)), task)

    def inherit(self, supernet, architecture):
        raise NotImplementedError


def test_a_space_whose_costs_do_not_add_up_has_costs_and_no_limits(costs):
    space = Uncosted(blocks=2)
    free = Budget(space, TASK)
    assert not isinstance(space, Costed) and free.tables == {}
    one = space.express(SPACE.values(EVERY[7]))
    assert free.costs(one) == {metric: costs[metric][7] for metric in METRICS}
    assert free.best(scores(0)) == space.derive(scores(0))
    assert float(free.excess({"depth": Choice.dense(torch.ones(1, 2))})) == 0
    with pytest.raises(
        UserError, match=r"budget\.params=5: the space free does not say .*; leave the limit out"
    ) as error:
        Budget(space, TASK, {"params": 5})
    assert "\n" not in str(error.value)
    for asks in (
        free.largest,
        lambda: NSGA2().begin(free, scores(0), np.random.default_rng(0)),
        lambda: Sandwich().begin(free, Streams(0), torch.device("cpu")),
        lambda: measured(Bench(space, TASK, torch.device("cpu"), Streams(0))),
    ):
        with pytest.raises(UserError, match="the space free does not say") as error:
            asks()
        assert "\n" not in str(error.value)
    assert nothing(space).keys() == {"kernel", "width", "depth"}
