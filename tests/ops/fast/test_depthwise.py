"""The compiled depthwise kernels, compared with torch's own convolution."""

import pytest
import torch
from torch.nn import functional as F

from supernet.ops.fast.depthwise import DepthwiseMaker
from supernet.ops.fast.formula import made_by_torch
from tests.ops.fast.sums import Sum, arguments_of, compiled

# the first two are alike, and torch runs them as one wide convolution
SIZES, DILATIONS = (3, 3, 5, 3, 5, 7, 7), (1, 1, 1, 2, 2, 1, 2)
TYPES = {
    "float32": (torch.float32,) * 2,
    "bfloat16": (torch.bfloat16,) * 2,
    "into bfloat16": (torch.float32, torch.bfloat16),
}
CLOSE = {
    torch.float32: dict(rtol=1e-4, atol=1e-4),
    torch.bfloat16: dict(rtol=2**-7, atol=1e-4),  # 2^-8 is half of the last place
}


def case(channels, height, width, shared, noise, dtype=torch.float32):
    images = (
        torch.randn(1 if shared else len(SIZES), 3, height, width, channels, generator=noise)
        .to(dtype)
        .requires_grad_()
    )
    weights = [
        torch.randn(channels, 1, size, size, generator=noise).requires_grad_() for size in SIZES
    ]
    return images, weights


def moments(images, weights, maker, dtype=None):
    """The results of ``forward``, their second moments and their means."""
    count, channels = len(weights), images.shape[-1]
    second, first = torch.empty(count, channels, channels), torch.empty(count, channels)
    with torch.no_grad():
        return maker.forward(images, weights, second, first, dtype), second, first


def gradients(images, weights, maker, slope):
    """The gradients by ``backward``, if the results have the gradient ``slope``."""
    with torch.no_grad():
        ones, nothing = torch.ones(slope.shape[-1]), torch.zeros(slope.shape[-1])
        sums = [Sum(nothing, [(one.reshape(-1, len(ones)).contiguous(), ones)]) for one in slope]
        with arguments_of(sums) as arguments:
            weights = [weight.detach() for weight in weights]
            return maker.backward(images.detach(), weights, *arguments, True, True)


def one_by_one(images, weights, maker):
    """As it is defined: one ReLU and one convolution for each."""
    images, results = images.float(), []
    for index, (weight, dilation) in enumerate(zip(weights, maker.dilations, strict=True)):
        image = images[index % len(images)].permute(0, 3, 1, 2)
        padding = weight.shape[-1] // 2 * dilation
        out = F.conv2d(
            F.relu(image) if maker.rectify else image,
            weight,
            None,
            maker.stride,
            padding,
            dilation,
            groups=len(weight),
        )
        results.append(out.permute(0, 2, 3, 1))
    return torch.stack(results)


@pytest.mark.parametrize(("stride", "rectify"), [(1, True), (2, True), (3, False)])
@pytest.mark.parametrize("shared", [True, False], ids=["one image", "an image each"])
@pytest.mark.parametrize(
    ("channels", "height", "width"), [(4, 7, 9), (16, 8, 8), (23, 5, 11), (32, 2, 19)]
)
@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("how", [pytest.param("C", marks=compiled), "torch"])
def test_results_moments_and_gradients_are_those_of_convolutions(
    how, types, channels, height, width, shared, stride, rectify, noise
):
    of_images, dtype = TYPES[types] if how == "C" else (TYPES[types][0], torch.float32)
    images, weights = case(channels, height, width, shared, noise, of_images)
    maker = DepthwiseMaker(stride, DILATIONS, rectify)
    expected = one_by_one(images, weights, maker)
    slope = torch.randn(expected.shape, generator=noise).to(dtype)
    wanted = torch.autograd.grad(expected, [images, *weights], slope.float())
    if how == "torch":
        result = made_by_torch(maker, images, weights)
        found = torch.autograd.grad(result, [images, *weights], slope)
    else:
        result, second, first = moments(images, weights, maker, dtype)
        with torch.no_grad():
            without_moments = maker.forward(images, weights, None, None, dtype)
        assert torch.equal(without_moments, result)
        rows = result.float().flatten(1, 3)
        torch.testing.assert_close(
            second, rows.transpose(1, 2) @ rows / rows.shape[1], rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(first, rows.mean(dim=1), rtol=1e-4, atol=1e-5)
        found = gradients(images, weights, maker, slope)
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), expected, **CLOSE[dtype])
    torch.testing.assert_close(found[0], wanted[0], **CLOSE[of_images])
    torch.testing.assert_close(list(found[1:]), list(wanted[1:]), rtol=1e-4, atol=1e-4)


@compiled
def test_bits_do_not_depend_on_the_number_of_threads(noise):
    images, weights = case(16, 8, 8, True, noise)
    found, threads, maker = [], torch.get_num_threads(), DepthwiseMaker(1, DILATIONS)
    try:
        for count in (1, 2, 3, 12):
            torch.set_num_threads(count)
            result = moments(images, weights, maker)
            found.append([*result, *gradients(images, weights, maker, result[0])])
    finally:
        torch.set_num_threads(threads)
    assert all(
        torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True)
    )
