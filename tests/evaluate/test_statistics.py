"""Means and intervals are compared with SciPy."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from supernet.evaluate.statistics import (
    difference_and_interval,
    holm,
    mean_and_interval,
    paired,
    paired_difference_and_interval,
    pairs_to_show,
    relative_improvement,
)


@pytest.mark.parametrize("count", [3, 4, 10])
def test_the_interval_is_students(count):
    values = np.random.default_rng(count).uniform(0.6, 0.7, count).tolist()
    mean, interval = mean_and_interval(values)
    assert mean == pytest.approx(np.mean(values))
    assert interval == pytest.approx(
        stats.t.interval(0.95, count - 1, loc=np.mean(values), scale=stats.sem(values))
    )


def test_an_accuracy_lies_between_0_and_1_and_two_values_have_no_interval():
    assert mean_and_interval([0.9, 1.0, 1.0])[1][1] == 1.0
    assert mean_and_interval([0.0, 0.0, 0.1])[1][0] == 0.0
    assert mean_and_interval([0.5, 0.5, 0.5]) == (0.5, [0.5, 0.5])
    assert mean_and_interval([0.25, 0.75]) == (0.5, None)
    assert mean_and_interval([0.5]) == (0.5, None)


@pytest.mark.parametrize("counts", [(3, 3), (3, 10), (7, 4), (3, 50)])
def test_the_interval_of_a_difference_is_welchs(counts):
    rng = np.random.default_rng(counts)
    one, other = (rng.normal(0.6, 0.1 * count, count).tolist() for count in counts)
    difference, interval = difference_and_interval(one, other)
    assert difference == pytest.approx(np.mean(one) - np.mean(other))
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert interval == pytest.approx([expected.low, expected.high])


@pytest.mark.parametrize("pairs", [3, 5, 12])
def test_the_interval_of_paired_differences_is_students(pairs):
    rng = np.random.default_rng(pairs)
    one, other = rng.normal(0.6, 0.1, pairs).tolist(), rng.normal(0.5, 0.2, pairs).tolist()
    difference, interval = paired_difference_and_interval(one, other)
    assert difference == pytest.approx(np.mean(one) - np.mean(other))
    expected = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert interval == pytest.approx([expected.low, expected.high])
    assert paired_difference_and_interval([0.1, 0.2], [0.2, 0.4])[1] is None


def test_a_difference_needs_three_values_on_each_side():
    assert difference_and_interval([0.5, 0.5], [0.25, 0.25, 0.25]) == (0.25, None)
    assert difference_and_interval([0.5, 0.5, 0.5], [0.25]) == (0.25, None)
    assert difference_and_interval([0.5] * 3, [0.25] * 4) == (0.25, [0.25, 0.25])


@pytest.mark.parametrize("pairs", [3, 8, 30])
def test_a_paired_comparison_is_that_of_scipy(pairs):
    rng = np.random.default_rng(pairs)
    one, other = rng.normal(0.6, 0.02, pairs).tolist(), rng.normal(0.59, 0.02, pairs).tolist()
    found, expected = paired(one, other), stats.ttest_rel(one, other)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.ci95 == pytest.approx(list(expected.confidence_interval(0.95)))
    assert found.d == pytest.approx(expected.statistic / np.sqrt(pairs))


def test_a_paired_comparison_by_hand():
    """The differences are 1, 2 and 3 points: their mean is 2, their deviation 1. With two degrees
    of freedom the two-sided p-value of t is 1 - t / sqrt(t² + 2), and here t² = 12.
    """
    found = paired([0.51, 0.62, 0.73], [0.5, 0.6, 0.7])
    assert (found.difference, found.d) == (pytest.approx(0.02), pytest.approx(2))
    assert found.p == pytest.approx(1 - np.sqrt(12 / 14))
    assert paired([0.6, 0.7], [0.5, 0.5]).p is None  # two pairs show nothing
    same = paired([0.5, 0.6, 0.7], [0.5, 0.6, 0.7])
    assert (same.p, same.d, same.ci95) == (1, None, [0, 0])
    assert paired([0.6, 0.7, 0.8], [0.5, 0.6, 0.7]).p == 0  # the same difference with every seed


def test_holms_correction_is_that_of_statsmodels_and_by_hand():
    """By hand: 3 · 0.01; then 2 · 0.03; then 0.04, but no less than the one before."""
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, 0.06, 0.06]
    assert holm([None]) == [None] and holm([]) == []
    ps = np.random.default_rng(0).uniform(0, 0.1, 9).tolist()
    assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1])


@pytest.mark.parametrize("spread", [0.0001, 0.004, 0.02, 0.1])
def test_the_number_of_seeds_is_the_least_with_the_power(spread):
    found, test = pairs_to_show(0.01, spread), TTestPower()
    assert found >= 3 and test.power(0.01 / spread, found, 0.05) >= 0.8
    assert found == 3 or test.power(0.01 / spread, found - 1, 0.05) < 0.8
    assert pairs_to_show(0.5, 1) == 34  # Cohen (1988): a medium effect


def test_the_relative_improvement_by_hand():
    """20%, 0% and 10% above the random architectures of the same seed."""
    mean, interval = relative_improvement([0.6, 0.5, 0.55], [0.5, 0.5, 0.5])
    expected = stats.t.interval(0.95, 2, loc=10, scale=stats.sem([20, 0, 10]))
    assert (mean, interval) == (pytest.approx(10), pytest.approx(expected))
    assert relative_improvement([0.6], [0.5])[1] is None
