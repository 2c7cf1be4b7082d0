"""Finds small convolutions that corrupt the heap on this machine or compute wrong numbers.

    python tools/heap_check.py [--isa DEFAULT AVX2] [--threads 1] [--channels 16]

Run it when torch is upgraded. It runs the forward and the backward pass of some eight thousand
small convolutions under the heap check of the GNU C library, first with all instructions of the
processor, then with AVX2 only. It prints the convolutions that abort their process, and those whose
results differ from the results in float64. ``supernet/ops/convolution.py`` says what was found in
torch 2.15.0, and how the package avoids it.

The heap check aborts a process when it frees a block whose borders were overwritten. Each batch of
convolutions therefore runs in a forked process. If that process aborts, each convolution of the
batch runs again in a process of its own.
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
BATCH, REPEATS = 32, 3  # repeated, because whether the check sees a fault depends on the heap
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}  # largest error, relative to the largest number


class Form(NamedTuple):
    """The form of a convolution: a square kernel on square images. The padding is such that stride
    1 keeps the size of the images.
    """

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
    """Yields every form to run, with up to ``channels`` channels."""
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
    """The result of a convolution and the gradients of its images and weights, in ``dtype``."""
    layout = torch.channels_last if form.channels_last else torch.contiguous_format
    x, weight, slope = (t.to(dtype, copy=True, memory_format=layout) for t in tensors)
    x.requires_grad_()
    weight.requires_grad_()
    padding = form.kernel // 2 * form.dilation
    y = F.conv2d(x, weight, None, form.stride, padding, form.dilation, form.groups)
    y.backward(slope)
    return [y.detach(), x.grad, weight.grad]


def worst(form: Form) -> float:
    """The largest error of the result and the gradients, relative to the largest number in each."""
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
    """Runs ``job`` in a forked process; whether that process was not aborted."""
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
    """Runs each form several times and prints the forms with wrong results."""
    torch.set_num_threads(threads)  # after the fork: a forked process has no threads of its parent
    for form in list(batch) * REPEATS:
        error = worst(form)
        if not error <= TOLERANCE[form.dtype]:
            print(f"wrong by {error:.2g}: {form}", flush=True)


def corrupt() -> None:
    """Writes a byte past the end of a tensor, to try whether the heap check works."""
    tensor = torch.empty(100, dtype=torch.uint8)
    ctypes.memset(tensor.data_ptr(), 0, 101)


def search(channels: int, threads: int) -> None:
    """Prints every form that aborts its process or has wrong results."""
    if survives(corrupt):
        raise SystemExit("the heap check does not work here: it needs glibc and its " + LIBRARY)
    torch.set_num_threads(1)
    worst(Form(16, 16, 3, 1))  # the first convolution takes seconds; forked processes skip that
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
    parser.add_argument("--channels", type=int, default=16, help="most channels (default 16)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument(
        "--isa",
        nargs="+",
        default=["DEFAULT", "AVX2"],
        help="values of ONEDNN_MAX_CPU_ISA to run with, in turn (default DEFAULT AVX2)",
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        return search(options.channels, options.threads)
    for isa in options.isa:
        print(f"ONEDNN_MAX_CPU_ISA={isa}, {options.threads} threads", flush=True)
        check = {"MALLOC_CHECK_": "3", "LD_PRELOAD": LIBRARY, "ONEDNN_MAX_CPU_ISA": isa}
        command = [sys.executable, __file__, "--here", "--channels", str(options.channels)]
        command += ["--threads", str(options.threads)]
        subprocess.run(command, env=os.environ | check, check=True)


if __name__ == "__main__":
    main()
