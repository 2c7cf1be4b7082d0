"""Learning curves: predicts the final accuracy of a training from its first epochs, and decides
whether the training can still become the best one.

A *learning curve* holds the accuracies (0 to 1) after epochs 1, 2, ..., n, of T epochs in all
(``epochs`` in the code). The model of a curve is pow4 of Domhan, Springenberg and Hutter (IJCAI
2015, table 1), ``c - (a t + b)^-alpha``. It contains their pow3, ``c - a t^-alpha``, as a special
case. Here pow4 is written with the accuracy y at the last epoch as a parameter::

    y - a (g(t) - g(T)),    g(t) = (t + s)^-b

For fixed b and s this is linear in y and a. The best fit is therefore found by a grid over b and s,
with a closed form for y and a at each point. This needs no start values and always gives the same
bits. The accuracies of the first epochs scatter far more than those of the last. The standard
deviation of the noise is therefore proportional to ``t^-q``, where q, the third axis of the grid,
is 0, 1 or 2.

Departures: the paper samples the parameters of eleven families by MCMC. Here there is one family,
with a prediction interval by profile likelihood. A cosine schedule lets curves rise at their end,
which no power law predicts. The amount by which finished trainings of the same recipe ended above
their own fits is therefore added.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

EXPONENTS = np.geomspace(0.05, 5, 100)[:, None]  # b
SHIFTS = 0.5 * 2 ** (np.arange(31) / 5)[None, :] - 1  # s, from -0.5 to 31; 0 is one of them
QUIETING = (0, 1, 2)  # q
PARAMETERS = 5  # y, a, b, s, q
FEWEST = PARAMETERS + 2  # a curve of fewer epochs allows no prediction


@dataclass(frozen=True)
class Forecast:
    """A prediction of the accuracy after the last epoch.

    ``likely`` is the value of the best fit; ``low`` and ``high`` are the ends of the prediction
    interval.
    """

    low: float
    likely: float
    high: float


def extrapolated(curve: Sequence[float], epochs: int, confidence: float) -> Forecast:
    """Predicts the accuracy after the last epoch, with a two-sided prediction interval.

    The interval holds every y for which the curve, with y added as its last point, has a fit that
    is not significantly worse than the best one (F-test with 1 and n - 5 degrees of freedom).
    Accuracies grow (a >= 0) and lie between 0 and 1. For a curve of fewer than ``FEWEST`` epochs
    the interval is 0 to 1.
    """
    count = len(curve)
    if count < FEWEST:
        return Forecast(0.0, curve[-1] if count else 0.0, 1.0)
    values = np.asarray(curve, dtype=float)
    times = np.arange(1, count + 1)
    bases = (times + SHIFTS[..., None]) ** -EXPONENTS[..., None] - (
        (epochs + SHIFTS) ** -EXPONENTS
    )[..., None]
    bases /= bases[..., :1]
    fits = [weighted_fits(bases, values, times.astype(float) ** -q) for q in QUIETING]
    last, error, variance = (np.stack(parts) for parts in zip(*fits, strict=True))
    limit = error.min() * (
        1 + stdtrit(count - PARAMETERS, (1 + confidence) / 2) ** 2 / (count - PARAMETERS)
    )
    half = np.sqrt(variance * np.maximum(limit - error, 0))
    good = error <= limit
    low, high = np.clip([(last - half)[good].min(), (last + half)[good].max()], 0, 1)
    return Forecast(float(low), float(np.clip(last.flat[error.argmin()], 0, 1)), float(high))


def weighted_fits(
    bases: np.ndarray, values: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fits ``y - a * basis`` to ``values`` [n] by least squares, for each of ``bases`` [..., n].

    The standard deviation of the error at each point is proportional to ``noise`` [n]. Returns
    three arrays [...]: y; the weighted sum of squared errors; and the factor v by which the square
    of an error of y is divided so that it can be compared with that sum. ``noise`` is first scaled
    to a geometric mean of 1. The sums for different ``noise`` can then be compared as likelihoods.
    """
    noise = noise / np.exp(np.log(noise).mean())
    weights = noise**-2
    means = bases @ weights / weights.sum()
    level = values @ weights / weights.sum()
    centred = bases - means[..., None]
    spread = centred**2 @ weights
    slope = np.minimum(centred @ (weights * values) / spread, 0)  # -a
    error = (values - level - slope[..., None] * centred) ** 2 @ weights
    variance = noise[-1] ** 2 + 1 / weights.sum() + np.where(slope < 0, means**2 / spread, 0)
    return level - slope * means, error, variance


def upper_bound(
    curve: Sequence[float], epochs: int, confidence: float, finished: Sequence[Sequence[float]] = ()
) -> float:
    """The highest accuracy to expect after the last epoch.

    It is the upper end of the prediction interval, plus what the learning rate schedule may add.
    The latter is measured on the ``finished`` curves, all of ``epochs`` epochs: each is fitted at
    the length that ``curve`` has now, and the largest amount by which one of them ended above its
    best fit is added.
    """
    bends = [
        one[-1] - extrapolated(one[: len(curve)], epochs, confidence).likely for one in finished
    ]
    return extrapolated(curve, epochs, confidence).high + max([0.0, *bends])


def hopeless(
    curve: Sequence[float], epochs: int, confidence: float, finished: Sequence[Sequence[float]]
) -> bool:
    """Whether a training can end early: its :func:`upper_bound` is below the best final accuracy of
    the ``finished`` curves. Without finished curves no training ends early.
    """
    return bool(finished) and upper_bound(curve, epochs, confidence, finished) < max(
        one[-1] for one in finished
    )
