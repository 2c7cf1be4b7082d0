"""Mixed cells: in bfloat16, what is kept, and what is lost; and programs by themselves."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from supernet.device import autocast
from supernet.mixture import softmax_mixture
from supernet.ops import DilConv, Pool, ReLUConvBN, SepConv
from supernet.ops.combination import Combination, Term
from supernet.ops.native import multiplies
from supernet.spaces.cells import Geometry
from supernet.spaces.darts import Darts
from supernet.spaces.mixed import Program
from supernet.spaces.space import set_recompute
from tests.spaces.test_textbook import pair
from tests.textbook import run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def case():
    """A supernet, its reference, images, labels and logits."""
    if not multiplies(torch.empty(1, 16, 1, 1)):
        pytest.skip("no tiles of bfloat16 here")
    space, draw = Darts(Geometry(16, 2), Geometry(16, 2)), torch.Generator().manual_seed(0)
    logits = {g.name: torch.randn(g.shape, generator=draw).requires_grad_() for g in space.groups}
    return *pair(space), torch.randn(6, 2, 12, 12, generator=draw), torch.arange(6) % 3, logits


def gradients(network, case, precision, kept=None, **options):
    """Of the loss, by the weights and the logits; what is kept for them is added up in ``kept``."""
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
    """The norm of the difference, relative."""
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


OPERATIONS = {
    "one pooling is normed": lambda: [
        (0, Pool(16, "max", norm=True)),
        (0, Pool(16, "avg")),
        (1, ReLUConvBN(16, 16, 3)),
    ],
    "two depths": lambda: [
        (0, SepConv(16, 3)),
        (1, DilConv(16, 5)),
        (0, SepConv(16, 5)),
        (1, nn.Identity()),
    ],
}


@pytest.mark.parametrize("precision", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("operations", OPERATIONS)
def test_a_program_is_the_weighted_sum_whatever_made_the_weights(operations, precision, noise):
    operations = OPERATIONS[operations]()
    x = torch.randn(3, 16, 6, 6, generator=noise)
    weights = torch.rand(len(operations), generator=noise).to(precision)
    expected = [0.0, 0.0]
    for weight, (target, operation) in zip(weights.float(), operations, strict=True):
        expected[target] = expected[target] + weight * operation(x)
    torch.testing.assert_close(
        Program(operations, CPU).run(x, weights, [None, None]), expected, rtol=1e-4, atol=1e-4
    )


def test_starts_alone_can_be_asked_for_their_gradient(noise):
    start, x = torch.randn(2, 2, 4, 3, 3, generator=noise).unbind()
    start.requires_grad_()
    (total,) = Program([(0, nn.Identity())], CPU).run(x, torch.ones(1), [start])
    (gradient,) = torch.autograd.grad(total.square().sum(), start, create_graph=True)
    torch.testing.assert_close(gradient, 2 * (start + x))


def test_an_image_is_not_normed_in_two_ways():
    conv, norms = nn.Conv2d(4, 4, 1, bias=False), [nn.BatchNorm2d(4) for _ in range(2)]
    with pytest.raises(ValueError, match="give them twice"):
        Combination(
            [Term(0, 0, conv, norms[0], 0, 0), Term(0, 0, None, norms[1], 0, 1)], [None], 1, CPU
        )
