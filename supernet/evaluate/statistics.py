"""The mean of several accuracies, and how uncertain it is."""

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit  # scipy.stats has it as well, but takes a second to import


def mean_and_interval(values: Sequence[float]) -> tuple[float, list[float] | None]:
    """The mean of accuracies (0 to 1) and its 95% interval by Student's t distribution.

    The interval is cut to 0 to 1. A single value has no interval (``None``).
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    half = float(stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, [max(0.0, mean - half), min(1.0, mean + half)]
