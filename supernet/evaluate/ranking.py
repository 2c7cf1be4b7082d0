"""How well a cheap judgement orders architectures: its rank correlation with a truth that costs
more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from supernet.errors import UserError, require

RESAMPLES = 1000  # of the bootstrap
FEWEST = 3  # of which a correlation is taken
FEWEST_BEST = 10  # the same for the best tenth: of fewer, the bootstrap tells nothing


@dataclass
class RankSettings:
    """What ``supernet rank`` compares: random architectures, judged with inherited weights and in
    truth.

    The truth is the accuracy of the first ``scratch`` of them after training from scratch, and that
    of a table of ``published`` ones: an npz file with ``arch``, in the space's notation, and
    ``target``, a column of accuracies. Its other columns of numbers are compared as well, as other
    people's predictions. ``beside`` names folders of runs whose supernets judge the same.
    """

    architectures: int = 200
    scratch: int = 0
    published: str | None = None
    target: str = "test_200"
    beside: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # no correlation of fewer says anything
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
    """Kendall's tau (b) and Spearman's rho, overall (``all``) and among the tenth that is best in
    truth (``best_tenth``).

    Each has a 95% interval by the bootstrap over architectures. A best tenth of fewer than ten, and
    a group in which all are equal, has none: ``None``. Ties in the truth at the edge of the best
    tenth are in it.
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
    """Tau and rho of one group with their percentile intervals; none if it has fewer than
    ``fewest`` architectures.

    The intervals are those of ``scipy.stats.bootstrap`` with the same generator. That function is
    not used, because it has no interval as soon as one resample has no correlation (all its values
    are equal). Here such a resample is left out.
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
    """The coefficient by one of SciPy's functions; NaN where all values of ``x`` or ``y`` are
    equal.
    """
    return np.nan if np.ptp(x) == 0 or np.ptp(y) == 0 else function(x, y).statistic
