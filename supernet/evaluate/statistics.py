"""The mean of several accuracies, the difference of two means, and how uncertain they are."""

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit  # scipy.stats has it as well, but takes a second to import

# The fewest values with an interval. Student's t of two values is 12.7 standard errors: for two
# accuracies of 40% and 60% the interval would be all of 0% to 100%.
FEWEST = 3


def mean_and_interval(values: Sequence[float]) -> tuple[float, list[float] | None]:
    """The mean of accuracies (0 to 1) and its 95% interval by Student's t distribution.

    The interval is cut to 0 to 1. Fewer than three values have no interval (``None``).
    """
    mean = float(np.mean(values))
    if len(values) < FEWEST:
        return mean, None
    half = float(stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, [max(0.0, mean - half), min(1.0, mean + half)]


def difference_and_interval(
    values: Sequence[float], others: Sequence[float]
) -> tuple[float, list[float] | None]:
    """The mean of ``values`` minus the mean of ``others``, and its 95% interval by Welch's method
    (Welch, 1947): Student's t distribution, without the assumption of equal variances.

    With fewer than three values on a side there is no interval (``None``).
    """
    difference = float(np.mean(values) - np.mean(others))
    if min(len(values), len(others)) < FEWEST:
        return difference, None
    # the squared standard errors of the two means
    one, other = (float(np.var(side, ddof=1)) / len(side) for side in (values, others))
    if one + other == 0:
        return difference, [difference, difference]
    degrees = (one + other) ** 2 / (one**2 / (len(values) - 1) + other**2 / (len(others) - 1))
    half = float(stdtrit(degrees, 0.975)) * float(np.sqrt(one + other))
    return difference, [difference - half, difference + half]


def paired_difference_and_interval(
    values: Sequence[float], others: Sequence[float]
) -> tuple[float, list[float] | None]:
    """The mean of the differences of pairs, such as two methods with the same seed, and its 95%
    interval by Student's t distribution. Fewer than three pairs have no interval (``None``).
    """
    differences = np.subtract(values, others)
    mean, pairs = float(np.mean(differences)), len(differences)
    if pairs < FEWEST:
        return mean, None
    half = float(stdtrit(pairs - 1, 0.975) * np.std(differences, ddof=1) / np.sqrt(pairs))
    return mean, [mean - half, mean + half]
