"""Budgets: no architecture breaks the limits, and the derived one is the best within them, by brute
force.
"""

import itertools
import re
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supernet.cost.budget import Budget
from supernet.cost.count import count
from supernet.cost.program import maximised
from supernet.cost.settings import BudgetSettings
from supernet.cost.table import CostTable
from supernet.errors import UserError
from supernet.mixture import Choice, softmax_mixture
from supernet.spaces.nb201 import NB201
from tests.budgets import unlimited
from tests.tasks import task_for, task_of
from tests.variants import SPACES

TASK = task_of(10, 3)


@cache
def some_costs(name: str) -> dict[str, np.ndarray]:
    """The costs of some hundred random architectures, from which limits are taken."""
    tables, space, rng = unlimited(name).tables, unlimited(name).space, np.random.default_rng(0)
    return {
        metric: np.array([tables[metric].of(space.random(rng)) for _ in range(300)])
        for metric in ("params", "madds")
    }


def limited(name: str, **limits: float) -> Budget:
    """The budget of a space with these limits, and with tables that were built before."""
    budget = Budget(unlimited(name).space, task_for(unlimited(name).space))
    budget.tables = unlimited(name).tables
    budget.limits = limits
    return budget


def scores(space, seed: int) -> dict[str, torch.Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return {
        g.name: torch.randn(g.shape, generator=noise, dtype=torch.float64) for g in space.groups
    }


def total(space, table, architecture) -> float:
    """The score of an architecture: the sum over its choices, as far as the space counts them."""
    gains = space.gains(table)
    return sum(
        float(gains[g.name][slot, g.options.index(option)])
        for g in space.groups
        for slot, option in enumerate(architecture[g.name])
    )


@pytest.mark.parametrize("name", SPACES)
def test_the_table_adds_up_to_what_the_network_has(name):
    """Compares the table with PyTorch's own count of the standalone network."""
    budget, rng = unlimited(name), np.random.default_rng(1)
    for _ in range(5):
        architecture = budget.space.random(rng)
        task = task_for(budget.space)
        cost = count(budget.space.standalone(architecture, task), task)
        assert budget.costs(architecture) == {"params": cost.params, "madds": cost.madds}


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_the_nearest_within_is_as_near_as_any_of_all_15625_cells(share):
    free, rng = unlimited("nb201"), np.random.default_rng(3)
    budget = limited("nb201", params=float(np.quantile(some_costs("nb201")["params"], share)))
    within = [cell for cell in every_cell(free.space) if budget.allows(cell)]
    for _ in range(10):
        cell = free.space.random(rng)
        found = budget.nearest(cell)
        assert budget.allows(found)
        assert changes(cell, found) == min(changes(cell, other) for other in within)
        assert found == cell or not budget.allows(cell)


def every_cell(space):
    return [
        space.express(values) for values in itertools.product(space.groups[0].options, repeat=6)
    ]


def changes(one, other) -> int:
    return sum(a != b for a, b in zip(one["edges"], other["edges"], strict=True))


@pytest.mark.parametrize("name", SPACES)
def test_what_is_drawn_again_until_it_is_within_is_the_first_that_is_or_the_nearest(name):
    budget, rng = (
        limited(name, params=float(np.quantile(some_costs(name)["params"], 0.1))),
        np.random.default_rng(4),
    )
    draws = [budget.space.random(rng) for _ in range(200)]
    first = next(one for one in draws if budget.allows(one))
    assert budget.within(iter(draws).__next__) == first
    outside = [one for one in draws if not budget.allows(one)]
    assert budget.within(iter(outside).__next__, tries=5) == budget.nearest(outside[4])
    assert budget.allows(budget.nearest(outside[4]))


def test_costs_of_all_nb201_cells_are_the_published_ones(shared):
    table = np.load(shared / "nb201_cifar10.npz")
    budget = Budget(
        NB201(*[type(unlimited("nb201").space.search)(16, 5)] * 2), task_of(10, 3, (32, 32))
    )
    cells = [budget.space.decode(str(text)) for text in table["arch"]]
    params, madds = (
        [budget.tables[metric].of(cell) for cell in cells] for metric in ("params", "madds")
    )
    np.testing.assert_allclose(np.array(params) / 1e6, table["params_m"], atol=5e-7)
    assert np.corrcoef(madds, table["madds_m"])[0, 1] > 0.999


def test_derivation_is_optimal_among_all_15625_cells():
    budget, rng = unlimited("nb201"), np.random.default_rng(2)
    options = budget.space.groups[0].options
    every = np.array(list(itertools.product(range(len(options)), repeat=6)))
    costs = {
        m: t.fixed + t.options["edges"].numpy()[np.arange(6), every].sum(1)
        for m, t in budget.tables.items()
    }
    for seed in range(100):
        table = scores(budget.space, seed)
        limits = {
            metric: float(rng.choice(costs[metric]))
            for metric in (("params",), ("madds",), ("params", "madds"))[seed % 3]
        }
        within = np.all([costs[metric] <= limit for metric, limit in limits.items()], axis=0)
        best = table["edges"].numpy()[np.arange(6), every].sum(1)[within].max()
        found = limited("nb201", **limits).best(table)
        assert total(budget.space, table, found) == pytest.approx(best, abs=1e-9)


def test_derivation_of_a_cell_with_two_in_edges_a_node_is_optimal():
    """The normal cell of DARTS has too many architectures to try all of them. The costs of all its
    operations are made equal, so that each node can be solved by brute force.

    The limit on parameters is a multiple of the cost of one operation. Then the only question is
    where to spend it.
    """
    budget = unlimited("darts")
    for seed in range(10):
        table = scores(budget.space, seed)
        value = CostTable(budget.space, 0.0, budget.space.gains(table))
        # the rules are the same as in the derivation
        assert maximised(value, []) == budget.space.derive(table)
        tight = limited("darts", params=float(np.quantile(some_costs("darts")["params"], 0.3)))
        found = tight.best(table)
        better = [
            n
            for n in budget.space.neighbours(found)
            if tight.allows(n)
            and total(budget.space, table, n) > total(budget.space, table, found) + 1e-9
        ]
        assert not better  # a change of one gene improves nothing


@settings(max_examples=800, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    name=st.sampled_from(list(SPACES)),
    params=st.floats(0, 1),
    madds=st.floats(0, 1) | st.none(),
)
def test_nothing_derived_or_drawn_ever_violates(seed, name, params, madds):
    budget = limited(name, params=float(np.quantile(some_costs(name)["params"], params)))
    if madds is not None:
        budget.limits["madds"] = float(np.quantile(some_costs(name)["madds"], madds))
    try:
        derived = budget.best(scores(budget.space, seed))
    except UserError:  # the two limits together can be impossible; a run is then refused
        assert madds is not None
        return
    budget.space.validate(derived)
    costs = budget.costs(derived)  # the first test compares these with the network
    assert all(costs[metric] <= limit for metric, limit in budget.limits.items())


@pytest.mark.parametrize("name", SPACES)
def test_random_architectures_keep_the_budget_and_stay_uniform(name):
    budget = limited(name, params=float(np.quantile(some_costs(name)["params"], 0.5)))
    rng, plain = np.random.default_rng(3), np.random.default_rng(3)
    drawn = [budget.random(rng) for _ in range(50)]
    assert all(map(budget.allows, drawn))
    expected = [a for a in (budget.space.random(plain) for _ in range(500)) if budget.allows(a)]
    assert drawn == expected[:50]  # rejection: the same draws, without those that break the limit


@pytest.mark.parametrize("name", SPACES)
def test_a_budget_too_narrow_to_hit_by_chance_still_gives_architectures(name, monkeypatch):
    monkeypatch.setattr("supernet.cost.budget.TRIES", 3)
    least = unlimited(name).tables["params"].of(unlimited(name).cheapest())
    budget, rng = limited(name, params=least), np.random.default_rng(4)
    assert all(budget.allows(budget.random(rng)) for _ in range(5))


@pytest.mark.parametrize("name", SPACES)
def test_cheapest_and_largest_are_the_ends(name):
    budget = unlimited(name)
    for metric, table in budget.tables.items():
        least, most = table.of(budget.cheapest(metric)), table.of(budget.largest(metric))
        assert least <= some_costs(name)[metric].min() and most >= some_costs(name)[metric].max()


@pytest.mark.parametrize("name", SPACES)
def test_an_impossible_budget_names_the_cheapest_architecture(name):
    least = unlimited(name).cheapest()
    with pytest.raises(UserError, match="no architecture") as error:
        Budget(unlimited(name).space, task_for(unlimited(name).space), {"params": 1})
    assert unlimited(name).space.encode(least) in str(error.value) and "\n" not in str(error.value)


def test_limits_that_exclude_each_other_are_refused():
    budget = unlimited("darts")
    limits = {
        metric: budget.tables[metric].of(budget.cheapest(metric)) for metric in ("params", "madds")
    }
    both = [
        a
        for a in (budget.cheapest("params"), budget.cheapest("madds"))
        if limited("darts", **limits).allows(a)
    ]
    if not both:
        with pytest.raises(UserError, match="at once"):
            Budget(budget.space, task_for(budget.space), limits)


def test_expected_cost_is_the_mean_over_draws():
    """In NAS-Bench-201 the slots are independent. The expected cost is compared with the mean over
    all cells, weighted by their probabilities.
    """
    budget = unlimited("nb201")
    logits = {
        "edges": torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    }
    share = torch.softmax(logits["edges"], -1).numpy()
    every = np.array(list(itertools.product(range(5), repeat=6)))
    weight = share[np.arange(6), every].prod(1)
    table = budget.tables["params"]
    cost = table.fixed + table.options["edges"].numpy()[np.arange(6), every].sum(1)
    assert float(table.expected(softmax_mixture(logits))) == pytest.approx((weight * cost).sum())


def test_expected_cost_of_equal_shares_is_that_of_random_architectures():
    """In DARTS, each node keeps two edges. The expected cost is within three standard errors of the
    mean over random draws.
    """
    budget = unlimited("darts")
    mixture = {
        g.name: Choice.dense(torch.full(g.shape, 1 / 7).index_fill(1, torch.tensor([0]), 0))
        for g in budget.space.groups
    }
    drawn = some_costs("darts")["params"]
    assert abs(
        float(budget.tables["params"].expected(mixture)) - drawn.mean()
    ) < 3 * drawn.std() / np.sqrt(len(drawn))


def test_excess_is_zero_within_the_limits():
    budget = unlimited("nb201")
    logits = {"edges": torch.zeros(6, 5, requires_grad=True)}
    expected = float(budget.tables["params"].expected(softmax_mixture(logits)).detach())
    assert limited("nb201", params=2 * expected).excess(softmax_mixture(logits)) == 0
    over = limited("nb201", params=expected / 2).excess(softmax_mixture(logits))
    assert float(over.detach()) == pytest.approx(1, rel=1e-6)
    (gradient,) = torch.autograd.grad(over, [logits["edges"]])
    assert gradient.abs().sum() > 0  # a penalty without a gradient would have no effect


# --- skip connections


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_a_limit_of_skips_is_one_more_row_of_the_derivation(limit):
    """The result is the best of all 15,625 cells with at most so many skips, by brute force. The
    limit affects nothing else.
    """
    space = unlimited("nb201").space
    budget = Budget(space, TASK, {"skips": limit})
    cells = [cell for cell in every_cell(space) if cell["edges"].count("skip_connect") <= limit]
    assert sum(budget.allows(cell) for cell in every_cell(space)) == len(cells)
    table = scores(space, limit)
    # four skips would be the best
    table["edges"][:4, space.groups[0].options.index("skip_connect")] += 3.0
    values = sum(
        table["edges"][slot, [[space.groups[0].options.index(c["edges"][slot]) for c in cells]]][0]
        for slot in range(6)
    )
    found = budget.best(table)
    assert found["edges"].count("skip_connect") == limit
    assert total(space, table, found) == pytest.approx(float(values.max()))


def test_a_limit_of_skips_binds_the_groups_that_are_named_and_every_draw():
    space, rng = unlimited("darts").space, np.random.default_rng(0)
    budget = Budget(space, TASK, BudgetSettings(skips={"normal": 2}).limits())
    table = {
        g.name: torch.ones(g.shape).index_fill(
            1, torch.tensor([g.options.index("skip_connect")]), 2.0
        )
        for g in space.groups
    }
    found = budget.best(table)
    assert (found["normal"].count("skip_connect"), found["reduce"].count("skip_connect")) == (2, 8)
    drawn = [budget.random(rng) for _ in range(50)]
    assert (
        max(cell["normal"].count("skip_connect") for cell in drawn)
        == 2
        < max(c["reduce"].count("skip_connect") for c in drawn)
    )


def test_a_limit_of_skips_below_one_is_a_share_of_the_edges_that_an_architecture_has():
    """A quarter is two of the eight edges of a cell of DARTS, as in P-DARTS, and one of the six
    edges of NAS-Bench-201.
    """
    darts, nb201 = (
        Budget(unlimited(name).space, TASK, {"skips": 0.25}) for name in ("darts", "nb201")
    )
    assert darts.limits == {"skips/normal": 2, "skips/reduce": 2} and nb201.limits == {
        "skips/edges": 1
    }
    assert Budget(unlimited("nb201").space, TASK, {"skips/edges": 0.5}).limits == {"skips/edges": 3}


def test_a_limit_of_skips_moves_no_logits():
    """It limits architectures; the penalty on logits depends on costs only."""
    space = unlimited("nb201").space
    logits = torch.zeros(6, 5, requires_grad=True)
    mixture = softmax_mixture({"edges": logits})
    assert float(Budget(space, TASK, {"skips": 0}).excess(mixture)) == 0.0
    cheap = Budget(space, TASK).tables["params"].of(Budget(space, TASK).cheapest()) + 1
    limits = {"params": cheap}
    both, one = (
        Budget(space, TASK, some).excess(mixture) for some in (limits | {"skips": 0}, limits)
    )
    assert float(both.detach()) == float(one.detach()) > 0


def test_a_limit_of_skips_names_a_group_that_there_is():
    message = "budget.skips: the space nb201 has no such group with skip connections: skips/normal"
    with pytest.raises(UserError, match=re.escape(message)):
        Budget(unlimited("nb201").space, TASK, {"skips/normal": 2})
