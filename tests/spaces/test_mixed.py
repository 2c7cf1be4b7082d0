"""Mixed cells in bfloat16: what is kept in memory, and how much precision is lost."""

import copy

import pytest
import torch
from torch.nn import functional as F

from supernet.device import autocast
from supernet.mixture import softmax_mixture
from supernet.ops.fast.native import bfloat16_is_faster
from supernet.spaces.cells import Geometry
from supernet.spaces.darts import Darts
from supernet.spaces.space import set_recompute
from tests.spaces.test_textbook import pair
from tests.textbook import run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def case():
    """A supernet, its reference, images, labels and logits."""
    if not bfloat16_is_faster(torch.empty(1, 16, 1, 1)):
        pytest.skip("no tiles of bfloat16 here")
    space, draw = Darts(Geometry(16, 2), Geometry(16, 2)), torch.Generator().manual_seed(0)
    logits = {g.name: torch.randn(g.shape, generator=draw).requires_grad_() for g in space.groups}
    return *pair(space), torch.randn(6, 2, 12, 12, generator=draw), torch.arange(6) % 3, logits


def gradients(network, case, precision, kept=None, **options):
    """The gradients of the loss in the weights and the logits. The size of what is kept for them is
    added to ``kept``.
    """
    *_, images, labels, logits = case

    def keep(tensor):
        if kept is not None:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        autocast(CPU, precision),
    ):
        out = (
            network(images, softmax_mixture(logits))
            if network is case[0]
            else run(network, images, softmax_mixture(logits))
        )
        loss = F.cross_entropy(out, labels)
    return torch.autograd.grad(
        loss, [*network.parameters(), *logits.values()], materialize_grads=True, **options
    )


def apart(actual, expected) -> float:
    """The norm of the difference, relative to the norm of the expected."""
    return float(
        torch.cat([(a - e).flatten() for a, e in zip(actual, expected, strict=True)]).norm()
    ) / float(torch.cat([e.flatten() for e in expected]).norm())


def test_gradients_lose_no_more_than_the_textbooks(case):
    supernet, reference = case[:2]
    lost = [
        apart(gradients(some, case, "bf16"), gradients(some, case, "float32"))
        for some in (supernet, reference)
    ]
    assert 0 < lost[0] < 1.25 * lost[1]


def test_gradients_that_can_be_differentiated_are_as_close(case):
    exact, first = (
        gradients(case[0], case, "float32", create_graph=True),
        gradients(case[0], case, "bf16", create_graph=True),
    )
    assert apart([g.detach() for g in first], [g.detach() for g in exact]) < 0.2
    weights = [*case[0].parameters()]

    def second(gradients):
        return torch.autograd.grad(
            sum(g.square().sum() for g in gradients), weights, materialize_grads=True
        )

    assert apart(second(first), second(exact)) < 0.2


def test_less_is_kept(case):
    kept = {}, {}
    for table, precision in zip(kept, ("float32", "bf16"), strict=True):
        gradients(case[0], case, precision, table)
    assert sum(kept[1].values()) < 0.75 * sum(kept[0].values())


def test_what_is_made_again_has_the_same_bits(case):
    again = copy.deepcopy(case[0])
    set_recompute(again)
    kept, fewer = {}, {}
    expected = gradients(case[0], case, "bf16", kept)
    actual = gradients(again, (again, *case[1:]), "bf16", fewer)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    assert sum(fewer.values()) < 0.75 * sum(kept.values())
