"""The versions and the hardware that a run uses. They are recorded beside its figures."""

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from supernet.device import describe, versions_of
from supernet.ops.fast.native import recipe

PACKAGES = (
    "supernet",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "scikit-learn",
    "optuna",
    "hydra-core",
    "wandb",
    "onnx",
    "onnxruntime",
)

# Variables that limit which instructions torch and its libraries use, or how exactly they compute.
LIMITS = (
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_CBWR",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
)

PACKAGE = Path(__file__).parent
# How the text of torch.__config__.show() names the libraries that it was built with.
LIBRARIES = {"mkl": r"Kernel Library Version ([\w.]+)", "onednn": r"MKL-DNN v([\w.]+)"}


def git(*arguments: str) -> str | None:
    """What git says of the checkout that this code runs from.

    ``None`` if the package is installed, even if it is installed inside another checkout.
    """
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


@cache
def code() -> dict[str, Any]:
    """The code of this package: the commit, whether files differ from it, and a checksum of all
    files that are run. The code does not change while a process runs, so it is read once.
    """
    files = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".cpp", ".h")]
    content = hashlib.sha256()
    for path in sorted(files):
        content.update(f"{path.relative_to(PACKAGE).as_posix()}\0".encode() + path.read_bytes())
    changes = git("status", "--porcelain", "--", "supernet", "conf")
    return {
        "git_commit": git("rev-parse", "HEAD"),
        "git_changes": None if changes is None else bool(changes),
        "code": content.hexdigest()[:16],
    }


def processor() -> dict[str, Any]:
    """The name of the processor, the sizes of its caches, and the features that torch looks at to
    choose its instructions. Old versions of torch do not know them.
    """
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    numbers = dict(re.findall(r"^(?:cpu )?(family|model)\s*:\s*(\d+)$", cpuinfo(), re.M))
    sizes = {name.partition("_")[0]: known[name] for name in known if name.endswith("_size")}
    return {
        "name": ", ".join(
            [str(known.get("cpu_name", platform.processor())), *map(" ".join, numbers.items())]
        ),
        "caches": ", ".join(f"{name} {sizes[name]} bytes" for name in sorted(sizes)),
        "features": " ".join(sorted(name for name, has in known.items() if has is True)),
        "used_by_torch": torch.backends.cpu.get_cpu_capability(),
    }


def cpuinfo() -> str:
    path = Path("/proc/cpuinfo")  # on Linux
    return path.read_text(encoding="utf-8") if path.exists() else ""


def environment(device: torch.device, threads: int | None = None) -> dict[str, Any]:
    """The versions and the hardware of this process, as a value that JSON can hold.

    ``threads`` is the number of CPU threads of a run; ``None`` means the number that torch chose.
    """
    built = {name: re.search(text, torch.__config__.show()) for name, text in LIBRARIES.items()}
    return {
        "python": sys.version.split()[0],
        **{package: importlib.metadata.version(package) for package in PACKAGES},
        "platform": platform.platform(),
        "system": " ".join([platform.system(), platform.machine(), *platform.libc_ver()]),
        "device": describe(device),
        "libraries": {"torch": torch.__version__}
        | {name: found[1] for name, found in built.items() if found}
        | versions_of(device),
        "threads": threads or torch.get_num_threads(),
        "processor": processor(),
        "limits": {name: os.environ[name] for name in LIMITS if name in os.environ},
        "kernels": recipe(),
        **code(),
    }
