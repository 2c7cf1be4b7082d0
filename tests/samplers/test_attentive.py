"""Attention to the best and the worst architectures, with losses that the test makes up."""

import numpy as np
import pytest
import torch
from scipy import stats

from supernet.errors import UserError
from supernet.samplers.attentive import Attentive
from tests.samplers.drawing import architecture_of, begun, cost, judged


class Losses:
    """A random loss for each path. It remembers the paths."""

    def __init__(self):
        self.rng, self.asked = np.random.default_rng(0), []

    def __call__(self, path):
        self.asked.append((path, float(self.rng.random())))
        return torch.tensor(self.asked[-1][1], dtype=torch.float64)


@pytest.mark.parametrize(("mode", "extreme"), [("best", min), ("worst", max)])
def test_the_one_of_extreme_loss_is_trained(space, mode, extreme):
    sampler = begun(Attentive(mode=mode, candidates=5, paths=3, buckets=2), space)
    for _ in range(10):
        loss = Losses()
        mixtures = sampler.mixtures({}, 0.0, loss)
        assert (len(mixtures), len(loss.asked)) == (3, 15)
        for position, mixture in enumerate(mixtures):
            candidates = loss.asked[5 * position :][:5]
            assert mixture is extreme(candidates, key=lambda candidate: candidate[1])[0]


@pytest.mark.parametrize("metric", ["params", "madds"])
def test_candidates_cost_about_the_same_and_the_costs_are_distributed_as_those_of_all(
    space, metric
):
    """Buckets are made by NumPy. Chi-squared of their frequencies, compared with architectures that
    are drawn uniformly.
    """
    sampler = begun(Attentive(candidates=3, buckets=6, metric=metric), space)
    table = sampler.budget.tables[metric]
    edges = np.linspace(
        table.of(sampler.budget.cheapest(metric)), table.of(sampler.budget.largest(metric)), 7
    )[1:-1]
    drawn = []
    for _ in range(300):
        loss = Losses()
        sampler.mixtures({}, 0.0, loss)
        (bucket,) = {int(np.digitize(cost(table, path), edges)) for path, _ in loss.asked}
        drawn.append(bucket)
    rng = np.random.default_rng(5)
    free = [int(np.digitize(table.of(space.random(rng)), edges)) for _ in range(2000)]
    counts = np.array([np.bincount(buckets, minlength=6) for buckets in (drawn, free)])
    counts = np.column_stack([counts[:, counts.sum(0) >= 40], counts[:, counts.sum(0) < 40].sum(1)])
    assert len(set(drawn)) > 2
    assert stats.chi2_contingency(counts[:, counts.sum(0) > 0]).pvalue > 1e-4


def test_of_a_lone_architecture_in_its_bucket_there_is_one_candidate(space, monkeypatch):
    """It is then trained, whatever its loss is; the sampler does not search for ever."""
    monkeypatch.setattr("supernet.samplers.attentive.TRIES", 50)
    sampler = begun(Attentive(), space)
    sampler.buckets = 10**9  # more than the setting allows
    least, others = sampler.budget.smallest("madds"), sampler.budget.largest("madds")
    draws = iter([least])
    sampler.budget.random = lambda rng: next(draws, others)
    (mixture,) = sampler.mixtures({}, 0.0, judged)
    assert architecture_of(space, mixture) == least


def test_a_wrong_setting_is_one_line():
    for settings, message in (
        ({"mode": "wurst"}, "sampler.mode: .*did you mean 'worst'"),
        ({"candidates": 0}, "sampler.candidates=0"),
    ):
        with pytest.raises(UserError, match=message):
            Attentive(**settings)
