"""Rows as JSON lines: ``{"stage": "search", "step": 12, "loss": 1.5}``; what is not finite is null,
for every reader.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from supernet.errors import UserError
from supernet.track.interface import Tracker


class JsonLines(Tracker):
    """Writes one line a row, and passes it to the system at once.

    The state is the length in bytes. A file that is longer, because rows came after the checkpoint
    that the run goes on from or because the last write was torn, is cut to that length, but only
    when the next row is written: reading a run never changes it.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._length = 0
        self._file: BinaryIO | None = None

    def start(
        self, folder: Path, config: Mapping[str, Any], state: Mapping[str, Any] | None = None
    ) -> None:
        self.load_state_dict(state or {"bytes": 0})

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        row = {"stage": stage, "step": step} | {
            name: number(value) for name, value in metrics.items()
        }
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        with self._writing() as file:
            file.write(line)
            file.flush()
            self._length += len(line)

    def state_dict(self) -> dict[str, Any]:
        if self._file is not None:
            with self._writing() as file:
                os.fsync(file.fileno())
        return {"bytes": self._length}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.close()
        self._length = state["bytes"]

    def close(self, exit_code: int = 0) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @contextmanager
    def _writing(self) -> Iterator[BinaryIO]:
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = open(self.path, "a+b")  # noqa: SIM115 (open until close())
                self._file.seek(0)
                kept = self._file.read(self._length)
                self._length = (
                    kept.rfind(b"\n") + 1
                )  # whole lines only, should the file have been shortened by someone else
                self._file.truncate(self._length)
            yield self._file
        except OSError as error:
            with suppress(OSError):  # what could not be written is still in the buffer
                self.close()
            self._file = None
            raise UserError(
                f"cannot write {self.path}: {error.strerror or error}; free some space and resume"
            ) from error


def number(value: Any) -> int | float | None:
    """A plain number; ``None`` for NaN and the infinities."""
    if isinstance(value, int):
        return value
    value = float(value)
    return value if math.isfinite(value) else None


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of a file; none if there is no file; a torn last line is left out.

    Raises:
        UserError: another line is not JSON.
    """
    return rows_from(Path(path), 0)[0] if Path(path).exists() else []


def rows_from(path: Path, start: int) -> tuple[list[dict[str, Any]], int]:
    """The whole rows of a file from the byte ``start`` on, and the byte at which they end.

    Raises:
        UserError: a line is not JSON.
    """
    with open(path, "rb") as file:
        file.seek(start)
        content = file.read()
    whole = content[: content.rfind(b"\n") + 1]  # what follows is a torn line, or nothing
    try:
        return [json.loads(line) for line in whole.splitlines()], start + len(whole)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); restore it or remove it") from error
