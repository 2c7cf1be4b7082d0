"""The compiled depthwise kernels against torch's own convolution, and what happens without a compiler."""

import os
from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F

from supernet.ops import native
from supernet.ops.depthwise import Kind, backward, forward, plain
from supernet.ops.native import known, library
from supernet.ops.rows import Sum

SIZES, DILATIONS = (3, 3, 5, 3, 5), (1, 1, 1, 2, 2)  # two alike, of which torch makes one wide convolution
compiled = pytest.mark.skipif(library() is None, reason="no C compiler here")


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


def one_by_one(images, weights, kind):
    """As written: a ReLU and a convolution of each."""
    results = []
    for index, (weight, dilation) in enumerate(zip(weights, kind.dilations, strict=True)):
        image = images[index % len(images)].permute(0, 3, 1, 2)
        padding = weight.shape[-1] // 2 * dilation
        out = F.conv2d(F.relu(image), weight, None, kind.stride, padding, dilation, groups=len(weight))
        results.append(out.permute(0, 2, 3, 1))
    return torch.stack(results)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shared", [True, False], ids=["one image", "an image each"])
@pytest.mark.parametrize(("channels", "height", "width"), [(4, 7, 9), (16, 8, 8), (20, 5, 11), (32, 2, 19)])
@pytest.mark.parametrize("how", [pytest.param("C", marks=compiled), "torch"])
def test_results_moments_and_gradients_are_those_of_convolutions(how, channels, height, width, shared, stride, noise):
    images, weights = case(channels, height, width, shared, noise)
    kind = Kind(stride, DILATIONS)
    expected = one_by_one(images, weights, kind)
    slope = torch.randn(expected.shape, generator=noise)
    wanted = torch.autograd.grad(expected, [images, *weights], slope)
    if how == "torch":
        result = plain(images, weights, kind)
        found = torch.autograd.grad(result, [images, *weights], slope)
    else:
        with torch.no_grad():
            result, second, first = forward(images, weights, kind)
        rows = expected.detach().flatten(1, 3)
        torch.testing.assert_close(second, rows.transpose(1, 2) @ rows / rows.shape[1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(first, rows.mean(dim=1), rtol=1e-4, atol=1e-5)
        found = gradients(images, weights, kind, slope)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(list(found), list(wanted), rtol=1e-4, atol=1e-4)


@compiled
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
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


FAILING = """#!/bin/sh
[ "$1" = --version ] && exec echo gcc of this test
echo "In file included from depthwise.c:1:" >&2
echo "depthwise.c:3:7: error: expected a friend" >&2
exit 1
"""


@pytest.mark.parametrize("missing", ["asked for", "no compiler", "a compiler that fails"])
def test_without_a_compiler_there_are_no_kernels(missing, monkeypatch, tmp_path, noise):
    """Where one is there that fails, one line says so: where, why, and what to do."""
    library.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    warned = nullcontext()
    if missing == "asked for":
        monkeypatch.setenv("SUPERNET_NATIVE", "0")
    elif missing == "no compiler":
        monkeypatch.setattr(native.shutil, "which", lambda name: None)
    else:
        compiler = tmp_path / "gcc"
        compiler.write_text(FAILING)
        compiler.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        line = (
            f"ops were not built.*{compiler} exited with 1: depthwise.c:3:7: error: expected a friend; .*SUPERNET_NATIVE=0 .*them$"
        )
        warned = pytest.warns(RuntimeWarning, match=line)
    try:
        with warned as said:
            assert library() is None
        assert library() is None and (said is None or len(said) == 1)
        assert not known(case(4, 6, 6, True, noise)[0])
        assert not list(tmp_path.rglob("*.so"))
    finally:
        library.cache_clear()
