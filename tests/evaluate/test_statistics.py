"""Means and intervals are compared with SciPy."""

import numpy as np
import pytest
from scipy import stats

from supernet.evaluate.statistics import (
    difference_and_interval,
    mean_and_interval,
    paired_difference_and_interval,
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
