"""Launches are counted as a person would count them."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from supernet.mixture import softmax_mixture
from tests.tasks import task_of
from tests.variants import SPACES
from tools.launches import launches

X = torch.randn(4, 4)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (lambda: None, 0),
        (lambda: X + X, 1),
        (lambda: F.relu(X @ X), 2),
        (lambda: X.t()[1:].view(3, 4).unsqueeze(0).expand(2, 3, 4).detach(), 0),  # views
        (lambda: torch.empty(3), 0),
        (lambda: torch.zeros(3), 1),
        (lambda: torch._foreach_add([X, X, X], 1), 1),
    ],
)
def test_operations_that_compute_are_counted(step, expected):
    assert launches(step) == expected


def test_the_backward_pass_and_the_optimiser_count():
    weight = torch.randn(4, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1, foreach=True)

    def forward():
        return (weight * 2).sum()

    def step():
        forward().backward()
        optimizer.step()

    assert launches(forward) == 2
    alone = launches(lambda: forward().backward())
    assert alone == 4  # ones, which are expanded, which is a view, and multiplied by 2
    weight.grad = torch.ones(4)
    assert launches(optimizer.step) == 1
    weight.grad = None
    assert launches(step) == alone + 1


def test_a_path_launches_fewer_operations_than_a_mixture():
    """And not more than the network of its architecture."""
    space, images = SPACES["nb201"](), torch.randn(2, 3, 8, 8)
    architecture = space.random(np.random.default_rng(0))
    supernet = space.supernet(task_of(3))
    network = space.inherit(supernet, architecture)
    path = launches(lambda: supernet(images, space.path(architecture)))
    zeros = {group.name: torch.zeros(group.shape) for group in space.groups}
    mixture = launches(lambda: supernet.eval()(images, softmax_mixture(zeros)))
    assert 0 < path <= launches(lambda: network(images)) < mixture
