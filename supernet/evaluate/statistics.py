"""Means with their uncertainty."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def mean_and_interval(values: Sequence[float]) -> tuple[float, list[float] | None]:
    """The mean and its 95% interval by Student's t; no interval for fewer than two values."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return mean, [mean - half, mean + half]
