"""Devices and their memory. No other module names CUDA or asks the system about memory."""

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from supernet.errors import UserError

STATUS, MEMORY = Path("/proc/self/status"), Path("/proc/meminfo")  # on Linux

# With any of these features of a processor, torch multiplies bf16 matrices about as fast as float32
# matrices, or faster. The first three are of x86, the last two of ARM.
BF16_FEATURES = ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16", "sve_bf16")

# On x86 oneDNN computes the products. With these values of the environment variable
# ONEDNN_MAX_CPU_ISA, a limit that users can set, it uses none of the features.
ISA_WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")


def choose_device(name: str = "auto") -> torch.device:
    """The device with this name. ``auto`` means the accelerator (CUDA, MPS, ...) if there is one,
    else the CPU.

    Raises:
        UserError: this machine has no such device.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # the meta device holds a tensor, but no values
        if device.type == "cpu" and device.index:
            raise RuntimeError("all cores are one device")
    except (RuntimeError, AssertionError, ImportError) as error:
        here = "cpu" if found is None else f"cpu and {found.type}"
        raise UserError(
            f"device={name}: not available on this machine, which has {here}; use device=auto"
        ) from error
    return device


def present(kind: str) -> bool:
    """Whether this machine has a device of the type ``kind``, as in ``torch.device.type``."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return kind == "cpu" or (found is not None and kind == found.type)


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # on Linux: a container may have fewer than the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def reproducible(threads: int | None = None) -> Iterator[None]:
    """Inside the block, the same seed gives the same bits on the same machine.

    cuDNN does not choose kernels by their speed, and uses only deterministic kernels. torch uses
    ``threads`` threads of the CPU; ``None`` leaves their number unchanged. After the block all
    settings are as before.
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


def computes_bf16(device: torch.device) -> bool:
    """Whether ``device`` has arithmetic for bf16. Without it, bf16 is many times slower than
    float32.

    For a CPU this depends on the features of the processor and on ``ONEDNN_MAX_CPU_ISA``, never on
    a measurement. The answer is ``True`` for other devices, and where torch does not know the
    features (old versions have no ``torch.cpu.get_capabilities``).
    """
    features: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    if device.type != "cpu" or not features:
        return True
    x86 = "avx2" in features
    if x86 and os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in ISA_WITHOUT_BF16:
        return False
    return any(features.get(name) for name in BF16_FEATURES)


def synchronise(device: torch.device) -> None:
    """Waits until the device has finished all its work. Call it before reading a clock."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_memory_bytes(device: torch.device) -> int:
    """The largest amount of memory, in bytes, that was in use at one time so far.

    On CUDA this is the memory of tensors. Otherwise it is the memory of the whole process. The
    result is 0 if the system does not record it (Windows).
    """
    if device.type == "cuda":
        return torch.accelerator.max_memory_allocated(device)
    if STATUS.exists():
        # Not getrusage: its peak cannot be reset, and a process inherits it from its parent.
        return kibibytes(STATUS, "VmHWM")
    try:
        import resource
    except ImportError:  # Windows has no such module
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def reset_peak_memory(device: torch.device) -> None:
    """Resets the peak of :func:`peak_memory_bytes` to the memory that is in use now.

    This works on Linux and on a CUDA device. Elsewhere nothing happens.
    """
    if device.type == "cuda":
        torch.accelerator.reset_peak_memory_stats(device)
        return
    # Freed memory that the heap keeps still counts as in use, so that the next allocations, which
    # reuse it, would not show. glibc can return it to the system. macOS has no such function, and
    # Windows has no CDLL(None).
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def available_memory_bytes(device: torch.device) -> int:
    """The largest amount of memory, in bytes, that this process can use; what it uses now is part
    of it.

    On the CPU this is limited by the free memory of the machine, by the limits of the control
    groups of this process, and by its own limits (``ulimit``); the smallest counts.

    Raises:
        UserError: the system does not say how much memory it has (Windows).
    """
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free + torch.accelerator.memory_reserved(device)
    if MEMORY.exists():
        limits = [*left_in_control_groups(), *left_of_own_limits()]
        left = min([kibibytes(MEMORY, "MemAvailable"), *limits])
        return left + kibibytes(STATUS, "VmRSS")
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    raise UserError("memory: this system does not say how much it has; set memory=ignore")


def kibibytes(path: Path, name: str) -> int:
    """The entry ``name`` of a file in ``/proc``, such as ``VmRSS:  2048 kB``, in bytes."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def require_room(what: str, needed: int, device: torch.device, change: str) -> None:
    """Raises a UserError if ``needed`` bytes are more than :func:`available_memory_bytes`.

    Call it before much is allocated. The system may grant more memory than there is, and kills the
    process when it uses it. ``what`` needs the memory, and ``change`` are the settings to make
    smaller.
    """
    try:
        available = available_memory_bytes(device)
    except UserError:  # the system does not say
        return
    if needed > available:
        need, have = (f"{count / 2**30:,.2f} GiB" for count in (needed, available))
        raise UserError(
            f"{what}: there is not enough memory: it needs at least {need}, and there are {have}; "
            f"choose a smaller {change}"
        )


def left_of_own_limits() -> Iterator[int]:
    """Yields, for each limit on the memory of this process (``ulimit -v`` and ``ulimit -d``), how
    many bytes are left until the limit. The limits are on addresses, used or not.
    """
    import resource  # this is Linux: Windows has no such module

    for limit, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            yield max(0, soft - kibibytes(STATUS, used))


def left_in_control_groups(
    own: Path = Path("/proc/self/cgroup"), top: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """Yields, for each memory limit of this process, how many bytes are left until the limit.

    The limits are those of the control groups of the process and of the groups above them, in
    version 1 or 2 of the interface. ``own`` is the file that lists the groups of the process;
    ``top`` is the folder where the groups are mounted.
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
            # OSError: a container does not show this group. ValueError: "max" means no limit.
            with suppress(OSError, ValueError):
                limit, used = (int((folder / name).read_text(encoding="ascii")) for name in names)
                stat = dict(
                    line.split()
                    for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines()
                )
                cached = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
                yield limit - used + cached  # the system can drop cached files when it needs memory


def versions_of(device: torch.device) -> dict[str, str]:
    """The versions of the libraries that compute on an accelerator; none for a CPU."""
    if device.type != "cuda":
        return {}
    return {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}


def describe(device: torch.device) -> str:
    """The name of the device, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type
