"""Rank correlations: how well a cheap judgement orders architectures, compared with the truth (an
expensive judgement, such as the accuracy after training from scratch).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from supernet.errors import UserError, require
from supernet.files import PATH

RESAMPLES = 1000  # number of resamples of the bootstrap
FEWEST = 3  # architectures that a correlation needs
FEWEST_BEST = 10  # the same for the best tenth: with fewer the bootstrap interval is meaningless


@dataclass
class RankSettings:
    """What ``supernet rank`` compares.

    It judges ``architectures`` random architectures with the supernet's weights, and compares the
    order with the truth. There are two truths. The first is the accuracy after training from
    scratch, of the first ``scratch`` architectures. The second is the column ``target`` of a table
    of ``published`` accuracies, an npz file that holds the architectures as ``arch``, in the
    notation of the space. The other columns of that table are compared with the truth as well, as
    predictions by others. ``beside`` lists folders of other runs, whose supernets judge the same
    architectures.
    """

    architectures: int = 200
    scratch: int = 0
    published: str | None = field(default=None, metadata=PATH)
    target: str = "test_200"
    beside: list[str] = field(default_factory=list, metadata=PATH)

    def __post_init__(self) -> None:
        # a correlation of fewer architectures is meaningless
        require("rank.architectures", self.architectures, least=FEWEST)
        require("rank.scratch", self.scratch, least=0)
        if self.scratch > self.architectures:
            raise UserError(
                f"rank.scratch={self.scratch}: there are only "
                f"rank.architectures={self.architectures} to train"
            )
        if 0 < self.scratch < FEWEST:
            raise UserError(
                f"rank.scratch={self.scratch}: no correlation of fewer than 3 says anything; take "
                "30 or more, or 0"
            )


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
