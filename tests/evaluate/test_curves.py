"""Predictions for curves that were made from known laws."""

import numpy as np
import pytest

from supernet.evaluate.curves import FEWEST, extrapolated, hopeless, upper_bound

EPOCHS = 30
LAWS = {  # Domhan et al. 2015, table 1
    "pow3": lambda t, c, a, alpha, _: c - a * t**-alpha,
    "pow4": lambda t, c, a, alpha, b: c - (a * t + b) ** -alpha,
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    "parameters", [(0.95, 0.8, 0.5, 1.0), (0.7, 0.6, 1.3, 4.0), (0.9, 1.0, 2.0, 0.5)]
)
def test_a_power_law_without_noise_is_continued(law, parameters):
    curve = LAWS[law](np.arange(1, EPOCHS + 1), *parameters)
    forecast = extrapolated(curve[:10], EPOCHS, 0.95)
    assert forecast.low <= forecast.likely <= forecast.high
    assert forecast.likely == pytest.approx(curve[-1], abs=3e-3)
    assert forecast.high - forecast.low < 0.02


def noisy(rng, noise, finals=(0.6, 0.95), quieting=0.0):
    """A curve of a random pow4 law with noise; ``noise`` is the standard deviation at the last
    epoch.
    """
    t, c, alpha = np.arange(1, EPOCHS + 1), rng.uniform(*finals), rng.uniform(0.4, 2)
    shift, start = rng.uniform(0, 5), rng.uniform(0.2, 0.5)
    law = c - (c - start) * ((t + shift) / (1 + shift)) ** -alpha
    return law + rng.normal(0, noise, EPOCHS) * (EPOCHS / t) ** quieting


@pytest.mark.parametrize("seen", [8, 16])
@pytest.mark.parametrize(("confidence", "quieting"), [(0.8, 0), (0.95, 0), (0.95, 1)])
def test_intervals_hold_as_often_as_they_say(seen, confidence, quieting):
    """On noisy laws the coverage is at least the nominal one, to within three standard errors."""
    rng, count = np.random.default_rng(seen), 200
    curves = [noisy(rng, 0.002 if quieting else 0.01, quieting=quieting) for _ in range(count)]
    intervals = [extrapolated(curve[:seen], EPOCHS, confidence) for curve in curves]
    held = np.mean(
        [one.low <= curve[-1] <= one.high for curve, one in zip(curves, intervals, strict=True)]
    )
    assert held >= confidence - 3 * np.sqrt(confidence * (1 - confidence) / count)
    assert np.mean([one.high - one.low for one in intervals]) < 0.5  # it does say something


def test_more_confidence_and_fewer_epochs_say_less():
    curve = noisy(np.random.default_rng(0), 0.01)
    forecasts = [
        extrapolated(curve[:n], EPOCHS, c) for n, c in ((24, 0.9), (12, 0.5), (12, 0.9), (12, 0.99))
    ]
    late, *widths = (one.high - one.low for one in forecasts)
    assert widths == sorted(widths) and widths[0] < widths[2] and late < widths[1]
    nothing = extrapolated(curve[: FEWEST - 1], EPOCHS, 0.5)
    assert (nothing.low, nothing.high) == (0.0, 1.0)


def test_a_falling_curve_is_not_continued_downwards():
    """The fall may be noise: the laws only grow, so the prediction is flat."""
    falling = extrapolated([0.5, 0.45, 0.48, 0.43, 0.47, 0.42, 0.44], EPOCHS, 0.5)
    assert falling.low < falling.likely < falling.high and 0.42 < falling.likely < 0.48
    flat = extrapolated([0.3] * 8, EPOCHS, 0.95)
    assert [flat.low, flat.likely, flat.high] == pytest.approx([0.3] * 3)


def test_the_best_is_never_ended_though_the_schedule_bends_its_curve():
    """The curves are those of a cosine schedule: a power law, and a rise in the last third that no
    law predicts.

    The first training is never ended. What it gained by the rise is added to the bounds of the
    others. Without that, the best training would be ended here.
    """
    rng, blind = np.random.default_rng(1), 0
    t = np.arange(1, EPOCHS + 1)
    rise = 0.08 * np.clip((t - 20) / 10, 0, 1) ** 2
    for _ in range(4):
        curves = [noisy(rng, 0.004, (0.6, 0.85)) + rise for _ in range(8)]
        best = max(range(8), key=lambda i: curves[i][-1])
        finished, ended = [], []
        for index, curve in enumerate(curves):
            looks = range(12, EPOCHS, 4)
            if any(hopeless(curve[:n], EPOCHS, 0.95, finished) for n in looks):
                ended.append(index)
            else:
                finished.append(curve)
            rivals = [other[-1] for other in curves if other is not curve]
            blind += index == best and any(
                upper_bound(curve[:n], EPOCHS, 0.95) < max(rivals) for n in looks
            )
        assert best not in ended and 0 not in ended
    assert blind


def test_nothing_is_hopeless_before_something_is_finished():
    assert not hopeless([0.1] * 20, EPOCHS, 0.5, [])
    assert hopeless([0.1] * 20, EPOCHS, 0.5, [[0.9] * EPOCHS])
    assert not hopeless([0.1] * (FEWEST - 1), EPOCHS, 0.5, [[0.9] * EPOCHS])
