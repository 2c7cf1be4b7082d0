"""Rank correlations: how well a cheap judgement orders architectures, compared with the truth (an
expensive judgement, such as the accuracy after training from scratch).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from supernet.evaluate.settings import FEWEST

RESAMPLES = 1000  # number of resamples of the bootstrap
FEWEST_BEST = 10  # the same for the best tenth: with fewer the bootstrap interval is meaningless


def correlations(
    predicted: Sequence[float], truth: Sequence[float], rng: np.random.Generator
) -> dict[str, Any]:
    """Kendall's tau (tau-b) and Spearman's rho: of all architectures (``all``), and of the tenth
    that is best in truth (``best_tenth``).

    Each has a 95% interval by the bootstrap over architectures. Coefficient and interval are
    ``None`` if the best tenth has fewer than ten architectures, or if all values of a group are
    equal. Architectures whose truth equals that of the last one of the best tenth belong to it too.
    """
    x, y = np.asarray(predicted, dtype=float), np.asarray(truth, dtype=float)
    best = y >= np.sort(y)[-max(1, round(len(y) / 10))]
    return {
        "all": correlation(x, y, rng),
        "best_tenth": correlation(x[best], y[best], rng, FEWEST_BEST),
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
