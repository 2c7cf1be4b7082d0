"""Checkpoints of a stage: atomic, checked on reading, written at an interval and when asked to
stop.
"""

import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from supernet.errors import UserError
from supernet.files import atomic

VERSION = 1


@dataclass
class Checkpoints:
    """The checkpoint file of each stage in ``folder``; :meth:`due` says when ``every_seconds`` have
    passed since the last.
    """

    folder: Path
    every_seconds: float = 60.0

    def __post_init__(self):
        self.folder = Path(self.folder)
        self._last = time.monotonic()

    def path(self, stage: str) -> Path:
        return self.folder / f"{stage.replace('/', '-')}.pt"

    def due(self) -> bool:
        return time.monotonic() - self._last >= self.every_seconds

    def save(self, stage: str, state: dict[str, Any]) -> Path:
        path = self.path(stage)
        with atomic(path) as temporary:
            try:
                torch.save({"version": VERSION, "stage": stage, **state}, temporary)
            except RuntimeError as error:  # what torch's writer raises where others raise OSError
                raise OSError("the disk seems to be full") from error
        self._last = time.monotonic()
        return path

    def load(self, stage: str, key: str) -> dict[str, Any] | None:
        """The last checkpoint of ``stage``, on the CPU; ``None`` if there is none.

        Raises:
            UserError: the file is damaged, or belongs to another version, stage, or configuration
            (``key``).
        """
        path = self.path(stage)
        if not path.exists():
            return None
        try:
            with zipfile.ZipFile(path) as archive:
                if (
                    archive.testzip() is not None
                ):  # torch does not look at the checksums that it writes
                    raise zipfile.BadZipFile
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file fails in as many ways as it has bytes
            raise UserError(
                f"checkpoint {path} is damaged ({type(error).__name__}); remove it to start the "
                f"stage {stage} anew"
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
                "or seed); "
                f"remove it to start the stage {stage} anew, or start in a new folder"
            )
        return state
