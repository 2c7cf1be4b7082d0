"""The compiled depthwise kernels against torch's own convolution, and what happens without a compiler."""

import pytest
import torch

from supernet.ops import depthwise as module
from supernet.ops.depthwise import _plain, depthwise, library

SIZES, DILATIONS = (3, 5, 3, 5), (1, 1, 2, 2)


def case(channels, height, width, shared, noise):
    images = torch.randn(1 if shared else len(SIZES), 3, height, width, channels, generator=noise).requires_grad_()
    weights = [torch.randn(channels, 1, size, size, generator=noise).requires_grad_() for size in SIZES]
    return images, weights


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shared", [True, False], ids=["one image", "an image each"])
@pytest.mark.parametrize(("channels", "height", "width"), [(4, 7, 9), (16, 8, 8), (20, 5, 11), (32, 2, 19)])
def test_kernels_and_their_gradients_are_torchs(channels, height, width, shared, stride, noise):
    if library() is None:
        pytest.skip("no C compiler here")
    images, weights = case(channels, height, width, shared, noise)
    ours, theirs = depthwise(images, weights, stride, DILATIONS), _plain(images, weights, stride, DILATIONS)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    gradient = torch.randn(theirs.shape, generator=noise)
    for actual, expected in zip(
        torch.autograd.grad(ours, [images, *weights], gradient),
        torch.autograd.grad(theirs, [images, *weights], gradient),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_second_derivatives_are_torchs(noise):
    images, weights = case(4, 6, 6, True, noise)

    def twice(function):
        out = function(images, weights, 1, DILATIONS)
        first = torch.autograd.grad((out**2).sum(), [images, *weights], create_graph=True)
        return torch.autograd.grad(sum((part**2).sum() for part in first), [images, *weights])

    for actual, expected in zip(twice(depthwise), twice(_plain), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-1 * expected.abs().mean().item())


def test_bits_do_not_depend_on_the_number_of_threads(noise):
    images, weights = case(16, 8, 8, True, noise)
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            out = depthwise(images, weights, 1, DILATIONS)
            found.append([out, *torch.autograd.grad(out.square().sum(), [images, *weights])])
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
        monkeypatch.setattr(module.shutil, "which", lambda name: None if missing == "no compiler" else "false")
    try:
        assert library() is None
        images, weights = case(4, 6, 6, True, noise)
        assert torch.equal(depthwise(images, weights, 1, DILATIONS), _plain(images, weights, 1, DILATIONS))
        assert not list(tmp_path.rglob("*.so"))
    finally:
        library.cache_clear()
