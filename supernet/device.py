"""Devices and their memory: no other module names an accelerator or asks the operating system."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from supernet.errors import UserError

STATUS, MEMORY = Path("/proc/self/status"), Path("/proc/meminfo")  # on Linux


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; ``auto`` takes the accelerator if there is one (CUDA, MPS, ...),
    else the CPU.

    Raises:
        UserError: there is no such device here.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # the meta device holds a tensor, but no values
    except (RuntimeError, AssertionError, ImportError) as error:
        here = "cpu" if found is None else f"cpu and {found.type}"
        raise UserError(
            f"device={name}: not available on this machine, which has {here}; use device=auto"
        ) from error
    return device


def present(kind: str) -> bool:
    """Whether this machine has devices of that kind, as in ``torch.device.type``."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return kind == "cpu" or (found is not None and kind == found.type)


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # on Linux: a container may have fewer than the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def reproducible(threads: int | None = None) -> Iterator[None]:
    """Inside the block the same seed gives the same bits on the same machine.

    No kernel is chosen by its speed, none adds up in an order that varies, and torch uses
    ``threads`` of the CPU (``None`` leaves its own choice). Afterwards all is as it was.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic, torch.get_num_threads()
    try:
        cudnn.benchmark, cudnn.deterministic = False, True
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before[:2]
        torch.set_num_threads(before[2])


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context of a forward pass in ``precision``, "float32" or "bf16"."""
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def synchronise(device: torch.device) -> None:
    """Waits until the device has finished all its work; before that, a clock tells nothing."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that was held at one time so far.

    On an accelerator that is the memory of tensors; on the CPU it is the memory of the whole
    process. The result is 0 where the system keeps no such number (Windows).
    """
    if device.type == "cuda":
        return torch.accelerator.max_memory_allocated(device)
    if STATUS.exists():
        # Not getrusage: its peak never falls, and a process inherits it from its parent.
        return kibibytes(STATUS, "VmHWM")
    try:
        import resource
    except ImportError:  # Windows has no such module
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def reset_peak_memory(device: torch.device) -> None:
    """Lets :func:`peak_memory_bytes` start again from the memory that is held now.

    This works on Linux and on a CUDA device; elsewhere nothing happens.
    """
    if device.type == "cuda":
        torch.accelerator.reset_peak_memory_stats(device)
        return
    # Memory that the heap keeps for later would hide the first of what is allocated from here on.
    # Only glibc can give it back: macOS has no such function, and Windows no CDLL(None).
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def available_memory_bytes(device: torch.device) -> int:
    """The most that this process can come to hold, what it holds already included.

    On the CPU that is what the machine can give, or what the limits of control groups leave,
    whichever is less.

    Raises:
        UserError: the system does not say how much memory it has (Windows).
    """
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free + torch.accelerator.memory_reserved(device)
    if MEMORY.exists():
        left = min(kibibytes(MEMORY, "MemAvailable"), *left_in_control_groups())
        return left + kibibytes(STATUS, "VmRSS")
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    raise UserError("memory: this system does not say how much it has; set memory=ignore")


def kibibytes(path: Path, name: str) -> int:
    """The entry of that name, such as ``VmRSS:  2048 kB``, of a file in ``/proc``, in bytes."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def left_in_control_groups(
    own: Path = Path("/proc/self/cgroup"), top: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """For each memory limit of this process, how many bytes it leaves.

    Limits come from the control groups of the process and from the groups above them, in version 1
    or 2 of the interface. ``own`` lists the groups of the process; ``top`` is where they are
    mounted.
    """
    for line in own.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = top, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root, names = top / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents[: len(group.parents) - len(root.parents)]):
            # OSError: a container does not show this group. ValueError: the limit is "max", none.
            with suppress(OSError, ValueError):
                limit, used = (int((folder / name).read_text(encoding="ascii")) for name in names)
                stat = dict(
                    line.split()
                    for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines()
                )
                cached = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
                yield limit - used + cached  # cached files make room


def describe(device: torch.device) -> str:
    """The device's name for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type
