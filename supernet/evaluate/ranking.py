"""Rank correlations: how well a cheap judgement orders architectures, compared with the truth (an
expensive judgement, such as the accuracy after training from scratch).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from supernet.evaluate.settings import FEWEST

RESAMPLES = 1000  # number of resamples of the bootstrap
FEWEST_BEST = 10  # the same for the best tenth: with fewer the bootstrap interval is meaningless
EQUAL = 0.05  # numbers of parameters that differ by at most this share are equal


def correlations(
    predicted: Sequence[float],
    truth: Sequence[float],
    params: Sequence[float],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Kendall's tau (tau-b) and Spearman's rho: of all architectures (``all``), and of the tenth
    that is best in truth (``best_tenth``); and tau of pairs with equal numbers of parameters
    (``equal_params``), which counting parameters cannot order.

    Each has a 95% interval by the bootstrap over architectures. Coefficient and interval are
    ``None`` if the best tenth has fewer than ten architectures, or if all values of a group are
    equal. Architectures whose truth equals that of the last one of the best tenth belong to it too.
    """
    x, y = np.asarray(predicted, dtype=float), np.asarray(truth, dtype=float)
    best = y >= np.sort(y)[-max(1, round(len(y) / 10))]
    return {
        "all": correlation(x, y, rng),
        "best_tenth": correlation(x[best], y[best], rng, FEWEST_BEST),
        "equal_params": tau_of_pairs(x, y, equal(np.asarray(params, dtype=float)), rng),
    }


def correlation(
    x: np.ndarray, y: np.ndarray, rng: np.random.Generator, fewest: int = FEWEST
) -> dict[str, Any]:
    """Tau and rho of one group of architectures, with their percentile intervals.

    All are ``None`` if the group has fewer than ``fewest`` architectures. The intervals are those
    of ``scipy.stats.bootstrap`` with the same generator. That function itself is not used, because
    it gives no interval if a single resample has no correlation (all its values are equal). Here
    such resamples are left out.
    """
    from scipy.stats import kendalltau, spearmanr  # scipy.stats takes a second to import

    found: dict[str, Any] = {"architectures": len(x)}
    resampled = rng.integers(len(x), size=(RESAMPLES, len(x)))
    for name, function in (("tau", kendalltau), ("rho", spearmanr)):
        whole = np.nan if len(x) < fewest else coefficient(function, x, y)
        if np.isnan(whole):
            found |= {name: None, f"{name}_ci95": None}
        else:
            each = [coefficient(function, x[rows], y[rows]) for rows in resampled]
            interval = np.nanpercentile(each, [2.5, 97.5])
            found |= {name: float(whole), f"{name}_ci95": interval.tolist()}
    return found


def coefficient(function: Callable[..., Any], x: np.ndarray, y: np.ndarray) -> float:
    """The coefficient that a function of SciPy gives; NaN if all values of ``x`` or of ``y`` are
    equal.
    """
    return np.nan if np.ptp(x) == 0 or np.ptp(y) == 0 else function(x, y).statistic


def equal(params: np.ndarray) -> np.ndarray:
    """The pairs of architectures whose numbers of parameters are equal within five hundredths of
    the larger one [pairs, 2].
    """
    first, second = np.triu_indices(len(params), 1)
    larger = np.maximum(params[first], params[second])
    near = np.abs(params[first] - params[second]) <= EQUAL * larger
    return np.stack([first[near], second[near]], axis=1)


def tau_of_pairs(
    x: np.ndarray, y: np.ndarray, pairs: np.ndarray, rng: np.random.Generator
) -> dict[str, Any]:
    """Kendall's tau-b over some ``pairs`` [pairs, 2] of architectures, and its interval by the
    bootstrap over architectures. Both are ``None`` if no pair differs in ``x`` and in ``y``.

    A pair counts in a resample as often as the numbers of its two architectures there, multiplied.
    """
    first, second = pairs.T
    a, b = (np.sign(values[first] - values[second]) for values in (x, y))

    def tau(counts: np.ndarray) -> float:
        weights = counts[first] * counts[second]
        free = weights @ (a != 0) * (weights @ (b != 0))
        return float(weights @ (a * b) / np.sqrt(free)) if free else np.nan

    whole = tau(np.ones(len(x)))
    found: dict[str, Any] = {"pairs": len(pairs), "tau": None, "tau_ci95": None}
    if np.isnan(whole):
        return found
    drawn = rng.integers(len(x), size=(RESAMPLES, len(x)))
    each = [tau(np.bincount(rows, minlength=len(x)).astype(float)) for rows in drawn]
    return found | {"tau": whole, "tau_ci95": np.nanpercentile(each, [2.5, 97.5]).tolist()}
