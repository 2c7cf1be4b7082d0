"""The one place that knows which devices there are."""

import resource
import sys
from contextlib import AbstractContextManager, nullcontext

import torch

from supernet.errors import UserError


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; ``auto`` takes the accelerator if there is one (CUDA, MPS, ...), else the CPU.

    Raises:
        UserError: there is no such device here.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # the meta device can hold a tensor, but there is nothing in it
    except (RuntimeError, AssertionError, ImportError) as error:
        here = "cpu" if found is None else f"cpu and {found.type}"
        raise UserError(f"device={name}: not available on this machine, which has {here}; use device=auto") from error
    return device


def present(kind: str) -> bool:
    """Whether this machine has devices of that kind, as in ``torch.device.type``."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return kind == "cpu" or (found is not None and kind == found.type)


def make_deterministic() -> None:
    """Same seed, same machine, same bits: no kernel is chosen by timing, none sums in an order that varies."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """The context of a forward pass in ``precision``, "float32" or "bf16"."""
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all that it was asked for: before that, a clock says nothing."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory held so far: of tensors on an accelerator; of the whole process on the CPU."""
    if device.type == "cuda":
        return torch.accelerator.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def describe(device: torch.device) -> str:
    """The device's name for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type
