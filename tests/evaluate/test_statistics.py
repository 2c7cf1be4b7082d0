"""Means and intervals are compared with SciPy."""

import numpy as np
import pytest
from scipy import stats

from supernet.evaluate.statistics import mean_and_interval


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_interval_is_students(count):
    values = np.random.default_rng(count).uniform(0.6, 0.7, count).tolist()
    mean, interval = mean_and_interval(values)
    assert mean == pytest.approx(np.mean(values))
    assert interval == pytest.approx(
        stats.t.interval(0.95, count - 1, loc=np.mean(values), scale=stats.sem(values))
    )


def test_an_accuracy_lies_between_0_and_1_and_one_value_has_no_interval():
    assert mean_and_interval([0.9, 1.0])[1][1] == 1.0
    assert mean_and_interval([0.0, 0.1])[1][0] == 0.0
    assert mean_and_interval([0.5, 0.5]) == (0.5, [0.5, 0.5])
    assert mean_and_interval([0.5]) == (0.5, None)
