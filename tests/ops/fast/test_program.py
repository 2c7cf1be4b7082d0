"""Programs and combinations alone, compared with the same sums, one operation after the other."""

import pytest
import torch
from torch import nn

from supernet.ops import DilConv, Pool, ReLUConvBN, SepConv
from supernet.ops.fast.program import Program
from supernet.ops.fast.wiring import Term, Wiring

CPU = torch.device("cpu")
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
        Wiring([Term(0, 0, conv, norms[0], 0, 0), Term(0, 0, None, norms[1], 0, 1)], [None], 1, CPU)
