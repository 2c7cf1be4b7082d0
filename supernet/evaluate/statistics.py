"""The mean of several accuracies, the difference of two means, and how uncertain they are."""

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Paired:
    """A paired comparison of two lists of accuracies, such as two methods with the same seeds.

    ``difference`` is the mean of the differences, ``ci95`` its 95% interval, ``p`` the two-sided
    p-value of Student's paired test, ``d`` Cohen's d of paired differences (their mean over their
    standard deviation; Cohen, 1988, section 2.3.5), and ``seeds`` how many pairs would show a
    difference of one point (:func:`pairs_to_show`). What is not known is ``None``.
    """

    difference: float
    ci95: list[float] | None
    p: float | None
    d: float | None
    seeds: int | None


def paired(values: Sequence[float], others: Sequence[float]) -> Paired:
    """Compares pairs. Fewer than three pairs have neither an interval nor a p-value."""
    difference, ends = paired_difference_and_interval(values, others)
    if ends is None:
        return Paired(difference, None, None, None, None)
    differences = np.subtract(values, others)
    spread = float(np.std(differences, ddof=1))
    if spread < 1e-12:  # all the same, but for rounding: no test and no effect size is defined
        return Paired(difference, ends, float(abs(difference) < 1e-12), None, FEWEST)
    from scipy.stats import ttest_rel  # takes a second to import

    p = float(ttest_rel(values, others).pvalue)
    return Paired(difference, ends, p, difference / spread, pairs_to_show(0.01, spread))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """The p-values after Holm's correction (Holm, 1979): the chance that even one of them is below
    0.05 by accident stays below 0.05. ``None`` stays ``None``, and does not count.
    """
    known = [p for p in ps if p is not None]
    if not known:
        return list(ps)
    from statsmodels.stats.multitest import multipletests  # takes a second to import

    corrected = iter(multipletests(known, method="holm")[1].tolist())
    return [None if p is None else next(corrected) for p in ps]


def pairs_to_show(difference: float, spread: float, power: float = 0.8) -> int:
    """How many pairs a paired test needs so that a true ``difference`` has a p-value below 0.05
    with the probability ``power``. ``spread`` is the standard deviation of the differences.

    It is at least three, because fewer have no interval.
    """
    from statsmodels.stats.power import TTestPower  # takes a second to import

    test, effect = TTestPower(), difference / spread
    few, many = FEWEST - 1, FEWEST  # too few, and enough; statsmodels' own solver may give up
    while test.power(effect, many, 0.05) < power:
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if test.power(effect, middle, 0.05) >= power else (middle, many)
    return many


def relative_improvement(
    values: Sequence[float], chance: Sequence[float]
) -> tuple[float, list[float] | None]:
    """By how many percent accuracies are above those of random architectures: the mean of
    100 · (accuracy − random) / random over pairs, such as the same seeds, and its 95% interval
    (Yang, Esperança & Carlucci, ICLR 2020, section 3).
    """
    base = np.asarray(chance)
    percents = 100 * (np.asarray(values) - base) / base
    return paired_difference_and_interval(percents.tolist(), [0.0] * len(percents))
