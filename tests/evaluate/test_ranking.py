"""Rank correlations are compared with pairs counted by hand; the coverage of their intervals is
measured on data with a known correlation.
"""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import bootstrap, kendalltau, spearmanr

from supernet.errors import UserError
from supernet.evaluate.ranking import RESAMPLES, correlation, correlations, tau_of_pairs
from supernet.evaluate.settings import RankSettings


def tau_by_counting(x, y):
    """Kendall's tau-b by its definition: concordant minus discordant pairs, divided by the pairs
    that are no ties.
    """
    pairs = list(itertools.combinations(range(len(x)), 2))
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in pairs]
    free = [sum(bool(sign[k]) for sign in signs) for k in (0, 1)]
    return sum(a * b for a, b in signs) / math.sqrt(free[0] * free[1])


def test_tau_by_counting_pairs_and_rho_by_ranks():
    rng = np.random.default_rng(0)
    truth = rng.permutation(120).astype(float)
    predicted = np.round(truth / 4 + rng.normal(0, 3, 120))  # with ties
    found = correlations(predicted, truth, truth + 1, rng)
    best = truth >= 108
    assert (found["all"]["architectures"], found["best_tenth"]["architectures"]) == (120, 12)
    assert found["all"]["tau"] == pytest.approx(tau_by_counting(predicted, truth))
    assert found["best_tenth"]["tau"] == pytest.approx(
        tau_by_counting(predicted[best], truth[best])
    )
    ranks = [
        np.array([(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values])
        for values in (predicted, truth)
    ]
    assert found["all"]["rho"] == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_tau_at_equal_parameters_by_counting_pairs():
    rng = np.random.default_rng(6)
    truth, noise = rng.normal(size=(2, 40))
    predicted = np.round(truth + noise, 1)
    params = rng.integers(900, 1100, 40).astype(float)
    pairs = [
        (i, j)
        for i, j in itertools.combinations(range(40), 2)
        if abs(params[i] - params[j]) / max(params[i], params[j]) <= 0.05
    ]
    signs = [(np.sign(predicted[i] - predicted[j]), np.sign(truth[i] - truth[j])) for i, j in pairs]
    free = [sum(bool(sign[k]) for sign in signs) for k in (0, 1)]
    found = correlations(predicted, truth, params, rng)["equal_params"]
    assert found["pairs"] == len(pairs) < 40 * 39 / 2
    assert found["tau"] == pytest.approx(
        sum(a * b for a, b in signs) / math.sqrt(free[0] * free[1])
    )


def test_where_all_have_equal_parameters_it_is_tau_with_scipys_interval():
    x, noise = np.random.default_rng(3).normal(size=(2, 25))
    y = np.round(x + noise)
    everything = np.stack(np.triu_indices(25, 1), axis=1)
    own = tau_of_pairs(x[None], y, everything, np.random.default_rng(4))
    theirs = correlation(x[None], y, np.random.default_rng(4))
    assert [own["tau"], *own["tau_ci95"]] == pytest.approx([theirs["tau"], *theirs["tau_ci95"]])


def test_the_interval_covers_the_truth_as_often_as_it_says(monkeypatch):
    """For two normal variables with correlation r, tau is 2/pi arcsin(r) (Greiner's relation)."""
    monkeypatch.setattr("supernet.evaluate.ranking.RESAMPLES", 200)
    rng, r, inside = np.random.default_rng(1), 0.6, 0
    for _ in range(60):
        x, noise = rng.normal(size=(2, 60))
        low, high = correlation(x[None], r * x + math.sqrt(1 - r * r) * noise, rng)["tau_ci95"]
        inside += low <= 2 / math.pi * math.asin(r) <= high
    assert inside >= 51  # of 60 at 95%: fewer has a probability of 0.2%


@pytest.mark.parametrize(("name", "function"), [("tau", kendalltau), ("rho", spearmanr)])
def test_the_interval_is_that_of_scipys_bootstrap(name, function):
    x, noise = np.random.default_rng(3).normal(size=(2, 25))
    y = np.round(x + noise)  # with ties
    own = correlation(x[None], y, np.random.default_rng(4))[f"{name}_ci95"]
    theirs = bootstrap(
        (x, y),
        lambda a, b: function(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(4),
    ).confidence_interval
    assert own == pytest.approx([theirs.low, theirs.high])


def test_several_predictors_that_differ_by_chance_have_the_mean_of_their_correlations():
    """The interval is the bootstrap over both, here written with loops."""
    x, y = np.random.default_rng(3).normal(size=(3, 20)), np.arange(20.0)
    x += y / 5
    alone = [correlations(row, y, y, np.random.default_rng(0)) for row in x]
    found = correlations(x, y, np.ones(20), np.random.default_rng(4))
    assert found["all"]["tau"] == pytest.approx(np.mean([one["all"]["tau"] for one in alone]))
    assert found["equal_params"]["tau"] == pytest.approx(found["all"]["tau"])
    rng = np.random.default_rng(4)
    columns = rng.integers(20, size=(RESAMPLES, 20))
    rows = rng.integers(3, size=(RESAMPLES, 3))
    each = [
        np.mean([kendalltau(x[i, some], y[some]).statistic for i in which])
        for some, which in zip(columns, rows, strict=True)
    ]
    assert found["all"]["tau_ci95"] == pytest.approx(np.percentile(each, [2.5, 97.5]))


def test_a_resample_in_which_all_are_equal_is_left_out():
    """With three values, a ninth of the resamples have equal values only. SciPy's bootstrap then
    has no interval.
    """
    found = correlation(np.arange(3.0)[None], np.array([0.0, 2.0, 1.0]), np.random.default_rng(5))
    assert found["tau"] == pytest.approx(1 / 3) and found["tau_ci95"] == pytest.approx([-1, 1])


def test_what_cannot_be_ranked_has_no_correlation():
    rng = np.random.default_rng(2)
    assert correlations([0.5, 0.5, 0.5, 0.5], [1, 2, 3, 4], [1] * 4, rng)["all"]["tau"] is None
    found = correlations([1, 2, 3, 5], [1, 2, 3, 4], [10, 20, 30, 40], rng)
    assert found["equal_params"] == {"pairs": 0, "tau": None, "tau_ci95": None}
    assert (found["all"]["tau"], found["best_tenth"]["tau"], found["best_tenth"]["rho_ci95"]) == (
        1.0,
        None,
        None,
    )


@pytest.mark.parametrize(
    "wrong", [{"architectures": 2}, {"scratch": 201}, {"scratch": 2}, {"scratch": -1}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(UserError, match="rank\\."):
        RankSettings(**wrong)
