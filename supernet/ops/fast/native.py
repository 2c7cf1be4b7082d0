"""Compiles and loads the C++ kernels of this folder, and passes tensors to them.

The machine's compiler makes one library of all kernels when they are first used. That takes some
seconds; the library is then kept in the user's cache. Without a compiler, and for devices and types
that the kernels do not support, torch computes the same, more slowly. If a compiler is there but
fails, a warning says so, once a process.

Two environment variables change that. ``SUPERNET_NATIVE=0``: no kernels. ``SUPERNET_MARCH=NAME``:
compile for that processor (the compiler's ``-march``) and not for this one.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from supernet.ops.fast.kept import kept

SOURCES = [
    Path(__file__).with_name(name)
    for name in (
        "depthwise.cpp",
        "folding.cpp",
        "pooling.cpp",
        "rows.cpp",
        "half.h",
        "rows.h",
        "vectors.h",
    )
]
COMPILERS = "g++", "c++", "clang++"
# Not -ffast-math: a library that was compiled with it changes the rounding of the whole process.
# -Wno-psabi: how other libraries would pass vectors does not matter here.
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fPIC", "-Wno-psabi")
# Apple's clang has no OpenMP. Without it the kernels use one thread.
THREADS = (("-fopenmp",), ())

# --- what the kernels are: see the sources

NUMBER, FACTOR, POINTER = ctypes.c_long, ctypes.c_float, ctypes.c_void_p
SUMS: list[type] = [
    POINTER
] * 4  # where the terms of each sum begin, their rows, their matrices, their kinds
SIGNATURES: dict[str, list[Any]] = {
    "products": [POINTER] * 3 + SUMS + [NUMBER] * 5,
    "grams": [POINTER] * 4 + [NUMBER, FACTOR] + [NUMBER] * 3,
    "forward": [POINTER] * 9 + [NUMBER],
    "backward": [POINTER] * 5 + SUMS + [POINTER] * 4 + [NUMBER],
    "pool": [POINTER] * 6 + [NUMBER],
    "pool_backward": [POINTER] * 2 + [NUMBER] * 2 + [POINTER] + SUMS + [POINTER, NUMBER],
    "fold": [POINTER] * 8 + [NUMBER, ctypes.c_double],
    "unfold": [POINTER] * 10 + [NUMBER, ctypes.c_double, NUMBER],
    "multiplies_halves": [],
}


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or ``None`` without a compiler, if it failed, or if switched off."""
    found = found_compiler()
    if found is None:
        return None
    try:
        return declared(ctypes.CDLL(str(built(found))))
    except (OSError, subprocess.SubprocessError) as error:
        warnings.warn(
            f"the C++ kernels of {SOURCES[0].parent} were not built, and steps take several times "
            f"as long: {reason(error)}; "
            "repair the compiler, or set SUPERNET_NATIVE=0 to run without the kernels",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def declared(found: ctypes.CDLL) -> ctypes.CDLL:
    """The library, whose functions know what they are given, and raise MemoryError where there is
    no memory left.
    """
    for name, arguments in SIGNATURES.items():
        function = getattr(found, name)
        function.argtypes = arguments
        if name != "multiplies_halves":
            function.restype = done
    return found


def done(answer: int) -> None:
    """Raises the error that the answer of a kernel stands for (``vectors.h``)."""
    if answer:
        raise MemoryError("a C++ kernel found no memory for what it computes: use smaller batches")


def found_compiler() -> str | None:
    """The C++ compiler; ``None`` if there is none, or if the kernels are switched off."""
    if os.environ.get("SUPERNET_NATIVE") == "0":
        return None
    return next(filter(None, map(shutil.which, COMPILERS)), None)


def kernels() -> ctypes.CDLL:
    """The compiled kernels, where :func:`supported` has said that there are some."""
    found = library()
    assert found is not None
    return found


def built(compiler: str) -> Path:
    """The library in the user's cache. It is compiled if it is not there; see
    :mod:`supernet.ops.fast.kept`.

    Its name holds a hash of the sources, the compiler and its options, and what the processor can
    do, because several machines may share the home that the cache is in.
    """
    flags, version = (*FLAGS, f"-march={march()}"), version_of(compiler)
    cpu = Path("/proc/cpuinfo")  # on Linux
    lines = cpu.read_bytes().splitlines() if cpu.exists() else []
    processor = next((line for line in lines if line.startswith((b"flags", b"Features"))), b"")
    texts = [source.read_bytes() for source in SOURCES]
    content = b"\0".join([*texts, repr((flags, THREADS)).encode(), version, processor])

    def compile_to(path: Path) -> None:
        for index, threads in enumerate(THREADS, start=1):
            try:
                return compile_all(compiler, (*flags, *threads), path)
            except subprocess.CalledProcessError:
                if index == len(THREADS):
                    raise

    return kept(hashlib.sha256(content).hexdigest()[:16], compile_to)


def march() -> str:
    """The processor that the kernels are compiled for, as the compiler calls it."""
    return os.environ.get("SUPERNET_MARCH", "native")


@cache
def version_of(compiler: str) -> bytes:
    """What the compiler says of itself."""
    return subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout


def recipe() -> dict[str, str]:
    """What decides the machine code of the kernels, besides their sources and the processor: the
    compiler, and the processor that they are compiled for. Nothing is compiled.
    """
    found = found_compiler()
    try:
        version = b"" if found is None else version_of(found)
    except (OSError, subprocess.SubprocessError):  # then there are no kernels
        version = b""
    if not version:
        return {"compiler": "none"}
    return {"compiler": version.decode(errors="replace").splitlines()[0], "march": march()}


def compile_all(compiler: str, flags: Sequence[str], path: Path) -> None:
    """Compiles the sources, all at once, and links them into the library ``path``."""

    def run(*arguments: str | Path) -> None:
        command = [compiler, *flags, *arguments]
        subprocess.run(command, capture_output=True, check=True, timeout=120)

    with tempfile.TemporaryDirectory(dir=path.parent) as folder, ThreadPoolExecutor() as pool:
        sources = [source for source in SOURCES if source.suffix == ".cpp"]
        objects = [Path(folder) / f"{source.stem}.o" for source in sources]
        list(pool.map(lambda source, made: run("-c", source, "-o", made), sources, objects))
        run("-shared", "-o", path, *objects)


def reason(error: Exception) -> str:
    """What went wrong, in one line: of what a compiler prints, the first line with "error"."""
    said = (getattr(error, "stderr", None) or b"").decode(errors="replace").splitlines()
    first = next((line for line in said if "error" in line.lower()), said[0] if said else "")
    where = (
        f"{error.cmd[0]} exited with {error.returncode}"
        if isinstance(error, subprocess.CalledProcessError)
        else str(error)
    )
    return f"{where}: {first.strip()}" if first else where


def reachable(x: Tensor) -> bool:
    """Whether there are kernels, and they can read ``x``: its values are in the memory of this
    machine. (A tensor of a subclass may have no values.)
    """
    here = x.is_cpu and type(x) in (Tensor, nn.Parameter)
    return here and library() is not None and tried()


@cache
def tried() -> bool:
    """Whether the kernels have passed their trial (:mod:`supernet.ops.fast.trial`)."""
    from supernet.ops.fast.trial import passed  # which runs the kernels, so that it imports this

    return passed()


def supported(x: Tensor) -> bool:
    """Whether the kernels can read images like ``x`` as they are."""
    return x.dtype == torch.float32 and reachable(x)


def bfloat16_is_faster(x: Tensor) -> bool:
    """Whether the kernels multiply the pixels of images like ``x`` [B, C, H, W] faster in bfloat16
    than in float32: the processor has AMX, and the channels fill its tiles.
    """
    return reachable(x) and x.shape[1] % 16 == 0 and bool(kernels().multiplies_halves())


# --- arguments of the kernels

Numbers = ctypes.Array[ctypes.c_long]
Addresses = ctypes.Array[ctypes.c_void_p]


def is_bfloat16(x: Tensor) -> int:
    return int(x.dtype == torch.bfloat16)


def numbers(values: Sequence[int]) -> Numbers:
    return (ctypes.c_long * len(values))(*values)


def address(tensor: Tensor | None) -> int | None:
    """Where a contiguous tensor begins; null for ``None``."""
    return None if tensor is None else tensor.data_ptr()


def addresses(tensors: Sequence[Tensor | None]) -> Addresses:
    """The same for several tensors."""
    return (ctypes.c_void_p * len(tensors))(*map(address, tensors))


class AddressTable:
    """The addresses of blocks of memory, of which only the positions are known in advance.

    There are several arrays, and each consists of blocks of one size. ``(which, k)`` stands for
    block k of array ``which``; ``None`` stands for null.
    """

    def __init__(self, blocks: Sequence[tuple[int, int] | None]):
        pairs = np.array(
            [(-1, 0) if block is None else block for block in blocks], dtype=np.int64
        ).reshape(-1, 2)
        self.which, self.index = pairs[:, 0].copy(), pairs[:, 1].copy()
        self.array = ctypes.c_void_p * len(blocks)

    def at(self, starts: Sequence[int], size: int) -> Addresses:
        """The addresses, if the arrays start at ``starts`` and a block takes ``size`` bytes."""
        found = np.array([*starts, 0])[self.which] + self.index * size
        return self.array.from_buffer(found.data)
