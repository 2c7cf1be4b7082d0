"""Many depthwise convolutions as one call, forward and backward.

The stock gradients of a 5×5 or a dilated depthwise convolution take five to fifteen times as long as the convolution itself on a
CPU, and each of many convolutions that read one image reads it anew. ``depthwise.c`` does all of them while the image is in the
cache. It is compiled by the machine's C compiler in about a second, once, into the user's cache; where there is none, or on a
device or in a type that it does not know, the same is done by torch, one convolution after the other. ``SUPERNET_NATIVE=0`` asks
for that.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

SOURCE = Path(__file__).with_suffix(".c")
FLAGS = (
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-shared",
    "-fPIC",
)  # not -ffast-math: it changes rounding in all of the process


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; ``None`` where they cannot be had."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if os.environ.get("SUPERNET_NATIVE") == "0" or compiler is None:
        return None
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
        cpu = Path("/proc/cpuinfo")  # the cache may lie in a home that several machines share
        kind = next((line for line in cpu.read_bytes().splitlines() if line.startswith(b"flags")), b"") if cpu.exists() else b""
        key = hashlib.sha256(b"\0".join([SOURCE.read_bytes(), repr(FLAGS).encode(), version, kind])).hexdigest()[:16]
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "supernet"
        built = folder / f"depthwise-{key}.so"
        if not built.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                new = Path(temporary) / built.name
                subprocess.run([compiler, *FLAGS, "-fopenmp", "-o", new, SOURCE], capture_output=True, check=True, timeout=60)
                new.replace(built)
        return ctypes.CDLL(str(built))
    except (OSError, subprocess.SubprocessError):
        return None


def depthwise(x: Tensor, weights: Sequence[Tensor], stride: int, dilations: Sequence[int]) -> Tensor:
    """K convolutions of images ``x`` [1 or K, B, H, W, C], all the same or one set for each kernel, into [K, B, H', W', C].

    ``weights`` are [C, 1, k, k] with k odd; each kernel is padded by k // 2 times its dilation.
    """
    known = x.dtype == torch.float32 and x.device.type == "cpu" and x.shape[-1] % 4 == 0
    if known and all(weight.shape[-1] in (3, 5) for weight in weights) and library() is not None:
        return _Native.apply(x, stride, tuple(dilations), *weights)
    return _plain(x, weights, stride, dilations)


def _plain(x: Tensor, weights: Sequence[Tensor], stride: int, dilations: Sequence[int]) -> Tensor:
    images = [image.permute(0, 3, 1, 2) for image in x.unbind()] * (len(weights) if len(x) == 1 else 1)
    return torch.stack(
        [
            F.conv2d(image, weight, None, stride, weight.shape[-1] // 2 * dilation, dilation, len(weight)).permute(0, 2, 3, 1)
            for image, weight, dilation in zip(images, weights, dilations, strict=True)
        ]
    )


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, stride: int, dilations: tuple[int, ...], *weights: Tensor) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, *weights)
        ctx.job = job = _Job(x, weights, stride, dilations)
        result = x.new_empty(job.output)
        job.call("forward", result, x, job.packed(weights))
        return result

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (x, *weights), job, wanted = ctx.saved_tensors, ctx.job, ctx.needs_input_grad
        if torch.is_grad_enabled():  # to be differentiated again: torch knows how for its own
            inputs = [tensor for tensor, asked in zip((x, *weights), (wanted[0], *wanted[3:]), strict=True) if asked]
            with torch.enable_grad():
                found = iter(torch.autograd.grad(_plain(x, weights, *job.settings), inputs, gradient, create_graph=True))
            results = [next(found) if asked else None for asked in (wanted[0], *wanted[3:])]
            return results[0], None, None, *results[1:]
        gradient = gradient.contiguous()
        of_x, of_weights = None, [None] * len(weights)
        if wanted[0]:
            of_x = torch.empty_like(x)
            job.call("input_gradient", of_x, gradient, job.packed(weights))
        if any(wanted[3:]):
            flat = x.new_empty(sum(weight.numel() for weight in weights))
            job.call("weight_gradient", flat, x, gradient)
            parts = flat.split([weight.numel() for weight in weights])
            of_weights = [part.view(-1, len(w)).t().reshape(w.shape) for part, w in zip(parts, weights, strict=True)]
        return of_x, None, None, *of_weights


class _Job:
    """The shapes of a call, as the kernels want them."""

    def __init__(self, x: Tensor, weights: Sequence[Tensor], stride: int, dilations: Sequence[int]):
        def numbers(values) -> ctypes.Array:
            return (ctypes.c_long * len(values))(*values)

        shared, batch, height, width, channels = x.shape
        self.settings = stride, dilations
        self.output = len(weights), batch, (height - 1) // stride + 1, (width - 1) // stride + 1, channels
        self.numbers = (
            numbers((len(weights), int(shared == 1), batch, height, width, channels, stride)),
            numbers([weight.shape[-1] for weight in weights]),
            numbers(dilations),
        )

    def packed(self, weights: Sequence[Tensor]) -> Tensor:
        """All weights, [tap][channel], one after the other."""
        return torch.cat([weight.detach().flatten(1).t().reshape(-1) for weight in weights])

    def call(self, name: str, *tensors: Tensor) -> None:
        getattr(library(), name)(*(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors), *self.numbers)
