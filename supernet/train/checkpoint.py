"""The checkpoint files of the training stages.

A checkpoint is written atomically, and its checksums are verified when it is read. The training
loop decides when to write one.
"""

import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from supernet.errors import UserError
from supernet.files import atomic

VERSION = 1


@dataclass
class Checkpoints:
    """The checkpoint files in ``folder``, one for each stage.

    :meth:`due` says whether ``every_seconds`` have passed since the last checkpoint was written.
    ``before_save`` is called before a file is written; it may raise a UserError.
    """

    folder: Path
    every_seconds: float = 60.0
    before_save: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        self._last = time.monotonic()

    def path(self, stage: str) -> Path:
        return self.folder / f"{stage.replace('/', '-')}.pt"

    def due(self) -> bool:
        return time.monotonic() - self._last >= self.every_seconds

    def save(self, stage: str, state: dict[str, Any]) -> Path:
        self.before_save()
        path = self.path(stage)
        with atomic(path) as temporary:
            try:
                torch.save({"version": VERSION, "stage": stage, **state}, temporary)
            except RuntimeError as error:  # torch raises this where other writers raise OSError
                raise OSError("the disk seems to be full") from error
        self._last = time.monotonic()
        return path

    def load(self, stage: str, key: str) -> dict[str, Any] | None:
        """The last checkpoint of ``stage``, with its tensors on the CPU; ``None`` if there is none.

        Raises:
            UserError: the file is damaged, or it was written by another version, for another stage,
                or with another ``key`` (other settings).
        """
        path = self.path(stage)
        if not path.exists():
            return None
        try:
            with zipfile.ZipFile(path) as archive:
                # torch writes checksums but does not verify them when it reads
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file can raise almost any exception
            raise UserError(
                f"checkpoint {path} is damaged ({type(error).__name__}); restore it, or remove it "
                f"and give the same command again, which then runs {stage} anew"
            ) from error
        if (
            not isinstance(state, dict)
            or state.get("version") != VERSION
            or state.get("stage") != stage
        ):
            raise UserError(
                f"{path} is not a version {VERSION} checkpoint of the stage {stage}; remove it"
            )
        if state.get("key") != key:
            raise UserError(
                f"checkpoint {path} was written with other settings (another space, method, data "
                f"or seed); remove it to start the stage {stage} anew, or start in a new folder"
            )
        return state
