"""Growth: candidates are isolated from their network, a child begins as its parent, and shortcuts
are selected by their weights.
"""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from supernet.cost.budget import Budget
from supernet.cost.count import count
from supernet.errors import UserError
from supernet.export import export_network, load_bundle
from supernet.learners.l1 import L1
from supernet.mixture import Choice
from supernet.samplers.direct import Direct
from supernet.spaces.growing.shortcuts import Grown, candidate_sum, key
from supernet.train.settings import SearchSettings
from supernet.train.weights import SharedWeights
from tests.tasks import task_for
from tests.variants import GROWING_SPACES


@pytest.fixture(params=GROWING_SPACES)
def space(request):
    """A space that grows, whose parent has grown once."""
    found = GROWING_SPACES[request.param]()
    seed = found.seed(found.seed_names[0])
    return found.of_parent(found.step_by_chance(seed, np.random.default_rng(0)))


def exact(space):
    """The task, and the supernet in float64 with gates that are not zero."""
    task = task_for(space)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        supernet = space.supernet(task).double()
    if task.dtype.is_floating_point:
        task = dataclasses.replace(task, dtype=torch.float64)
    for name, parameter in supernet.named_parameters():
        if name.endswith(".gate"):
            nn.init.constant_(parameter, 0.25)
    return task, supernet


def omega(space, noise):
    """Weights of all candidates."""
    return {
        group.name: torch.randn(group.shape, generator=noise, dtype=torch.float64)
        for group in space.groups
    }


def alone(space, supernet, task):
    """The parent as a plain network, with the weights of the supernet."""
    network = space.standalone(space.grows_from, task, "search").double()
    state = supernet.state_dict()
    network.load_state_dict({name: state[name] for name in network.state_dict()})
    return network


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_candidates_change_no_bit_of_the_output(space, training, noise):
    task, supernet = exact(space)
    network = alone(space, supernet, task)
    inputs = task.example(4, noise=noise)
    mixture = {name: Choice.dense(table) for name, table in omega(space, noise).items()}
    supernet.train(training), network.train(training)
    assert torch.equal(supernet(inputs, mixture), network(inputs))
    state = supernet.state_dict()
    for name, value in network.state_dict().items():  # running statistics too
        assert torch.equal(state[name], value), name


def test_a_training_beside_candidates_has_the_bits_of_one_without(space, noise):
    """Weights, momenta, clipping and running statistics, over some steps."""
    task, supernet = exact(space)
    network = alone(space, supernet, task)
    settings = SearchSettings(epochs=1, batch_size=4, lr=0.1, clip=0.5)
    mixture = {name: Choice.dense(table) for name, table in omega(space, noise).items()}
    together, separate = (SharedWeights(settings, task, "cpu", "float32") for _ in range(2))
    together.begin(supernet, 5, 5)
    separate.begin(Ignoring(network), 5, 5)
    before = copy.deepcopy(supernet.state_dict())
    for _ in range(4):
        inputs = task.example(6, noise=noise)
        places = task.output_shape[1:]
        targets = torch.randint(task.outputs, (6, *places), generator=noise)
        for weights in (together, separate):
            weights.backward([mixture], (inputs, targets))
            weights.step()
    state, candidates = supernet.state_dict(), 0
    for name, value in network.state_dict().items():
        assert torch.equal(state[name], value), name
    for name, value in state.items():
        if name.startswith("candidates.") and "num_batches" not in name:
            candidates += int(not torch.equal(value, before[name]))
    assert candidates > 0  # they have learnt


class Ignoring(nn.Module):
    """A plain network that is called like a supernet."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs, mixture):
        return self.network(inputs)


def test_gradients_of_candidates_are_those_of_adding_them_with_weight_zero(space, noise):
    """Finite differences: the network with ``t`` times the sum of the candidates really added, for
    a small ``t``. Its slope in ``t * omega`` and in ``t`` times the weights of candidates is what
    the isolated candidates get.
    """
    task, supernet = exact(space)
    supernet.train()
    inputs = task.example(4, noise=noise)
    tables = {name: t.requires_grad_() for name, t in omega(space, noise).items()}
    mixture = {name: Choice.dense(table) for name, table in tables.items()}
    outputs = supernet(inputs, mixture)
    projection = torch.randn(outputs.shape, generator=noise, dtype=torch.float64)
    weights = [p for one in supernet.candidates.values() for p in one.parameters()]
    asked = [*tables.values(), *weights]
    isolated = torch.autograd.grad((outputs * projection).sum(), asked, allow_unused=True)

    def added(t):
        """The gradient in omega and in the weights, divided by t, where t times the sum is added,
        and the sources pass no gradient back.
        """

        def end(target, out, seen):
            out = Grown.grown(supernet, target, out, seen)
            return out + t * candidate_sum(supernet, target, seen, mixture)

        seen = {}
        with supernet.watched(seen, end):
            loss = (supernet.network(inputs) * projection).sum()
        found = torch.autograd.grad(loss, asked, allow_unused=True)
        return [None if g is None else g / t for g in found]

    step = 1e-7  # with a longer one, a ReLU has its kink between the two points
    for exactly, up, down in zip(isolated, added(step), added(-step), strict=True):
        if exactly is None or not exactly.any():
            continue
        near = (up + down) / 2
        assert (exactly - near).abs().max() <= 1e-6 * max(float(exactly.abs().max()), 1e-3)


def test_a_child_begins_as_its_parent(space, noise):
    """Both modes, and every candidate that a child keeps has the weights that it had."""
    task, supernet = exact(space)
    scores = {name: table.abs() for name, table in omega(space, noise).items()}
    child = space.derive(scores)
    inputs = task.example(4, noise=noise)
    kept = space.inherit(copy.deepcopy(supernet).float(), child).double()
    for training in (True, False):
        network = copy.deepcopy(kept).train(training)
        parent = alone(space, supernet, task).train(training)
        assert torch.equal(network(inputs), parent(inputs))
    state, found = supernet.state_dict(), kept.state_dict()
    (place, steps), *_ = [c for c in child.choices if c[0] != "seed" and c[1]]
    target = space.places(child["seed"][0], "search")[place][0].module
    for name in steps[-1].split("+"):
        prefix = f"additions.{key(target)}.{len(steps) - 1}.shortcuts.{name}."
        own = [n for n in found if n.startswith(prefix)]
        for n in own:
            candidate = f"candidates.{key(target)}.{name}.{n.removeprefix(prefix)}"
            torch.testing.assert_close(found[n], state[candidate])


def test_a_child_learns_in_all_that_was_added(space, noise):
    task, supernet = exact(space)
    child = space.derive({n: table.abs() for n, table in omega(space, noise).items()})
    network = space.inherit(supernet, child).double().train()
    for name, parameter in network.named_parameters():
        if name.endswith(".gate"):  # the projection of a closed gate has no gradient yet
            nn.init.constant_(parameter, 0.1)
    outputs = network(task.example(4, noise=noise))
    (outputs * torch.randn(outputs.shape, generator=noise, dtype=torch.float64)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_best_by_absolute_or_signed_weight_are_kept():
    space = GROWING_SPACES["growing_cells"]()
    names = space.groups[0].options
    row = torch.zeros(1, len(names))
    row[0, [1, 4, 6, 9]] = torch.tensor([-0.9, 0.5, 0.4, 0.3])
    logits = {group.name: row for group in space.groups}
    kept = {}
    for signed in (False, True):
        child = space.derive(Direct(signed).scores(logits))
        kept[signed] = set(child["normal"][0].split("+"))
    assert kept[False] == {names[1], names[4], names[6]}
    assert kept[True] == {names[4], names[6], names[9]}
    scores = Direct().scores(logits)
    others = [space.encode(space.derive(scores))]
    second = space.child(scores, others)
    assert set(second["normal"][0].split("+")) == {names[1], names[4], names[9]}


def test_only_the_best_places_grow_if_so_many_are_asked_for():
    space = dataclasses.replace(GROWING_SPACES["growing_blocks"](), places_a_step=1)
    scores = {group.name: torch.rand(group.shape) for group in space.groups}
    scores["cell2"] += 1
    child = space.derive(scores)
    assert [place for place, steps in child.choices if steps and place != "seed"] == ["cell2"]
    rng = np.random.default_rng(0)
    drawn = space.step_by_chance(space.grows_from, rng)
    assert sum(bool(steps) for place, steps in drawn.choices if place != "seed") == 1


def test_l1_draws_weights_that_help_nothing_to_zero():
    """A quadratic loss with a known solution: soft thresholding (Tibshirani 1996, section 2.2)."""
    wanted = torch.tensor([[0.5, 0.02, -0.3, -0.01]])
    logits = {"g": torch.zeros(1, 4, requires_grad=True)}
    learner = L1(lr=0.01, momentum=0.0, weight=0.05)
    learner.begin(logits, Direct())
    assert torch.equal(logits["g"], torch.full((1, 4), 0.25))
    for _ in range(3000):
        ((logits["g"] - wanted) ** 2 / 2).sum().backward()
        learner.follow(logits)
    expected = wanted.sign() * (wanted.abs() - 0.05).clamp(min=0)
    assert (logits["g"] - expected).abs().max() < 2e-3  # a step of the subgradient is 0.0005


def test_what_a_place_can_read_is_named_and_refused_in_one_line():
    space = GROWING_SPACES["growing_cells"]()
    text = "seed=1x1x2 normal=sep_conv_3x3@last+skip_connect@node0,dil_conv_5x5@added0 reduce="
    assert space.encode(space.decode(text)) == text
    for wrong, said in {
        "seed=9x9x9 normal= reduce=": "seed=9x9x9",
        "seed=1x1x2 normal=": "has",
        "seed=1x1x2 normal=sep_conv_3x3@added0 reduce=": "added0",
        "seed=1x1x2 normal=conv@last reduce=": "conv@last",
        "seed=1x1x2 normal=skip_connect@last+skip_connect@last reduce=": "twice",
        "normal= reduce=": "expected the form",
        "": "expected the form",
    }.items():
        with pytest.raises(UserError, match=said.replace("+", r"\+")) as caught:
            space.decode(wrong)
        assert "\n" not in str(caught.value)


def test_order_of_shortcuts_makes_no_second_architecture():
    space = GROWING_SPACES["growing_cells"]()
    one, other = (
        space.decode(f"seed=1x1x2 normal={text} reduce=")
        for text in ("sep_conv_3x3@last+skip_connect@node0", "skip_connect@node0+sep_conv_3x3@last")
    )
    assert one != other and space.canonical(one) == space.canonical(other)


def test_costs_are_limited_without_tables(monkeypatch):
    monkeypatch.setattr("supernet.cost.budget.FEW_TRIES", 8)
    space = GROWING_SPACES["growing_cells"]()
    task, rng = task_for(space), np.random.default_rng(0)
    drawn = [space.random(rng) for _ in range(8)]
    sizes = [count(space.standalone(one, task), task).params for one in drawn]
    budget = Budget(space, task, {"params": float(np.median(sizes))})
    assert [budget.allows(one) for one in drawn] == [s <= np.median(sizes) for s in sizes]
    assert budget.allows(budget.random(np.random.default_rng(0)))
    with pytest.raises(UserError, match="raise the limits"):
        Budget(space, task, {"params": 10.0}).random(rng)


def test_the_second_head_reads_the_last_cell_before_the_last_reduction_in_training_alone(tmp_path):
    space = GROWING_SPACES["growing_cells"]()
    task = task_for(space)
    architecture = space.random(np.random.default_rng(0))
    network = space.standalone(architecture, task).train()
    inputs = task.example(4)
    outputs, second = network.forward_with_auxiliary(inputs)
    assert outputs.shape == second.shape == (4, 10) and network.aside == "cells.0"
    second.sum().backward()
    learnt = {name for name, p in network.named_parameters() if p.grad is not None}
    assert any(name.startswith("auxiliary.") for name in learnt)
    assert any(name.startswith("additions.cells-0.") for name in learnt) == bool(
        architecture["normal"]
    )
    assert not any(name.startswith(("network.cells.1.", "network.head.")) for name in learnt)
    assert network.eval().forward_with_auxiliary(inputs)[1] is None
    plain = dataclasses.replace(space, auxiliary=False).standalone(architecture, task)
    assert count(plain, task) == count(network, task)
    export_network(network, architecture, space, task=task, folder=tmp_path / "export", metadata={})
    alone = load_bundle(tmp_path / "export", trust=True).eval()
    with torch.no_grad():
        assert alone.auxiliary is None and torch.equal(alone(inputs), network(inputs))
