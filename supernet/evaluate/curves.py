"""Learning curves: what an accuracy may still become, from its first epochs, and whether that is
enough to go on.

A curve is the accuracies (0 to 1) after epochs 1, 2, ..., n of ``epochs`` in all. The family is
pow4 of Domhan, Springenberg and Hutter (IJCAI 2015, table 1), ``c - (a t + b)^-alpha``, which holds
their pow3, ``c - a t^-alpha``. It is written here by the accuracy at the last epoch, ``y - a (g(t)
- g(T))`` with ``g(t) = (t + s)^-b``: for given b and s that is linear in y and a, so a grid over
these two with a closed form at each point finds the best fit without a start value, and the same
bits every time. The first epochs scatter far more than the last: the noise is taken to fall as
``t^-q``, with q, the third axis, 0, 1 or 2.

Departures: the paper samples the parameters of eleven families by MCMC; here one family gives a
prediction interval by profile likelihood. A cosine schedule bends curves up at their end, which no
power law sees coming: what the finished trainings of the same recipe came to beyond their own laws
is therefore added.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

EXPONENTS = np.geomspace(0.05, 5, 100)[:, None]  # b
SHIFTS = 0.5 * 2 ** (np.arange(31) / 5)[None, :] - 1  # s, from -0.5 to 31, 0 among them
QUIETING = (0, 1, 2)  # q
PARAMETERS = 5  # y, a, b, s, q
FEWEST = PARAMETERS + 2  # epochs, before which nothing is said


@dataclass(frozen=True)
class Forecast:
    """The accuracy after the last epoch: what the best fit says, and the ends of the interval about
    it.
    """

    low: float
    likely: float
    high: float


def extrapolated(curve: Sequence[float], epochs: int, confidence: float) -> Forecast:
    """What will be seen after the last epoch, with a two-sided prediction interval; of a short
    curve anything from 0 to 1.

    The interval holds every y that, added to the curve as its last point, leaves a fit not
    significantly worse than the best one (F-test with 1 and n - 5 degrees of freedom). Accuracies
    grow (a >= 0) and lie between 0 and 1.
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
    """Least squares of ``y - a * basis`` for each of the ``bases`` [..., n], the standard deviation
    in proportion to ``noise`` [n].

    Returns y, the sum of squared errors, and what the square of an error of y is to be divided by
    to be comparable with that sum; sums for different ``noise`` can be compared as likelihoods,
    because its geometric mean is made 1.
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
    """The most that the accuracy may be after the last epoch: the upper end of the interval, and
    what the schedule may add.

    The latter is the most that one of the ``finished`` curves (all of ``epochs`` epochs) came to
    beyond its own best fit, had it been looked at as early as this one.
    """
    bends = [
        one[-1] - extrapolated(one[: len(curve)], epochs, confidence).likely for one in finished
    ]
    return extrapolated(curve, epochs, confidence).high + max([0.0, *bends])


def hopeless(
    curve: Sequence[float], epochs: int, confidence: float, finished: Sequence[Sequence[float]]
) -> bool:
    """Whether a training may be ended: what it may come to lies under the best that a finished one
    has come to.
    """
    return bool(finished) and upper_bound(curve, epochs, confidence, finished) < max(
        one[-1] for one in finished
    )
