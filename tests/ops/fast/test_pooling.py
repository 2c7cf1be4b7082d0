"""The compiled poolings, compared with torch's own."""

import pytest
import torch

from supernet.ops.fast.formula import made_by_torch
from supernet.ops.fast.pooling import PoolingMaker
from tests.ops.fast.sums import Sum, arguments_of, compiled

pytestmark = compiled
NAMES = ("max", "avg"), ("max",), ("avg",)


def gradient(x, maker, slope, dtype=None):
    """The gradient by ``backward``. The results have the gradient ``slope``, a sum of two terms,
    whose rows have the type ``dtype``, and a shift.
    """
    ones = torch.ones(slope.shape[-1])
    halves = [
        ((one - 1.0).to(dtype or x.dtype).reshape(-1, len(ones)).contiguous(), ones / 2)
        for one in slope
    ]
    with arguments_of([Sum(ones, [half, half]) for half in halves]) as arguments:
        return maker.backward(x, (), *arguments, True, False)[0]


def moments(x, maker, dtype=None):
    """The results of ``forward``, and the means of their squares and of the results."""
    squares, first = torch.empty(2, maker.count, x.shape[-1])
    return maker.forward(x, (), squares, first, dtype), squares, first


def by_torch(x, maker, slope):
    x = x.clone().requires_grad_()
    result = made_by_torch(maker, x, ())
    return result.detach(), torch.autograd.grad(result, x, slope)[0]


def drawn(channels, height, width, maker, noise):
    """Images, and a gradient of the poolings' results."""
    out = [(length - 1) // maker.stride + 1 for length in (height, width)]
    x = torch.randn(1, 3, height, width, channels, generator=noise)
    slope = torch.randn(maker.count, 3, *out, channels, generator=noise)
    return x, slope.mul(8).round() / 8  # exact in bfloat16 too


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("channels", "height", "width"), [(4, 12, 9), (16, 8, 8), (23, 6, 3), (32, 3, 1), (16, 1, 2)]
)
@pytest.mark.parametrize("names", NAMES, ids="+".join)
def test_results_moments_and_gradients_are_torchs(names, channels, height, width, stride, noise):
    maker = PoolingMaker(stride, names)
    x, slope = drawn(channels, height, width, maker, noise)
    expected, of_x = by_torch(x, maker, slope)
    result, squares, first = moments(x, maker)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(squares, expected.square().mean(dim=(1, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(first, expected.mean(dim=(1, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient(x, maker, slope), of_x, rtol=1e-5, atol=1e-5)
    short, squares, first = moments(x, maker, torch.bfloat16)
    assert torch.equal(short, result.bfloat16())
    torch.testing.assert_close(
        squares, short.float().square().mean(dim=(1, 2, 3)), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(first, short.float().mean(dim=(1, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        gradient(x, maker, slope, torch.bfloat16), of_x, rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(maker.forward(x, (), None, None), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [16, 20])
def test_of_equal_maxima_the_first_has_the_gradient(channels, stride, noise):
    maker = PoolingMaker(stride, ("max", "avg"))
    x, slope = drawn(channels, 9, 12, maker, noise)
    x = x.round().clamp_min(0.0)
    torch.testing.assert_close(
        gradient(x, maker, slope), by_torch(x, maker, slope)[1], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("channels", [16, 20])
def test_infinite_and_missing_values_are_as_in_torch(channels, noise):
    maker = PoolingMaker(1, ("max", "avg"))
    x, slope = drawn(channels, 9, 12, maker, noise)
    places = torch.rand(x.shape, generator=noise)
    x[places < 0.1] = float("nan")
    x[places > 0.9] = float("-inf")
    x[0, 0, :5, :5] = float("-inf")  # some windows have no other value
    expected, of_x = by_torch(x, maker, slope)
    result = maker.forward(x, (), None, None)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(gradient(x, maker, slope), of_x, rtol=1e-5, atol=1e-5)


def test_bits_do_not_depend_on_the_number_of_threads(noise):
    maker, found, threads = PoolingMaker(1, ("max", "avg")), [], torch.get_num_threads()
    x, slope = drawn(16, 8, 8, maker, noise)
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append([*moments(x, maker), gradient(x, maker, slope)])
    finally:
        torch.set_num_threads(threads)
    assert all(
        torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True)
    )
