"""Partial channels: a cell is compared with PC-DARTS, written out edge by edge, and the properties
that a supernet with them keeps are checked.
"""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from supernet.errors import UserError
from supernet.learners.gradient import Gradient
from supernet.mixture import Choice
from supernet.modifiers.edge_normalisation import EdgeNormalisation
from supernet.samplers.softmax import Softmax
from supernet.spaces.cells import Geometry, MixedCell, choices_of_edges
from supernet.spaces.darts import EDGES, OPTIONS, Darts
from supernet.spaces.nb201 import NB201
from tests.spaces.test_spaces import assert_same, one_hot
from tests.tasks import task_of

PARTIAL = {
    "nb201": lambda: NB201(Geometry(4, 1, 2), Geometry(4, 1)),
    "darts": lambda: Darts(Geometry(4, 3, 2), Geometry(4, 3), auxiliary=False),
}


def textbook(cell, states, weights, shares):
    """Equations 2 and 3. On every edge, the operations run on a part of the channels; the rest is
    put beside it; both are shuffled and multiplied by the share of the edge.
    """
    states = list(states)
    for node in range(2, 6):
        total = 0
        for slot, (source, target) in enumerate(EDGES):
            if target == node:
                part, rest = states[source].tensor_split([states[source].shape[1] // 4], dim=1)
                operations = cell.edges[f"from_{source}_to_{target}"]
                mixed = sum(
                    weights[slot, index] * operations[name](part)
                    for index, name in enumerate(OPTIONS)
                    if name != "none"
                )
                rest = rest if mixed.shape[2] == rest.shape[2] else F.max_pool2d(rest, 2)
                both = torch.cat([mixed, rest], dim=1)
                batch, channels, height, width = both.shape
                shuffled = (
                    both.view(batch, 4, channels // 4, height, width)
                    .transpose(1, 2)
                    .reshape(both.shape)
                )
                total = total + shares[slot] * shuffled
        states.append(total)
    return torch.cat(states[2:], dim=1)


@pytest.mark.parametrize("strides", [[1] * 5, [2, 2, 1, 1, 1]], ids=["normal", "reduction"])
def test_a_cell_is_that_of_the_paper(strides, noise):
    group = choices_of_edges("normal", 14, OPTIONS)
    cell = MixedCell(EDGES, 6, 4, strides, 8, False, True, group, partial_channels=4).double()
    states = [torch.randn(3, 8, 6, 6, generator=noise, dtype=torch.float64) for _ in range(2)]
    alphas = torch.randn(14, 8, generator=noise, dtype=torch.float64)
    betas = [
        torch.randn(len(slots), generator=noise, dtype=torch.float64)
        for slots in PARTIAL["darts"]().sums("normal")
    ]
    weights, shares = alphas.softmax(-1), torch.cat([beta.softmax(-1) for beta in betas])
    mixture = {"normal": Choice.dense(weights * shares[:, None])}
    torch.testing.assert_close(
        cell(*states, mixture=mixture), textbook(cell, states, weights, shares)
    )


@pytest.mark.parametrize("name", PARTIAL)
def test_a_path_is_the_one_hot_mixture(name, noise):
    """What remains of invariant 1: the subnet is the supernet on a path, with the channels that
    bypass the operations.
    """
    space = PARTIAL[name]()
    supernet, rng = space.supernet(task_of(3, 1)).eval(), np.random.default_rng(0)
    images = torch.randn(2, 1, 8, 8, generator=noise)
    with torch.no_grad():
        for _ in range(5):
            architecture = space.random(rng)
            dense = {
                group: Choice.dense(table) for group, table in one_hot(space, architecture).items()
            }
            assert_same(supernet(images, space.path(architecture)), supernet(images, dense))
    with pytest.raises(
        UserError,
        match=r"no plain network has the weights of such a supernet; choose retrain\.init=scratch",
    ):
        space.standalone(architecture, task_of(3, 1), "search")
    space.standalone(architecture, task_of(3, 1))(images)


@pytest.mark.parametrize("name", PARTIAL)
def test_a_search_runs_and_costs_are_those_of_whole_networks(name, search_stage):
    space = PARTIAL[name]()
    stage = search_stage(space, Softmax(), Gradient(), modifiers=[EdgeNormalisation()])
    assert all(value.isfinite() for value in stage.step(0).values())
    whole = sum(
        weight.numel()
        for weight in type(space)(Geometry(4, space.search.cells), space.evaluation)
        .supernet(task_of(3, 1))
        .parameters()
    )
    assert sum(weight.numel() for weight in stage.supernet.parameters()) < whole
    architecture = space.random(np.random.default_rng(0))
    network = space.standalone(architecture, task_of(3, 1))
    assert stage.budget.costs(architecture)["params"] == sum(
        weight.numel() for weight in network.parameters()
    )


def test_settings_that_do_not_fit_are_one_line():
    with pytest.raises(
        UserError, match=r"space\.search\.partial_channels=3: must divide space\.search\.channels=4"
    ):
        NB201(Geometry(4, 1, 3), Geometry(4, 1))
    with pytest.raises(UserError, match=r"space\.evaluation\.partial_channels"):
        NB201(Geometry(4, 1), Geometry(4, 1, 2))
