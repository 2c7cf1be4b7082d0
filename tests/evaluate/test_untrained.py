"""Scores of untrained networks: compared with what theory says of small ones, and with loops."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from supernet.evaluate.untrained import (
    LOWEST,
    SCORES,
    STABILISER,
    jacobian_covariance,
    naswot,
    synflow,
    vote,
)
from tests.compare import identical


@pytest.fixture
def images():
    return torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def network(activation=nn.ReLU) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False),
        nn.BatchNorm2d(3, affine=False),
        activation(),
        nn.Flatten(),
        nn.Linear(12, 5, bias=False),
        activation(),
        nn.Linear(5, 4, bias=False),
    )


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.Hardswish])
def test_each_layer_of_a_chain_has_the_same_synaptic_flow(images, activation):
    """Tanaka et al., theorem 1: it is the sum of the outputs, here a product of matrices."""
    net = network(activation)
    kernel, first, last = (net[i].weight.detach().double().abs() for i in (0, 4, 6))
    outputs = last @ first @ kernel.sum(dim=(1, 2, 3)).repeat_interleave(4)
    assert synflow(net, images) == pytest.approx(float((3 * outputs.sum()).log()))


def test_the_kernel_counts_activations_that_agree(images):
    net = network()
    codes = []
    for i in (3, 6):
        with torch.no_grad():
            codes.append(net.train()[:i](images).flatten(1) > 0)
    codes = torch.cat(codes, dim=1)
    kernel = [[int((one == other).sum()) for other in codes] for one in codes]
    assert naswot(net, images) == pytest.approx(np.linalg.slogdet(np.array(kernel))[1])


def test_jacobians_that_are_one_by_one_give_the_same_score(images):
    """Without BatchNorm, the outputs of an image depend on this image alone."""
    net = nn.Sequential(*(copy.deepcopy(network()[i]) for i in (0, 2, 3, 4, 5, 6)))
    rows = [
        torch.autograd.functional.jacobian(net, image[None]).sum(dim=(0, 1)).flatten()
        for image in images
    ]
    values = np.linalg.eigvalsh(np.corrcoef(torch.stack(rows).double().numpy()))
    expected = -np.sum(np.log(values + STABILISER) + 1 / (values + STABILISER))
    assert jacobian_covariance(net, images) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", SCORES)
def test_a_score_leaves_the_network_alone_and_knows_one_that_reads_nothing(name, images):
    net = network()
    before = copy.deepcopy(dict(net.named_parameters()))
    assert SCORES[name](net, images) > LOWEST
    assert identical(dict(net.named_parameters()), before)
    with torch.no_grad():
        net[4].weight.zero_()
    assert SCORES[name](net, images) < SCORES[name](network(), images)


def test_a_vote_is_the_mean_on_a_common_scale():
    """The medians 2 and 30, and the quartiles 1, 3 and 20, 40, are those of a scale that begins at
    0 and is 1 from one quartile to the other.
    """
    scores = [[0, 1, 2, 3, 4], [30, 40, 20, LOWEST, 50]]
    expected = [(-1 + 0) / 2, (-0.5 + 0.5) / 2, (0 - 0.5) / 2, (0.5 + (LOWEST - 30) / 20) / 2, 1]
    assert vote(scores).tolist() == pytest.approx(expected)
    assert vote([[2, 5], [30, 70]], scores).tolist() == pytest.approx([0, 1.75])
    assert vote([[1, 1, 1], [0, 1, 2]]).tolist() == [-0.5, 0, 0.5]  # who says nothing counts as 0
