"""The LSTM controller of ENAS: its probabilities, its draws, its budget and its derivation."""

import itertools
import math
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from scipy import stats
from torch import nn

from supernet.cost.budget import Budget
from supernet.errors import UserError
from supernet.mixture import ChoiceGroup
from supernet.randomness import Streams
from supernet.samplers.policy import Policy
from supernet.spaces.cells import Geometry
from supernet.spaces.nb201 import NB201
from tests.tasks import task_of


@dataclass
class Small(NB201):
    """NAS-Bench-201 with two operations for each edge: its 64 architectures can be enumerated."""

    groups: ClassVar = (ChoiceGroup("edges", 6, ("skip_connect", "nor_conv_3x3")),)


def small() -> Small:
    return Small(Geometry(4, 1), Geometry(4, 1))


def every(space) -> list:
    """All architectures of a space, by brute force."""
    return [
        space.express(values)
        for values in itertools.product(*(gene.values for gene in space.genes))
    ]


def policy(space, *, limits=None, seed=0, spread=None, **settings) -> Policy:
    """A policy that has begun. ``spread`` scales its parameters, so that it is far from uniform."""
    sampler = Policy(**{"hidden": 8, "temperature": 1.0, "tanh_constant": 2.5} | settings)
    sampler.begin(Budget(space, task_of(3, 1), limits), Streams(seed), torch.device("cpu"))
    if spread:
        with torch.no_grad():
            for weight in sampler.controller.parameters():
                weight.mul_(spread)
    return sampler


def probabilities(sampler, architectures) -> torch.Tensor:
    with torch.no_grad():
        return sampler.likelihood(architectures)[0].double().exp()


def test_the_probabilities_of_all_15625_cells_sum_to_one():
    space = NB201(Geometry(4, 1), Geometry(4, 1))
    cells = every(space)
    found = probabilities(policy(space, spread=10), cells)
    assert len(cells) == 15625 and float(found.sum()) == pytest.approx(1, abs=1e-5)
    assert found.max() > 10 * found.min()


def test_log_probability_and_entropy_are_those_of_torchs_own_lstm_and_distributions(space):
    """Compared with a second implementation: the whole sequence goes through ``nn.LSTM`` at once,
    and each decision is a ``Categorical``.
    """
    sampler = policy(space, spread=10, temperature=2.0, tanh_constant=1.5)
    controller, genes = sampler.controller, space.genes
    architectures, log_probability, entropy = sampler.sample(5)
    lstm = nn.LSTM(8, 8, batch_first=True)
    lstm.load_state_dict(
        {f"{name}_l0": value for name, value in controller.cell.state_dict().items()}
    )
    kinds = list(dict.fromkeys(gene.values for gene in genes))
    for index, architecture in enumerate(architectures):
        chosen = [
            gene.values.index(value)
            for gene, value in zip(genes, space.values(architecture), strict=True)
        ]
        kind = [kinds.index(gene.values) for gene in genes]
        inputs = [
            controller.start,
            *(controller.embeddings[k].weight[i] for k, i in zip(kind, chosen, strict=True)),
        ]
        outputs = lstm(torch.stack(inputs[:-1])[None])[0][0]
        decisions = [
            torch.distributions.Categorical(
                logits=1.5 * torch.tanh(controller.heads[k].weight @ output / 2)
            )
            for k, output in zip(kind, outputs, strict=True)
        ]
        expected = sum(
            one.log_prob(torch.tensor(i)) for one, i in zip(decisions, chosen, strict=True)
        )
        torch.testing.assert_close(log_probability[index], expected)
        torch.testing.assert_close(entropy[index], sum(one.entropy() for one in decisions))


def test_draws_have_the_frequencies_of_their_probabilities():
    """Chi-squared over all 64 architectures. The mean entropy of the draws is compared with the
    entropy of the whole distribution.
    """
    space, count = small(), 20_000
    sampler = policy(space, spread=10)
    expected = probabilities(sampler, every(space))
    architectures, _, entropy = sampler.sample(count)
    seen = Counter(architectures)
    observed = [seen[architecture] for architecture in every(space)]
    assert stats.chisquare(observed, (expected * count / expected.sum()).tolist()).pvalue > 1e-4
    assert stats.chisquare(observed).pvalue < 1e-9  # the policy is far from uniform
    exact, error = (
        float(torch.special.entr(expected).sum()),
        entropy.std().item() / math.sqrt(count),
    )
    assert abs(entropy.mean().item() - exact) < 4 * error and error < 0.01 * exact


def test_scores_are_the_marginal_frequencies_and_take_nothing_from_the_draws(space):
    sampler, twin = (policy(space, spread=10, scored=4000) for _ in range(2))
    scores = sampler.scores({})
    assert all(torch.equal(sampler.scores({})[name], table) for name, table in scores.items())
    assert (
        sampler.streams.state_dict()["tensor"].keys() == twin.streams.state_dict()["tensor"].keys()
    )
    assert sampler.mixtures({}, 0.0, None) == twin.mixtures({}, 0.0, None)
    drawn, _, _ = twin.sample(4000)
    for group in space.groups:
        torch.testing.assert_close(scores[group.name].sum(dim=1), torch.ones(group.slots))
        for slot in range(group.slots):
            other = Counter(architecture[group.name][slot] for architecture in drawn)
            frequencies = torch.tensor([other[option] / len(drawn) for option in group.options])
            assert (frequencies - scores[group.name][slot]).abs().max() < 5 * math.sqrt(
                2 * 0.25 / len(drawn)
            )
    space.validate(space.derive(scores))


def test_marginals_are_exact_up_to_their_own_error():
    space = small()
    sampler = policy(space, spread=10, scored=10_000)
    cells = every(space)
    chosen = torch.tensor(
        [[option == "nor_conv_3x3" for option in cell["edges"]] for cell in cells]
    ).double()
    exact = (probabilities(sampler, cells)[:, None] * chosen).sum(dim=0)
    assert exact.std() > 0.01
    assert (
        (sampler.scores({})["edges"][:, 1] - exact).abs()
        < 4 * (exact * (1 - exact) / 10_000).sqrt()
    ).all()


def test_everything_drawn_and_derived_keeps_the_budget(space):
    free = policy(space, spread=10)
    costs = sorted(
        free.budget.tables["params"].of(architecture)
        for architecture in free.draw(200, torch.Generator())
    )
    sampler = policy(space, spread=10, limits={"params": costs[60]}, paths=30)
    assert not all(map(sampler.budget.allows, free.draw(200, torch.Generator())))
    drawn = sampler.draw(50, torch.Generator())
    assert (
        len(drawn) == 50
        and len(set(drawn)) > 10
        and all(map(sampler.budget.allows, map(space.validate, drawn)))
    )
    assert len(sampler.mixtures({}, 0.0, None)) == 30
    assert all(map(sampler.budget.allows, sampler.sample(20)[0]))
    assert sampler.budget.allows(sampler.budget.best(sampler.scores({})))


def test_a_budget_that_the_policy_never_hits_gives_the_best_by_its_marginals(space):
    budget = Budget(space, task_of(3, 1))
    limit = budget.tables["params"].of(budget.cheapest())
    sampler = policy(space, limits={"params": limit}, scored=100)
    with torch.no_grad():  # it strongly prefers the options with the most parameters
        for gene, kind in zip(space.genes, sampler.controller.kinds, strict=True):
            for index, value in enumerate(gene.values):
                sampler.controller.heads[kind].weight[index] = 9.0 if "conv" in str(value) else -9.0
        sampler.controller.cell.bias_ih.fill_(1.0)
    drawn = sampler.draw(3, torch.Generator())
    assert drawn == [sampler.budget.best(sampler.scores({}))] * 3 and sampler.budget.allows(
        drawn[0]
    )


def test_bf16_elsewhere_leaves_the_policy_in_float32():
    sampler = policy(small(), spread=10)
    expected = sampler.likelihood(every(sampler.space))[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sampler.likelihood(every(sampler.space))[0], expected)


def test_settings_out_of_range_are_refused():
    with pytest.raises(UserError, match=r"sampler\.hidden=0: must be at least 1"):
        Policy(hidden=0)
    with pytest.raises(UserError, match=r"sampler\.temperature=0\.0: must be greater than 0"):
        Policy(temperature=0.0)
