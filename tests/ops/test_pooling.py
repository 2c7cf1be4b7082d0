"""The compiled poolings against torch's own."""

import pytest
import torch

from supernet.ops.native import library
from supernet.ops.pooling import Kind, backward, forward, plain
from tests.ops.sums import Sum, told

pytestmark = pytest.mark.skipif(library() is None, reason="no C compiler here")
NAMES = ("max", "avg"), ("max",), ("avg",)


def gradient(x, kind, slope, dtype=None):
    """By ``backward``, of results whose gradient is ``slope``, a sum of two terms, whose rows are
    ``dtype``, and a shift.
    """
    ones = torch.ones(slope.shape[-1])
    halves = [
        ((one - 1.0).to(dtype or x.dtype).reshape(-1, len(ones)).contiguous(), ones / 2)
        for one in slope
    ]
    with told([Sum(ones, [half, half]) for half in halves]) as arguments:
        return backward(x, (), kind, *arguments, True, False)[0]


def moments(x, kind, dtype=None):
    """The results of ``forward``, and the means of their squares and of themselves."""
    squares, first = torch.empty(2, kind.count, x.shape[-1])
    return forward(x, (), kind, squares, first, dtype), squares, first


def by_torch(x, kind, slope):
    x = x.clone().requires_grad_()
    result = plain(x, (), kind)
    return result.detach(), torch.autograd.grad(result, x, slope)[0]


def drawn(channels, height, width, kind, noise):
    """Images, and a gradient of what is made of them."""
    out = [(length - 1) // kind.stride + 1 for length in (height, width)]
    x = torch.randn(1, 3, height, width, channels, generator=noise)
    return x, torch.randn(kind.count, 3, *out, channels, generator=noise).mul(
        8
    ).round() / 8  # so in bfloat16 too


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("channels", "height", "width"), [(4, 12, 9), (16, 8, 8), (20, 6, 3), (32, 3, 1), (16, 1, 2)]
)
@pytest.mark.parametrize("names", NAMES, ids="+".join)
def test_results_moments_and_gradients_are_torchs(names, channels, height, width, stride, noise):
    kind = Kind(stride, names)
    x, slope = drawn(channels, height, width, kind, noise)
    expected, of_x = by_torch(x, kind, slope)
    result, squares, first = moments(x, kind)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(squares, expected.square().mean(dim=(1, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(first, expected.mean(dim=(1, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient(x, kind, slope), of_x, rtol=1e-5, atol=1e-5)
    short, squares, first = moments(x, kind, torch.bfloat16)
    assert torch.equal(short, result.bfloat16())
    torch.testing.assert_close(
        squares, short.float().square().mean(dim=(1, 2, 3)), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(first, short.float().mean(dim=(1, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient(x, kind, slope, torch.bfloat16), of_x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(forward(x, (), kind, None, None), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [16, 20])
def test_of_equal_maxima_the_first_has_the_gradient(channels, stride, noise):
    kind = Kind(stride, ("max", "avg"))
    x, slope = drawn(channels, 9, 12, kind, noise)
    x = x.round().clamp_min(0.0)
    torch.testing.assert_close(
        gradient(x, kind, slope), by_torch(x, kind, slope)[1], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("channels", [16, 20])
def test_infinite_and_missing_values_are_as_in_torch(channels, noise):
    kind = Kind(1, ("max", "avg"))
    x, slope = drawn(channels, 9, 12, kind, noise)
    places = torch.rand(x.shape, generator=noise)
    x[places < 0.1] = float("nan")
    x[places > 0.9] = float("-inf")
    x[0, 0, :5, :5] = float("-inf")  # nothing else in some windows
    expected, of_x = by_torch(x, kind, slope)
    result = forward(x, (), kind, None, None)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(gradient(x, kind, slope), of_x, rtol=1e-5, atol=1e-5)


def test_bits_do_not_depend_on_the_number_of_threads(noise):
    kind, found, threads = Kind(1, ("max", "avg")), [], torch.get_num_threads()
    x, slope = drawn(16, 8, 8, kind, noise)
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append([*moments(x, kind), gradient(x, kind, slope)])
    finally:
        torch.set_num_threads(threads)
    assert all(
        torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True)
    )
