"""The compiled depthwise kernels against torch's own convolution, and what happens without a compiler."""

import pytest
import torch

from supernet.ops import native
from supernet.ops.depthwise import Kind, backward, forward, plain
from supernet.ops.native import library
from supernet.ops.rows import Sum

SIZES, DILATIONS = (3, 5, 3, 5), (1, 1, 2, 2)


def case(channels, height, width, shared, noise):
    images = torch.randn(1 if shared else len(SIZES), 3, height, width, channels, generator=noise).requires_grad_()
    weights = [torch.randn(channels, 1, size, size, generator=noise).requires_grad_() for size in SIZES]
    return images, weights


def gradients(images, weights, kind, slope):
    """By ``backward``, of results whose gradient is ``slope``."""
    with torch.no_grad():
        ones, nothing = torch.ones(slope.shape[-1]), torch.zeros(slope.shape[-1])
        sums = [Sum(nothing, [(one.reshape(-1, len(ones)).contiguous(), ones)]) for one in slope]
        of_images, of_weights = backward(images.detach(), [w.detach() for w in weights], kind, sums, True, True)
    return [of_images, *of_weights]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shared", [True, False], ids=["one image", "an image each"])
@pytest.mark.parametrize(("channels", "height", "width"), [(4, 7, 9), (16, 8, 8), (20, 5, 11), (32, 2, 19)])
@pytest.mark.parametrize("native", [True, False], ids=["C", "torch"])
def test_results_moments_and_gradients_are_torchs(native, channels, height, width, shared, stride, noise, monkeypatch):
    if library() is None and native:
        pytest.skip("no C compiler here")
    if not native:
        monkeypatch.setattr("supernet.ops.native.library", lambda: None)
    images, weights = case(channels, height, width, shared, noise)
    kind = Kind(stride, DILATIONS)
    expected = plain(images, weights, kind)
    with torch.no_grad():
        result, second, first = forward(images, weights, kind)
    torch.testing.assert_close(result, expected.detach(), rtol=1e-5, atol=1e-5)
    rows = expected.detach().flatten(1, 3)
    torch.testing.assert_close(second, rows.transpose(1, 2) @ rows / rows.shape[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first, rows.mean(dim=1), rtol=1e-4, atol=1e-5)
    slope = torch.randn(expected.shape, generator=noise)
    autograd = torch.autograd.grad(expected, [images, *weights], slope)
    for actual, known in zip(gradients(images, weights, kind, slope), autograd, strict=True):
        torch.testing.assert_close(actual, known, rtol=1e-4, atol=1e-4)


def test_bits_do_not_depend_on_the_number_of_threads(noise):
    images, weights = case(16, 8, 8, True, noise)
    found, threads, kind = [], torch.get_num_threads(), Kind(1, DILATIONS)
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            with torch.no_grad():
                result = forward(images, weights, kind)
            found.append([*result, *gradients(images, weights, kind, result[0])])
    finally:
        torch.set_num_threads(threads)
    if library() is not None:
        assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("missing", ["asked for", "no compiler", "a compiler that fails"])
def test_without_a_compiler_torch_does_the_same(missing, monkeypatch, tmp_path, noise):
    library.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if missing == "asked for":
        monkeypatch.setenv("SUPERNET_NATIVE", "0")
    else:
        monkeypatch.setattr(native.shutil, "which", lambda name: None if missing == "no compiler" else "false")
    try:
        assert library() is None
        images, weights = case(4, 6, 6, True, noise)
        with torch.no_grad():
            assert torch.equal(forward(images, weights, Kind(1, DILATIONS))[0], plain(images, weights, Kind(1, DILATIONS)))
        assert not list(tmp_path.rglob("*.so"))
    finally:
        library.cache_clear()
