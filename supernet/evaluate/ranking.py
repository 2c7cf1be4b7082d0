"""Rank correlations: how well a cheap judgement orders architectures, compared with the truth (an
expensive judgement, such as the accuracy after training from scratch).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from supernet.evaluate.settings import FEWEST

RESAMPLES = 1000  # number of resamples of the bootstrap
FEWEST_BEST = 10  # the same for the best tenth: with fewer the bootstrap interval is meaningless
EQUAL = 0.05  # numbers of parameters that differ by at most this share are equal


def correlations(
    predicted: npt.ArrayLike,
    truth: npt.ArrayLike,
    params: npt.ArrayLike,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Kendall's tau (tau-b) and Spearman's rho: of all architectures (``all``), and of the tenth
    that is best in truth (``best_tenth``); and tau of pairs with equal numbers of parameters
    (``equal_params``), which counting parameters cannot order.

    Each has a 95% interval by the bootstrap over architectures. ``predicted`` has a row for each of
    several predictors that differ by chance alone, such as supernets of other seeds: a coefficient
    is then the mean over the rows, and the bootstrap is over the rows too. Coefficient and interval
    are ``None`` if the best tenth has fewer than ten architectures, or if all values of a group are
    equal. Architectures whose truth equals that of the last one of the best tenth belong to it too.
    """
    x, y = np.atleast_2d(np.asarray(predicted, dtype=float)), np.asarray(truth, dtype=float)
    best = y >= np.sort(y)[-max(1, round(len(y) / 10))]
    return {
        "all": correlation(x, y, rng),
        "best_tenth": correlation(x[:, best], y[best], rng, FEWEST_BEST),
        "equal_params": tau_of_pairs(x, y, equal(np.asarray(params, dtype=float)), rng),
    }


def correlation(
    x: np.ndarray, y: np.ndarray, rng: np.random.Generator, fewest: int = FEWEST
) -> dict[str, Any]:
    """Tau and rho of one group of architectures, with their percentile intervals: ``x`` [rows,
    architectures] against ``y`` [architectures].

    All are ``None`` if the group has fewer than ``fewest`` architectures. The intervals are those
    of ``scipy.stats.bootstrap`` with the same generator. That function itself is not used, because
    it gives no interval if a single resample has no correlation (all its values are equal). Here
    such resamples are left out.
    """
    from scipy.stats import kendalltau, spearmanr  # scipy.stats takes a second to import

    found: dict[str, Any] = {"architectures": len(y)}
    resampled = rng.integers(len(y), size=(RESAMPLES, len(y)))
    rows = resampled_rows(len(x), rng)
    for name, function in (("tau", kendalltau), ("rho", spearmanr)):
        whole = np.nan if len(y) < fewest else coefficient(function, x, y)
        if np.isnan(whole):
            found |= {name: None, f"{name}_ci95": None}
        else:
            each = [
                coefficient(function, x[np.ix_(some, columns)], y[columns])
                for some, columns in zip(rows, resampled, strict=True)
            ]
            interval = np.nanpercentile(each, [2.5, 97.5])
            found |= {name: float(whole), f"{name}_ci95": interval.tolist()}
    return found


def resampled_rows(rows: int, rng: np.random.Generator) -> np.ndarray:
    """The rows of each resample [RESAMPLES, rows]."""
    return rng.integers(rows, size=(RESAMPLES, rows)) if rows > 1 else np.zeros((RESAMPLES, 1), int)


def coefficient(function: Callable[..., Any], x: np.ndarray, y: np.ndarray) -> float:
    """The mean, over the rows of ``x``, of the coefficient that a function of SciPy gives; NaN if
    all values of a row or of ``y`` are equal.
    """
    if np.ptp(y) == 0 or (np.ptp(x, axis=1) == 0).any():
        return np.nan
    return float(np.mean([function(row, y).statistic for row in x]))


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
    """Kendall's tau-b of ``x`` [rows, architectures] with ``y`` over some ``pairs`` [pairs, 2] of
    architectures, and its interval by the bootstrap. Both are ``None`` if no pair differs in a row
    of ``x`` and in ``y``.

    A pair counts in a resample as often as the numbers of its two architectures there, multiplied.
    """
    first, second = pairs.T
    a, b = (np.sign(values[..., first] - values[..., second]) for values in (x, y))
    differs, agrees = (a != 0).astype(float), a * b

    def tau(counts: np.ndarray, rows: np.ndarray) -> float:
        weights = counts[first] * counts[second]
        free = (differs @ weights)[rows] * (weights @ (b != 0))
        return float(np.mean((agrees @ weights)[rows] / np.sqrt(free))) if free.all() else np.nan

    whole = tau(np.ones(len(y)), np.arange(len(x)))
    found: dict[str, Any] = {"pairs": len(pairs), "tau": None, "tau_ci95": None}
    if np.isnan(whole):
        return found
    drawn = rng.integers(len(y), size=(RESAMPLES, len(y)))
    each = [
        tau(np.bincount(columns, minlength=len(y)).astype(float), rows)
        for columns, rows in zip(drawn, resampled_rows(len(x), rng), strict=True)
    ]
    return found | {"tau": whole, "tau_ci95": np.nanpercentile(each, [2.5, 97.5]).tolist()}
