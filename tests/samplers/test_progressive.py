"""Shrinking: the set of possible draws grows in the search, and is the whole space at its end."""

import numpy as np
import pytest
from scipy import stats

from supernet.errors import UserError
from supernet.samplers.progressive import Progressive
from tests.budgets import budget_of
from tests.samplers.drawing import architecture_of, begun, cost, judged
from tests.variants import ALL_SPACES, SPACES

PHASES = [0.2, 0.4, 0.8]


def drawn(sampler, space, progress, count=300):
    return [
        architecture_of(space, path)
        for _ in range(count)
        for path in sampler.mixtures({}, progress, judged)
    ]


def values(space, architectures) -> list[set]:
    """For each gene, the values that some of the architectures have."""
    return [
        set(gene)
        for gene in zip(
            *(space.values(architecture) for architecture in architectures), strict=True
        )
    ]


def test_it_begins_with_the_largest_alone_and_widens_at_its_phases_and_only_there(space):
    """Of n values 1 is used first. At 0.2, 0.4 and 0.8 a third, two thirds and all of the others
    are added, rounded up.
    """
    sampler = begun(Progressive(PHASES, ["*"]), space)
    last = None
    for progresses, share in (
        ((0.0, 0.19), 0),
        ((0.2, 0.39), 1),
        ((0.4, 0.79), 2),
        ((0.8, 0.99), 3),
    ):
        seen = [values(space, drawn(sampler, space, progress)) for progress in progresses]
        assert seen[0] == seen[1]
        for gene, found in zip(space.genes, seen[0], strict=True):
            assert len(found) == 1 + -(-share * (len(gene.values) - 1) // 3)
        assert last is None or all(
            narrow <= wide for narrow, wide in zip(last, seen[0], strict=True)
        )
        last = seen[0]
    assert drawn(sampler, space, 0.0, 1) == [budget_of(space).largest("madds")]
    assert last == [set(gene.values) for gene in space.genes]


def test_the_most_expensive_values_come_first(space):
    """No architecture of the values that have joined becomes more expensive by a value that has not
    joined, if all other values are those of the largest.
    """
    sampler = begun(Progressive(PHASES, metric="params"), space)
    table = budget_of(space).tables["params"]
    largest = space.values(budget_of(space).largest("params"))
    for progress in (0.2, 0.4):
        for position, (gene, joined) in enumerate(
            zip(space.genes, values(space, drawn(sampler, space, progress)), strict=True)
        ):
            costs = {
                v: table.of(space.express([*largest[:position], v, *largest[position + 1 :]]))
                for v in gene.values
            }
            assert min(costs[v] for v in joined) >= max(
                (costs[v] for v in gene.values if v not in joined), default=0
            )


def test_on_nb201_3x3_comes_first_then_1x1_by_hand():
    space = SPACES["nb201"]()
    sampler = begun(Progressive([0.25, 0.5, 0.75, 0.9], metric="params"), space)
    assert values(space, drawn(sampler, space, 0.0)) == [{"nor_conv_3x3"}] * 6
    assert values(space, drawn(sampler, space, 0.3)) == [{"nor_conv_3x3", "nor_conv_1x1"}] * 6


def test_kernels_come_first_then_depths_then_all_else():
    """The order of once-for-all, and another one where the user gives it."""
    space = ALL_SPACES["mobilenet"]()
    names = [gene.name.partition("/")[0] for gene in space.genes]
    rest = {"expansion", "width"}
    orders = {
        ("*kernel*", "*depth*", "*"): [set(), {"kernel"}, {"kernel", "depth"}],
        # three phases for two dimensions: the second begins with the second phase
        ("expansion*", "*"): [set(), {"expansion"}, {"kernel", "depth", *rest}],
    }
    for patterns, order in orders.items():
        sampler = begun(Progressive(PHASES, list(patterns)), space)
        for expected, progress in zip(order, (0.0, 0.2, 0.4), strict=True):
            found = values(space, drawn(sampler, space, progress))
            wide = {name for name, values in zip(names, found, strict=True) if len(values) > 1}
            assert wide == expected


def test_a_decision_that_no_dimension_names_is_one_line():
    with pytest.raises(UserError, match=r"no pattern fits the decision .*; add '\*'"):
        begun(Progressive(PHASES, ["kernel*"]), ALL_SPACES["mobilenet"]())


def test_it_ends_uniform(space):
    """Chi-squared for each gene, and for the independence of the first and the last gene."""
    sampler = begun(Progressive(PHASES), space)
    rows = [space.values(architecture) for architecture in drawn(sampler, space, 0.8, 2000)]
    tables = [
        np.array([gene.values.index(row[position]) for row in rows])
        for position, gene in enumerate(space.genes)
    ]
    for gene, table in zip(space.genes, tables, strict=True):
        if len(gene.values) > 1:
            assert stats.chisquare(np.bincount(table, minlength=len(gene.values))).pvalue > 1e-5
    assert (
        stats.chi2_contingency(stats.contingency.crosstab(tables[-1], tables[-2]).count).pvalue
        > 1e-4
    )


def test_within_a_budget_it_begins_with_the_largest_that_keeps_it(space):
    table = budget_of(space).tables["madds"]
    rng = np.random.default_rng(0)
    limit = float(np.quantile([table.of(space.random(rng)) for _ in range(200)], 0.2))
    sampler = begun(Progressive(PHASES), space, madds=limit)
    within = budget_of(space, madds=limit)
    assert set(drawn(sampler, space, 0.0, 5)) == {within.largest("madds")}
    for progress in (0.2, 0.4, 0.8):
        mixtures = [path for _ in range(30) for path in sampler.mixtures({}, progress, judged)]
        assert max(cost(table, path) for path in mixtures) <= limit


def test_where_chance_finds_nothing_within_the_budget_the_largest_is_drawn(space, monkeypatch):
    monkeypatch.setattr("supernet.samplers.progressive.TRIES", 0)
    sampler = begun(Progressive(PHASES), space)
    assert drawn(sampler, space, 0.5, 1) == [budget_of(space).largest("madds")]


@pytest.mark.parametrize("phases", [[], [0.5, 0.5], [0.0, 0.5], [0.5, 1.0], [0.7, 0.2]])
def test_phases_must_rise_within_the_search(phases):
    with pytest.raises(UserError, match=r"sampler\.phases=.*rising"):
        Progressive(phases)
