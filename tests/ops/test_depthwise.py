"""The compiled depthwise kernels against torch's own convolution, and what happens without a
compiler.
"""

import os
from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F

from supernet.ops import native
from supernet.ops.depthwise import Kind, backward, forward, plain
from supernet.ops.native import known, library
from tests.ops.sums import Sum, told

SIZES, DILATIONS = (
    (3, 3, 5, 3, 5),
    (1, 1, 1, 2, 2),
)  # two alike, of which torch makes one wide convolution
TYPES = {
    "float32": (torch.float32,) * 2,
    "bfloat16": (torch.bfloat16,) * 2,
    "into bfloat16": (torch.float32, torch.bfloat16),
}
CLOSE = {
    torch.float32: dict(rtol=1e-4, atol=1e-4),
    torch.bfloat16: dict(rtol=2**-7, atol=1e-4),
}  # 2^-8 is half of the last place
compiled = pytest.mark.skipif(library() is None, reason="no C compiler here")


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


def moments(images, weights, kind, dtype=None):
    """The results of ``forward``, their second moments and their means."""
    count, channels = len(weights), images.shape[-1]
    second, first = torch.empty(count, channels, channels), torch.empty(count, channels)
    with torch.no_grad():
        return forward(images, weights, kind, second, first, dtype), second, first


def gradients(images, weights, kind, slope):
    """By ``backward``, of results whose gradient is ``slope``."""
    with torch.no_grad():
        ones, nothing = torch.ones(slope.shape[-1]), torch.zeros(slope.shape[-1])
        sums = [Sum(nothing, [(one.reshape(-1, len(ones)).contiguous(), ones)]) for one in slope]
        with told(sums) as arguments:
            return backward(
                images.detach(), [w.detach() for w in weights], kind, *arguments, True, True
            )


def one_by_one(images, weights, kind):
    """As written: a ReLU and a convolution of each."""
    images, results = images.float(), []
    for index, (weight, dilation) in enumerate(zip(weights, kind.dilations, strict=True)):
        image = images[index % len(images)].permute(0, 3, 1, 2)
        padding = weight.shape[-1] // 2 * dilation
        out = F.conv2d(
            F.relu(image), weight, None, kind.stride, padding, dilation, groups=len(weight)
        )
        results.append(out.permute(0, 2, 3, 1))
    return torch.stack(results)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shared", [True, False], ids=["one image", "an image each"])
@pytest.mark.parametrize(
    ("channels", "height", "width"), [(4, 7, 9), (16, 8, 8), (20, 5, 11), (32, 2, 19)]
)
@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("how", [pytest.param("C", marks=compiled), "torch"])
def test_results_moments_and_gradients_are_those_of_convolutions(
    how, types, channels, height, width, shared, stride, noise
):
    of_images, dtype = TYPES[types] if how == "C" else (TYPES[types][0], torch.float32)
    images, weights = case(channels, height, width, shared, noise, of_images)
    kind = Kind(stride, DILATIONS)
    expected = one_by_one(images, weights, kind)
    slope = torch.randn(expected.shape, generator=noise).to(dtype)
    wanted = torch.autograd.grad(expected, [images, *weights], slope.float())
    if how == "torch":
        result = plain(images, weights, kind)
        found = torch.autograd.grad(result, [images, *weights], slope)
    else:
        result, second, first = moments(images, weights, kind, dtype)
        with torch.no_grad():
            assert torch.equal(
                forward(images, weights, kind, None, None, dtype), result
            )  # without the moments
        rows = result.float().flatten(1, 3)
        torch.testing.assert_close(
            second, rows.transpose(1, 2) @ rows / rows.shape[1], rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(first, rows.mean(dim=1), rtol=1e-4, atol=1e-5)
        found = gradients(images, weights, kind, slope)
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), expected, **CLOSE[dtype])
    torch.testing.assert_close(found[0], wanted[0], **CLOSE[of_images])
    torch.testing.assert_close(list(found[1:]), list(wanted[1:]), rtol=1e-4, atol=1e-4)


@compiled
def test_bits_do_not_depend_on_the_number_of_threads(noise):
    images, weights = case(16, 8, 8, True, noise)
    found, threads, kind = [], torch.get_num_threads(), Kind(1, DILATIONS)
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            result = moments(images, weights, kind)
            found.append([*result, *gradients(images, weights, kind, result[0])])
    finally:
        torch.set_num_threads(threads)
    assert all(
        torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True)
    )


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
        line = f"ops were not built.*{compiler} exited with 1: depthwise.c:3:7: error: expected a friend; .*SUPERNET_NATIVE=0 .*them$"
        warned = pytest.warns(RuntimeWarning, match=line)
    try:
        with warned as said:
            assert library() is None
        assert library() is None and (said is None or len(said) == 1)
        assert not known(case(4, 6, 6, True, noise)[0])
        assert not list(tmp_path.rglob("*.so"))
    finally:
        library.cache_clear()
