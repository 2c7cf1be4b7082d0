"""What every sampler must do, and what each one draws."""

import importlib
import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from supernet.errors import UserError
from supernet.mixture import Architecture, Choice
from supernet.randomness import Streams
from supernet.samplers.attentive import Attentive
from supernet.samplers.progressive import Progressive
from supernet.samplers.sandwich import Sandwich
from supernet.samplers.softmax import Softmax
from supernet.samplers.uniform import Uniform
from tests.budgets import budget_of
from tests.samplers.drawing import begun, cost, is_path, judged
from tests.tasks import task_of
from tests.variants import SPACES, cells_alone


def logits_of(space, noise, learning=False):
    return {
        group.name: torch.randn(group.shape, generator=noise).requires_grad_(learning)
        for group in space.groups
    }


def test_mixtures_are_ones_that_the_supernet_runs_and_train_weights_alone(space, sampler, noise):
    begun(sampler, space)
    supernet, logits = space.supernet(task_of(3, 1)), logits_of(space, noise)
    mixtures = sampler.mixtures(logits, 0.0, judged)
    assert mixtures
    for mixture in mixtures:
        loss = supernet(torch.randn(2, 1, 8, 8, generator=noise), mixture).square().sum()
        loss.backward()
        assert loss.isfinite()
    assert sum(weight.grad is not None for weight in supernet.parameters()) > 10


def test_the_relaxation_sends_gradients_to_every_logit(space, sampler, noise):
    """Over many draws, because some samplers send gradients only to what they draw."""
    begun_sampler = begun(sampler, space)
    logits = {
        name: (table / 10).requires_grad_() for name, table in logits_of(space, noise).items()
    }
    for _ in range(100):
        relaxed = begun_sampler.relaxation(logits, 0.5, noise)
        weights = torch.cat([choice.weights.flatten() for choice in relaxed.values()])
        (weights * torch.randn(weights.shape, generator=noise)).sum().backward()
    assert all((table.grad != 0).all() for table in logits.values())


def test_a_relaxation_is_the_same_for_the_same_noise(space, sampler, noise):
    """A learner that differentiates twice calls it twice."""
    logits, state = logits_of(space, noise), noise.get_state()
    begun_sampler = begun(sampler, space)
    first, second = (
        begun_sampler.relaxation(logits, 0.5, noise.set_state(state)) for _ in range(2)
    )
    for name, choice in first.items():
        assert choice.active == second[name].active and torch.equal(
            choice.weights, second[name].weights
        )


@cells_alone
def test_the_cost_beyond_the_budget_reaches_every_logit_in_whose_slot_costs_differ(
    space, sampler, noise
):
    logits, begun_sampler, budget = (
        logits_of(space, noise, learning=True),
        begun(sampler, space),
        budget_of(space, params=1.0),
    )
    budget.excess(
        {name: Choice.dense(table) for name, table in begun_sampler.probabilities(logits).items()}
    ).backward()
    assert all((table.grad != 0).all() for table in logits.values())


def test_scores_rank_the_options_as_the_logits_do_and_do_not_require_grad(space, sampler, noise):
    if sampler.scores_from != "logits":
        pytest.skip("its scores are a policy's")
    logits = logits_of(space, noise, learning=True)
    scores = begun(sampler, space).scores(logits)
    for name, table in logits.items():
        assert not scores[name].requires_grad and torch.equal(
            scores[name].argsort(-1), table.argsort(-1)
        )
    space.validate(space.derive(scores))


def test_draws_come_from_the_streams_alone_and_go_on_after_a_stop(space, sampler, noise):
    """Paths come from the host's stream, so that every process of a distributed run draws the same,
    on any device.
    """
    logits = logits_of(space, noise)

    def draws(streams, steps):
        found = [sampler.mixtures(logits, step / 6, judged) for step in steps]
        from_device = [name for name in streams.state_dict()["tensor"] if name.endswith("@meta")]
        assert not from_device or not all(is_path(m) for mixtures in found for m in mixtures)
        return [[{n: c.active for n, c in m.items()} for m in mixtures] for mixtures in found]

    def begin(streams):
        sampler.begin(budget_of(space), streams, torch.device("meta"))
        return streams

    torch.manual_seed(1)
    whole = draws(begin(Streams(3)), range(6))
    torch.manual_seed(2)
    streams = begin(Streams(3))
    first, saved, chance = draws(streams, range(2)), sampler.state_dict(), streams.state_dict()
    resumed = begin(Streams(0))
    resumed.load_state_dict(chance)
    sampler.load_state_dict(saved)
    assert first + draws(resumed, range(2, 6)) == whole


@pytest.mark.parametrize("metric", ["params", "madds"])
def test_every_path_keeps_the_budget(space, sampler, metric, noise):
    """The limit is such that the largest and a fifth of the others would break it."""
    logits, table = logits_of(space, noise), budget_of(space).tables[metric]

    def costs():
        drawn = [
            mixture for step in range(30) for mixture in sampler.mixtures(logits, step / 30, judged)
        ]
        return [cost(table, mixture) for mixture in drawn if is_path(mixture)]

    begun(sampler, space)
    if not (free := costs()):
        pytest.skip("it draws no paths")
    limit = float(np.quantile([c for c in free if c < max(free)], 0.8))
    begun(sampler, space, **{metric: limit})
    assert max(costs()) <= limit


@pytest.mark.parametrize("kind", [Attentive, Progressive, Sandwich])
def test_a_metric_that_nobody_counts_is_one_line(kind, space):
    with pytest.raises(UserError, match=r"sampler\.metric: unknown 'madd'; did you mean 'madds'\?"):
        begun(kind(metric="madd"), space)


def test_softmax_is_equation_2(space, noise):
    logits = logits_of(space, noise)
    (mixture,) = begun(Softmax(), space).mixtures(logits, 0.0, judged)
    for name, table in logits.items():
        exponentials = table.double().exp()
        torch.testing.assert_close(
            mixture[name].weights.double(), exponentials / exponentials.sum(1, keepdim=True)
        )
        assert mixture[name].active == (tuple(range(table.shape[1])),) * len(table)


def in_edges(space) -> list[list[int]]:
    """The slots of the edges into each node of a cell."""
    edges = importlib.import_module(type(space).__module__).EDGES
    return [
        [slot for slot, (_, target) in enumerate(edges) if target == node]
        for node in sorted({target for _, target in edges})
    ]


def valid_rows(space, group, slots: list[int]) -> set[tuple[int, ...]]:
    """By brute force: the options that these slots may choose together, if all other slots stay as
    they are in a valid architecture.
    """
    base = space.random(np.random.default_rng(0))
    rows = set()
    for options in itertools.product(range(len(group.options)), repeat=len(slots)):
        row = list(base[group.name])
        for slot, option in zip(slots, options, strict=True):
            row[slot] = group.options[option]
        try:
            space.validate(Architecture.of(space.name, **dict(base.choices) | {group.name: row}))
        except UserError:
            continue
        rows.add(options)
    return rows


@cells_alone
def test_uniform_paths_are_uniform_over_the_valid_architectures(space):
    """Chi-squared over all valid in-edges of a node, found by brute force, and for the independence
    of two nodes.
    """
    sampler = begun(Uniform(), space)
    sampler.paths = 6000  # more than the setting allows
    drawn = sampler.mixtures({}, 0.0, judged)
    for group in space.groups:
        table = np.array(
            [[option for (option,) in mixture[group.name].active] for mixture in drawn]
        )
        for slots in in_edges(space):
            rows = sorted(valid_rows(space, group, slots))
            seen, counts = np.unique(table[:, slots], axis=0, return_counts=True)
            frequency = dict(zip(map(tuple, seen.tolist()), counts.tolist(), strict=True))
            assert frequency.keys() <= set(rows) and len(drawn) > 10 * len(rows)
            assert stats.chisquare([frequency.get(row, 0) for row in rows]).pvalue > 1e-4
        for one, other in itertools.combinations([slots[-1] for slots in in_edges(space)], 2):
            pairs = stats.contingency.crosstab(table[:, one], table[:, other]).count
            assert stats.chi2_contingency(pairs).pvalue > 1e-4


def test_distinct_paths_are_uniform_over_the_functions():
    """Chi-squared over all functions of the space, the number of which is the space's own."""
    space = SPACES["nb201"]()
    sampler = begun(Uniform(distinct=True), space)
    cells = map(space.express, itertools.product(*(gene.values for gene in space.genes)))
    representatives = {space.canonical(cell) for cell in cells}
    numbers = {space.path(one)["edges"].active: i for i, one in enumerate(representatives)}
    sampler.paths = 3 * len(numbers)  # more than the setting allows
    drawn = [numbers[mixture["edges"].active] for mixture in sampler.mixtures({}, 0.0, judged)]
    counts = np.bincount(drawn, minlength=len(numbers))
    assert len(numbers) == 5653 and stats.chisquare(counts).pvalue > 1e-4


def test_uniform_draws_as_many_paths_as_the_setting_says(space):
    assert len(begun(Uniform(), space).mixtures({}, 0.0, judged)) == 1
    mixtures = begun(Uniform(paths=4), space).mixtures({}, 0.0, judged)
    assert len(mixtures) == 4 and all(
        choice.weights is None for mixture in mixtures for choice in mixture.values()
    )
    with pytest.raises(UserError, match=r"sampler\.paths=0: must be at least 1"):
        Uniform(paths=0)
