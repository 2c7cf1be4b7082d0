"""Every space runs on another device than the CPU: no tensor is made on the wrong one.

The device is a pretended one, of torch's fake tensors. They have a shape, a type and a device, and
no values. An operation on tensors of two devices is an error, as on an accelerator.
"""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError, FakeTensorMode

from supernet.mixture import softmax_mixture
from supernet.spaces.space import set_recompute
from tests.tasks import task_for
from tests.variants import ALL_SPACES

ELSEWHERE = torch.device("meta")


@pytest.fixture(params=ALL_SPACES)
def space(request):
    return ALL_SPACES[request.param]()


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)  # unknown for this device
    with FakeTensorMode() as mode:
        yield mode


def elsewhere(make):
    """A network that is made on the other device. What it makes later is made where it says."""
    with ELSEWHERE:
        network = make()
    assert {tensor.device for tensor in network.state_dict().values()} == {ELSEWHERE}
    return network


def zeros(space):
    task = task_for(space, 3)
    return torch.zeros(4, *task.input_shape, dtype=task.dtype, device=ELSEWHERE)


def trained(space, network, *mixture):
    """The forward and the backward pass."""
    outputs = network(zeros(space), *mixture)
    outputs.sum().backward()
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    assert gradients and {one.device for one in [outputs, *gradients]} == {ELSEWHERE}


def dense(space):
    return softmax_mixture(
        {
            group.name: torch.zeros(group.shape, device=ELSEWHERE, requires_grad=True)
            for group in space.groups
        }
    )


def test_a_supernet_on_a_mixture_and_on_a_path(space, fake):
    network = elsewhere(lambda: space.supernet(task_for(space, 3)))
    set_recompute(network, True)  # which computes the same as without it, twice
    trained(space, network, dense(space))
    trained(space, network, space.path(space.random(np.random.default_rng(0))))
    with torch.no_grad():
        outputs = network.eval()(zeros(space), dense(space))
    assert outputs.device == ELSEWHERE


@pytest.mark.parametrize("form", ["search", "evaluation"])
def test_a_plain_network(space, fake, form):
    one = space.random(np.random.default_rng(1))
    trained(space, elsewhere(lambda: space.standalone(one, task_for(space, 3), form)))


def test_a_tensor_on_the_wrong_device_is_found(space, fake):
    network = elsewhere(lambda: space.supernet(task_for(space, 3)))
    network.register_forward_pre_hook(lambda _, given: (given[0] + torch.zeros(1), *given[1:]))
    with pytest.raises(FakeTensorDeviceMismatchError, match="meta and cpu"):
        trained(space, network, dense(space))
