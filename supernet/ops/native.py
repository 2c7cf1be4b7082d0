"""The C kernels of this folder, compiled on first use.

They are compiled by the machine's C compiler in a few seconds, once, into the user's cache. Where
there is none, or on a device or in a type that they do not know, the callers let torch do the same.
``SUPERNET_NATIVE=0`` asks for that. Where a compiler is there but fails, a warning says so, once a
process.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SOURCES = [
    Path(__file__).with_name(name)
    for name in ("depthwise.c", "folding.c", "pooling.c", "rows.c", "half.h", "rows.h")
]
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
        kind = (
            next((line for line in cpu.read_bytes().splitlines() if line.startswith(b"flags")), b"")
            if cpu.exists()
            else b""
        )
        texts = [source.read_bytes() for source in SOURCES]
        key = hashlib.sha256(b"\0".join([*texts, repr(FLAGS).encode(), version, kind])).hexdigest()[
            :16
        ]
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "supernet"
        built = folder / f"kernels-{key}.so"
        if not built.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                new = Path(temporary) / built.name
                command = [
                    compiler,
                    *FLAGS,
                    "-fopenmp",
                    "-o",
                    new,
                    *(source for source in SOURCES if source.suffix == ".c"),
                ]
                subprocess.run(command, capture_output=True, check=True, timeout=60)
                new.replace(built)
        return ctypes.CDLL(str(built))
    except (OSError, subprocess.SubprocessError) as error:
        warnings.warn(
            f"the C kernels of {SOURCES[0].parent} were not built, and steps take several times "
            f"as long: {reason(error)}; "
            "mend that, or set SUPERNET_NATIVE=0 to do without them",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def reason(error: Exception) -> str:
    """In one line, what went wrong: of what a compiler says, the first line that speaks of an
    error.
    """
    said = (getattr(error, "stderr", None) or b"").decode(errors="replace").splitlines()
    first = next((line for line in said if "error" in line.lower()), said[0] if said else "")
    where = (
        f"{error.cmd[0]} exited with {error.returncode}"
        if isinstance(error, subprocess.CalledProcessError)
        else str(error)
    )
    return f"{where}: {first.strip()}" if first else where


def known(x: Tensor) -> bool:
    """Whether the kernels can take images such as ``x``, whose last axis is the channels."""
    return x.dtype == torch.float32 and x.is_cpu and x.shape[-1] % 4 == 0 and library() is not None


def multiplies(x: Tensor) -> bool:
    """Whether rows such as the images ``x`` [B, C, H, W] are multiplied faster in bfloat16 than in
    float32.
    """
    return (
        x.is_cpu
        and x.shape[1] % 16 == 0
        and library() is not None
        and bool(library().multiplies_halves())
    )


def half(x: Tensor) -> ctypes.c_long:
    """Whether rows such as ``x`` are in bfloat16, for the kernels."""
    return ctypes.c_long(x.dtype == torch.bfloat16)


class Addresses:
    """Of tensors that are parts of larger ones: ``(which, k)`` is the k-th part of one of several,
    ``None`` is null.
    """

    def __init__(self, parts: Sequence[tuple[int, int] | None]):
        pairs = np.array(
            [(-1, 0) if part is None else part for part in parts], dtype=np.int64
        ).reshape(-1, 2)
        self.which, self.index = pairs[:, 0].copy(), pairs[:, 1].copy()
        self.array = ctypes.c_void_p * len(parts)

    def at(self, bases: Sequence[int], step: int) -> ctypes.Array:
        """Where they are if the larger ones begin at ``bases`` and have parts of ``step`` bytes."""
        return self.array.from_buffer(np.array([*bases, 0])[self.which] + self.index * step)


def numbers(values: Sequence[int]) -> ctypes.Array:
    return (ctypes.c_long * len(values))(*values)


def places(tensors: Sequence[Tensor | None]) -> ctypes.Array:
    """Where contiguous tensors lie; null for ``None``."""
    return (ctypes.c_void_p * len(tensors))(
        *(None if tensor is None else tensor.data_ptr() for tensor in tensors)
    )


def place(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
