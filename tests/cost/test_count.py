"""Costs, compared with published tables and with sums worked out by hand."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from supernet.cost.count import Cost, count
from supernet.spaces.cells import Geometry
from supernet.spaces.darts import Darts
from supernet.spaces.nb201 import NB201
from tests.spaces.test_published import DARTS_V2
from tests.tasks import task_of

CIFAR = task_of(10, 3, (32, 32))
PAPER = NB201(Geometry(16, 5), Geometry(16, 5))
DARTS = Darts(Geometry(16, 8), Geometry(36, 20), auxiliary=True)
SIX_CONVOLUTIONS = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
    "+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
)


def nb201_cost(text: str) -> Cost:
    return count(PAPER.standalone(PAPER.decode(text), CIFAR), CIFAR)


def test_six_3x3_convolutions_have_the_published_1531546_parameters():
    assert nb201_cost(SIX_CONVOLUTIONS).params == 1_531_546


def test_parameters_of_random_cells_equal_the_published_table(shared):
    table = np.load(shared / "nb201_cifar10.npz")
    for index in np.random.default_rng(1).integers(len(table["arch"]), size=12):
        assert nb201_cost(str(table["arch"][index])).params == round(table["params_m"][index] * 1e6)


def test_multiply_adds_agree_with_the_published_table(shared):
    """The order is the same. The numbers are the same to the last digit, after adding the
    elementwise work, which the table counts and this project does not.

    This work is 3 for each element that a convolution edge writes (ReLU and BatchNorm), 9 for each
    element of a pooling edge, and a constant for the rest of the network.
    """
    table = np.load(shared / "nb201_cifar10.npz")
    chosen = np.random.default_rng(2).choice(len(table["arch"]), size=12, replace=False)
    texts = [str(text) for text in table["arch"][chosen]]
    ours = np.array([nb201_cost(text).madds / 1e6 for text in texts])
    assert spearmanr(ours, table["madds_m"][chosen]).statistic > 0.98
    # the elements of an edge, in 5 cells of each of the three stages
    elements = 5 * (16 * 32**2 + 32 * 16**2 + 64 * 8**2) / 1e6
    work = np.array([3 * text.count("nor_conv") + 9 * text.count("avg_pool") for text in texts])
    np.testing.assert_allclose(
        table["madds_m"][chosen] - ours - elements * work, 0.160832, atol=1e-6
    )


def test_multiply_adds_of_nb201_worked_by_hand():
    """One cell per stage, 4 channels, an input of 3×8×8. A k×k convolution from a to b channels on
    p pixels costs k·k·a·b·p.
    """
    space = NB201(Geometry(4, 1), Geometry(4, 1))
    cell = space.decode(
        "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|none~2|"
    )
    stages = [(4, 64), (8, 16), (16, 4)]  # channels and pixels
    by_hand = 9 * 3 * 4 * 64 + 16 * 10  # stem and classifier
    by_hand += sum((9 + 1) * c * c * pixels for c, pixels in stages)
    by_hand += sum(
        (9 * a * b + 9 * b * b + a * b) * pixels for (a, _), (b, pixels) in pairwise(stages)
    )
    task = task_of(10, 3)
    for form in ("search", "evaluation"):
        assert count(space.standalone(cell, task, form), task).madds == by_hand


def test_darts_v2_has_the_published_size_without_its_auxiliary_head():
    """It has 3.3 M parameters (DARTS, table 1). Its multiply-adds are published as 528 M to 540 M,
    depending on what is counted.
    """
    network = DARTS.standalone(DARTS.decode(DARTS_V2), CIFAR)
    cost = count(network, CIFAR)
    assert network.auxiliary is not None
    assert round(cost.params / 1e6, 1) == 3.3
    assert 520e6 < cost.madds < 545e6
    plain = Darts(Geometry(16, 8), Geometry(36, 20), auxiliary=False)
    assert count(plain.standalone(plain.decode(DARTS_V2), CIFAR), CIFAR) == cost
    search = count(DARTS.standalone(DARTS.decode(DARTS_V2), CIFAR, "search"), CIFAR)
    assert search.params < cost.params / 5 and search.madds < cost.madds / 5


def test_counting_leaves_the_network_as_it_was():
    space = NB201(Geometry(4, 1), Geometry(4, 1))
    network = space.standalone(space.decode(SIX_CONVOLUTIONS), task_of(10, 1)).train()
    # as a retraining leaves it
    network.blocks[0].drop_path.generator = torch.Generator().manual_seed(0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    count(network, task_of(10, 1))
    assert network.training and all(
        torch.equal(before[name], value) for name, value in network.state_dict().items()
    )


@pytest.mark.parametrize("groups", [1, 4])
def test_one_convolution_by_hand(groups):
    network = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=groups)
    assert count(network, task_of(10, 4, (7, 9))) == Cost(
        8 * 4 // groups * 9 + 8, 9 * (4 // groups) * 8 * 4 * 5
    )
