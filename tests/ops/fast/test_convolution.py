"""Depthwise convolutions whose gradients the kernels compute, against torch's own."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from supernet.ops.fast import convolution, native
from supernet.ops.fast.convolution import Depthwise, FastGradients, is_known
from supernet.ops.fast.depthwise import SIZES
from tests.ops.fast.sums import compiled
from tests.tasks import task_of
from tests.variants import DECLARED_SPACES

FORMS = list(product(SIZES, (1, 2), (1, 2, 3)))  # sizes, dilations, strides


def depthwise_of(channels, size, dilation=1, stride=1, **settings):
    settings = {"padding": size // 2 * dilation, "bias": False, "groups": channels} | settings
    return nn.Conv2d(channels, channels, size, stride, dilation=dilation, **settings)


def gradients(convolution, x, noise):
    """The result; its gradients; and those of the sum of the squares of these."""
    x = x.clone().requires_grad_()
    result = convolution(x)
    slope = torch.randn(result.shape, generator=noise).requires_grad_()
    inputs = [x, convolution.weight]
    once = torch.autograd.grad(result, inputs, slope, create_graph=True)
    twice = torch.autograd.grad(sum(one.square().sum() for one in once), [*inputs, slope])
    return [result.detach(), *(one.detach() for one in once), *twice]


@compiled
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(("size", "dilation", "stride"), FORMS)
def test_gradients_and_their_gradients_are_torchs(size, dilation, stride, layout, monkeypatch):
    noise = torch.Generator().manual_seed(size)
    plain = depthwise_of(5, size, dilation, stride)
    torch.nn.init.normal_(plain.weight, generator=noise)
    ours = copy.deepcopy(plain)
    asked = []
    kernel = convolution.DepthwiseMaker.backward
    monkeypatch.setattr(
        convolution.DepthwiseMaker,
        "backward",
        lambda *arguments: asked.append(arguments) or kernel(*arguments),
    )
    x = torch.randn(3, 5, 7, 10, generator=noise).to(memory_format=layout)
    with FastGradients(ours):
        found, expected = (
            gradients(each, x, torch.Generator().manual_seed(1)) for each in (ours, plain)
        )
        assert type(ours) is Depthwise and asked
    assert type(ours) is nn.Conv2d
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("why", ["float64", "no gradient", "autocast", "no values"])
def test_elsewhere_it_is_torchs_own_convolution(why, monkeypatch):
    plain = depthwise_of(4, 5)
    ours = copy.deepcopy(plain)
    monkeypatch.setattr(convolution, "Derivative", None)  # which is not to be used
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    if why == "float64":
        x, plain, ours = x.double(), plain.double(), ours.double()
    elif why == "no values":
        x, plain, ours = (one.to("meta") for one in (x, plain, ours))
    with (
        FastGradients(ours),
        torch.set_grad_enabled(why != "no gradient"),
        torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"),
    ):
        found, expected = ours(x), plain(x)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert why == "no values" or torch.equal(found, expected)


OTHERS = {
    "dense": nn.Conv2d(4, 4, 3, padding=1, bias=False),
    "grouped": nn.Conv2d(4, 4, 3, padding=1, bias=False, groups=2),
    "several of each": nn.Conv2d(4, 8, 3, padding=1, bias=False, groups=4),
    "with bias": depthwise_of(4, 3, bias=True),
    "not padded": depthwise_of(4, 3, padding=0),
    "oblong": nn.Conv2d(4, 4, (3, 5), padding=(1, 2), bias=False, groups=4),
    "two strides": nn.Conv2d(4, 4, 3, (1, 2), padding=1, bias=False, groups=4),
    "reflected": depthwise_of(4, 3, padding_mode="reflect"),
    "of another size": depthwise_of(4, 9),
    "of an even size": depthwise_of(4, 4),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_convolutions_stay_as_they_are(name):
    assert not is_known(OTHERS[name])
    with FastGradients(OTHERS[name]):
        assert type(OTHERS[name]) is nn.Conv2d


@compiled
def test_the_gradients_of_a_step_are_one_call_of_the_kernel(monkeypatch, noise):
    asked, kernel = [], convolution.DepthwiseMaker.backward
    monkeypatch.setattr(
        convolution.DepthwiseMaker,
        "backward",
        lambda *arguments: asked.append(arguments) or kernel(*arguments),
    )
    plain = depthwise_of(4, 5)
    ours, x = copy.deepcopy(plain), torch.randn(2, 4, 6, 6, generator=noise).requires_grad_()
    with FastGradients(ours):
        found = torch.autograd.grad(ours(x).square().sum(), [x, ours.weight])
    expected = torch.autograd.grad(plain(x).square().sum(), [x, plain.weight])
    assert len(asked) == 1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@compiled
def test_elastic_layers_have_fast_gradients_too(monkeypatch):
    """A path of a space of depthwise convolutions: the kernels are asked, and the gradients are
    those without them.
    """
    space = DECLARED_SPACES["mobilenet"]()
    supernet = space.supernet(task_of(10, 3)).train()
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    path, found = space.path(space.random(np.random.default_rng(0))), []
    asked, kernel = [], convolution.DepthwiseMaker.backward
    monkeypatch.setattr(
        convolution.DepthwiseMaker,
        "backward",
        lambda *arguments: asked.append(arguments) or kernel(*arguments),
    )
    for library in (native.library, lambda: None):
        monkeypatch.setattr(native, "library", library)
        loss = supernet(x, path).square().sum()
        found.append(torch.autograd.grad(loss, list(supernet.parameters()), allow_unused=True))
        assert asked
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)
