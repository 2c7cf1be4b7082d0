"""Means with their uncertainty."""

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit  # scipy.stats, which has the same, takes a second to import


def mean_and_interval(values: Sequence[float]) -> tuple[float, list[float] | None]:
    """The mean of accuracies (0 to 1) and its 95% interval by Student's t.

    The interval is cut to what an accuracy can be; one value has none (``None``).
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    half = float(stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, [max(0.0, mean - half), min(1.0, mean + half)]
