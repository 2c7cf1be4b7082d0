"""Which small convolutions corrupt the heap on this machine, and which give wrong numbers.

    python tools/heap_check.py [--isa DEFAULT AVX2] [--threads 1] [--channels 16]

Run it when torch is upgraded. It runs the forward and the backward of some eight thousand small
convolutions under the heap check of the GNU C library, first with all instructions that the
processor has, then with AVX2 alone. It prints those that abort their process, and those whose
numbers are not the ones of float64. ``supernet/ops/convolution.py`` says what was found in torch
2.15.0, and what the package does about it.

The heap check aborts a process that frees a block whose borders were overwritten. So each batch of
convolutions runs in a forked process, and if that aborts, each of its convolutions in one of its
own.
"""

import argparse
import ctypes
import itertools
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch.nn import functional as F

LIBRARY = "libc_malloc_debug.so.0"  # since glibc 2.34 the check is in a library of its own
CHANNELS = 1, 2, 3, 4, 5, 6, 8, 9, 12, 16
BATCH, REPEATS = 32, 3  # what is overwritten, and so what is seen, depends on the heap
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}  # of the largest number


class Form(NamedTuple):
    """A square convolution of square images, padded so that stride 1 keeps their size."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    dilation: int = 1
    groups: int = 1
    channels_last: bool = True
    dtype: str = "float32"
    batch: int = 4
    size: int = 8


def forms(channels: int) -> Iterator[Form]:
    """Every form that is searched, of up to so many ``channels``."""
    counts = [count for count in CHANNELS if count <= channels]
    dense = [(i, o, 1) for i, o in itertools.product(counts, counts)]
    depthwise = [(c, c, c) for c in counts if c > 1]
    geometry = [(1, 1, 1), (1, 2, 1)]
    geometry += itertools.product((3, 5), (1, 2), (1, 2))
    sizes = (4, 8), (3, 7)
    for (kernel, stride, dilation), last, dtype, (batch, size) in itertools.product(
        geometry, (True, False), TOLERANCE, sizes
    ):
        for inputs, outputs, groups in dense + depthwise:
            yield Form(inputs, outputs, kernel, stride, dilation, groups, last, dtype, batch, size)


def gradients(form: Form, dtype: torch.dtype, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The result and the gradients of images and weights, in ``dtype``."""
    layout = torch.channels_last if form.channels_last else torch.contiguous_format
    x, weight, slope = (t.to(dtype, copy=True, memory_format=layout) for t in tensors)
    x.requires_grad_()
    weight.requires_grad_()
    padding = form.kernel // 2 * form.dilation
    y = F.conv2d(x, weight, None, form.stride, padding, form.dilation, form.groups)
    y.backward(slope)
    return [y.detach(), x.grad, weight.grad]


def worst(form: Form) -> float:
    """The largest error of any result of the form, relative to the largest number in it."""
    noise, error = torch.Generator().manual_seed(0), 0.0
    out = (form.size - 1) // form.stride + 1
    shapes = [
        (form.batch, form.inputs, form.size, form.size),
        (form.outputs, form.inputs // form.groups, form.kernel, form.kernel),
        (form.batch, form.outputs, out, out),
    ]
    dtype = getattr(torch, form.dtype)
    tensors = [torch.randn(shape, generator=noise).to(dtype) for shape in shapes]
    found, right = gradients(form, dtype, tensors), gradients(form, torch.float64, tensors)
    for one, other in zip(found, right, strict=True):
        error = max(error, ((one.double() - other).abs().max() / other.abs().max()).item())
    return error


def survives(job: Callable[[], None]) -> bool:
    """Whether a process of its own that does the job is not aborted."""
    child = os.fork()
    if child == 0:
        try:
            job()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a convolution raised an error")
    return not os.WIFSIGNALED(status)


def run(batch: Iterable[Form], threads: int) -> None:
    """Runs each form several times, and prints those that are wrong."""
    torch.set_num_threads(threads)  # not before the fork, which would have no threads then
    for form in list(batch) * REPEATS:
        error = worst(form)
        if not error <= TOLERANCE[form.dtype]:
            print(f"wrong by {error:.2g}: {form}", flush=True)


def corrupt() -> None:
    """Writes a byte past the end of a tensor."""
    tensor = torch.empty(100, dtype=torch.uint8)
    ctypes.memset(tensor.data_ptr(), 0, 101)


def search(channels: int, threads: int) -> None:
    """Prints every form that aborts its process or is wrong."""
    if survives(corrupt):
        raise SystemExit("the heap check does not work here: it needs glibc and its " + LIBRARY)
    torch.set_num_threads(1)
    worst(Form(16, 16, 3, 1))  # the first takes seconds, of which no fork need pay its own
    every, aborted = list(forms(channels)), 0
    for start in range(0, len(every), BATCH):
        batch = every[start : start + BATCH]
        if survives(partial(run, batch, threads)):
            continue
        alone = [form for form in batch if not survives(partial(run, [form], threads))]
        aborted += len(alone)
        for form in alone:
            print(f"aborts: {form}", flush=True)
        if not alone:
            print(f"aborts only after others: one of {batch}", flush=True)
    print(f"{len(every)} forms, of which {aborted} abort", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--channels", type=int, default=16, help="up to how many (default 16)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    parser.add_argument(
        "--isa",
        nargs="+",
        default=["DEFAULT", "AVX2"],
        help="values of ONEDNN_MAX_CPU_ISA, one after the other (default DEFAULT AVX2)",
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.here:
        return search(told.channels, told.threads)
    for isa in told.isa:
        print(f"ONEDNN_MAX_CPU_ISA={isa}, {told.threads} threads", flush=True)
        check = {"MALLOC_CHECK_": "3", "LD_PRELOAD": LIBRARY, "ONEDNN_MAX_CPU_ISA": isa}
        command = [sys.executable, __file__, "--here", "--channels", str(told.channels)]
        command += ["--threads", str(told.threads)]
        subprocess.run(command, env=os.environ | check, check=True)


if __name__ == "__main__":
    main()
