"""The versions and the hardware that a run uses. They are recorded beside its figures."""

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from supernet.device import describe

PACKAGES = (
    "supernet",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "hydra-core",
    "wandb",
    "onnx",
    "onnxruntime",
)


def git_commit() -> str | None:
    """The commit of the checkout that this code runs from.

    ``None`` if the package is installed, even if it is installed inside another checkout.
    """
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def environment(device: torch.device, threads: int | None = None) -> dict[str, Any]:
    """The versions and the hardware of this process, as a value that JSON can hold.

    ``threads`` is the number of CPU threads of a run; ``None`` means the number that torch chose.
    """
    return {
        "python": sys.version.split()[0],
        **{package: importlib.metadata.version(package) for package in PACKAGES},
        "platform": platform.platform(),
        "device": describe(device),
        "threads": threads or torch.get_num_threads(),
        "git_commit": git_commit(),
    }
