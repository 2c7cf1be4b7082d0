"""No step runs a convolution that corrupts the heap.

The gradient of a strided 1×1 convolution corrupts it on some processors
(:class:`supernet.ops.convolution.StridedPointwise`). A step with such a convolution may still end
well, so that its results prove nothing. Therefore these tests list the convolutions that torch
runs. They also run the forms that replace the dangerous one under the heap check of the GNU C
library.
"""

import os
import subprocess
import sys
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from supernet.mixture import Choice
from supernet.ops.convolution import StridedPointwise
from supernet.spaces.darts import Darts
from tests import textbook
from tests.commands import ROOT
from tests.tasks import task_of
from tests.variants import CELL_SPACES

CHANNELS = (2, 6)


class Asked(NamedTuple):
    """A convolution, or the gradients of one, that torch runs."""

    call: str
    images: tuple[int, ...]
    weights: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dangerous(self) -> bool:
        """Independent of channels, types and memory formats: a simple rule is easy to keep."""
        return set(self.weights[2:]) == {1} and set(self.stride) != {1}


class Listing(TorchDispatchMode):
    """Lists the convolutions that run while it is active, also those of the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Asked] = []

    def __torch_dispatch__(self, function, types, given=(), named=None):
        name = function.overloadpacket.__name__
        if "conv" in name:
            assert name in ("convolution", "convolution_backward"), name
            images, weights = given[1:3] if name == "convolution_backward" else given[:2]
            stride = given[4] if name == "convolution_backward" else given[3]
            self.found.append(Asked(name, tuple(images.shape), tuple(weights.shape), tuple(stride)))
        return function(*given, **(named or {}))


def asked(network: nn.Module, images: Tensor, *arguments: object, order: int = 1) -> list[Asked]:
    """The convolutions of a training step, with derivatives up to an ``order``, and of a pass in
    evaluation mode.
    """
    with Listing() as listing:
        total = network.train()(images, *arguments).square().sum()
        weights = list(network.parameters())
        for left in reversed(range(order)):
            slopes = torch.autograd.grad(total, weights, create_graph=left > 0, allow_unused=True)
            total = sum(slope.square().sum() for slope in slopes if slope is not None)
        with torch.no_grad():
            network.eval()(images, *arguments)
    assert listing.found
    return listing.found


def dangerous(network: nn.Module, *arguments: object, channels: int = 3, order: int = 1) -> list:
    """The dangerous convolutions of the network, on images of an even and an odd size."""
    return [
        one
        for size in (8, 7)
        for one in asked(network, torch.randn(2, channels, size, size), *arguments, order=order)
        if one.dangerous
    ]


def mixtures(space) -> list[dict[str, Choice]]:
    """Paths with each option in every slot, all options with weights, and all but the first."""
    count = max(len(group.options) for group in space.groups)
    paths = [
        {g.name: Choice.path([(option + s) % count for s in range(g.slots)]) for g in space.groups}
        for option in range(count)
    ]
    weights = {g.name: torch.rand(g.shape, requires_grad=True) for g in space.groups}
    some = {
        g.name: Choice((tuple(range(1, len(g.options))),) * g.slots, weights[g.name])
        for g in space.groups
    }
    return [*paths, {name: Choice.dense(table) for name, table in weights.items()}, some]


@pytest.mark.parametrize(("channels", "form"), [(2, "search"), (6, "evaluation")])
@pytest.mark.parametrize("name", CELL_SPACES)
def test_no_supernet_asks_for_a_dangerous_one(name, channels, form):
    """The forms have the same convolutions here."""
    space = CELL_SPACES[name](channels)
    supernet = space.supernet(task_of(10), form)
    assert not any(dangerous(supernet, mixture) for mixture in mixtures(space))


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("name", CELL_SPACES)
def test_nor_does_one_of_partial_channels(name, parts):
    space = CELL_SPACES[name](12)
    space = replace(space, search=replace(space.search, partial_channels=parts))
    supernet = space.supernet(task_of(10))
    assert not any(dangerous(supernet, mixture) for mixture in mixtures(space))


@pytest.mark.parametrize("name", CELL_SPACES)
def test_nor_do_second_derivatives(name):
    space = CELL_SPACES[name](4)
    path, *_, dense, _ = mixtures(space)
    supernet = space.supernet(task_of(10))
    assert not any(dangerous(supernet, mixture, order=2) for mixture in (path, dense))


@pytest.mark.parametrize("form", ["search", "evaluation"])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("name", CELL_SPACES)
def test_nor_do_standalone_networks(name, channels, form):
    space, draw = CELL_SPACES[name](channels), np.random.default_rng(0)
    if isinstance(space, Darts):
        space = replace(space, auxiliary=True)
    for _ in range(4):
        assert not dangerous(space.standalone(space.random(draw), task_of(10, 1), form), channels=1)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("name", CELL_SPACES)
def test_nor_does_the_textbook(name, channels):
    space = CELL_SPACES[name](channels)
    tables = [torch.rand(group.shape) for group in space.groups]
    found = asked(textbook.textbook(space), torch.randn(2, 3, 8, 8), *tables, order=2)
    assert not any(one.dangerous for one in found)


def test_a_dangerous_one_is_seen():
    """Torch's layer runs one; the layer of the package that replaces it does not."""
    found = dangerous(nn.Conv2d(3, 4, 1, stride=2, bias=False))
    assert {one.call for one in found} == {"convolution", "convolution_backward"}
    assert not dangerous(StridedPointwise(3, 4, stride=2))


@pytest.mark.parametrize("inputs, outputs, stride", [(3, 4, 2), (8, 1, 2), (5, 5, 3)])
def test_the_sums_are_those_of_the_plain_layer(inputs, outputs, stride, noise):
    """In float64, for which torch does not use oneDNN."""
    ours = StridedPointwise(inputs, outputs, stride).double()
    plain = nn.Conv2d(inputs, outputs, 1, stride, bias=False).double()
    plain.load_state_dict(ours.state_dict())
    for size in (6, 7, (4, 9)):
        shape = (size, size) if isinstance(size, int) else size
        x = torch.randn(2, inputs, *shape, generator=noise, dtype=torch.float64)
        x.requires_grad_()

        def results(layer: nn.Module, x: Tensor = x) -> list[Tensor]:
            y = layer(x)
            return [y, *torch.autograd.grad(y.sin().sum(), [x, layer.weight])]

        torch.testing.assert_close(results(ours), results(plain))


CHECKED = """
import ctypes, os, torch
from supernet.ops import OPERATIONS, FactorizedReduce, ReLUConvBN

if os.fork() == 0:  # writes past the end of a tensor, and frees it
    tensor = torch.empty(100, dtype=torch.uint8)
    ctypes.memset(tensor.data_ptr(), 0, 101)
    del tensor
    os._exit(0)
print("checked" if os.wait()[1] else "not checked", flush=True)
torch.set_num_threads(1)  # with two the buffer is larger, and torch's strided layer ends well
for channels in [1, 2, 3, 4, 5, 8, 9] * 3:
    operations = [make(channels, 2, True, True) for make in OPERATIONS.values() if channels > 1]
    operations += [FactorizedReduce(channels, channels + 1), ReLUConvBN(channels, 4, 1, 2)]
    while operations:
        x = torch.randn(4, channels, 8, 8).contiguous(memory_format=torch.channels_last)
        x.requires_grad_()
        out = operations.pop()(x)
        out.backward(torch.randn_like(out))
        del x, out
print("survived")
"""


def test_strided_operations_leave_the_heap_whole():
    """In a process whose heap the GNU C library checks, with the instructions of a processor
    without AVX-512.
    """
    heap = {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3"}
    settings = heap | {"ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", CHECKED],
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    if done.stdout.startswith("not checked"):
        pytest.skip("no GNU C library with a heap check here")
    assert (done.returncode, done.stdout) == (0, "checked\nsurvived\n"), done.stderr
