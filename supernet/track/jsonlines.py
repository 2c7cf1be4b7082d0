"""Rows as JSON lines, such as ``{"stage": "search", "step": 12, "loss": 1.5}``.

A value that is not finite is written as null, because JSON has no NaN.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from supernet.errors import UserError
from supernet.files import from_json
from supernet.shapes import LogPlace, Row, checked
from supernet.track.interface import Tracker


class JsonLines(Tracker):
    """Writes one line for each row and passes it to the operating system at once.

    The state is the length of the file in bytes. A file is longer than its state if rows were
    written after the checkpoint, or if the last write was incomplete. It is then cut to that
    length, but only when the next row is written: reading a run never changes its files.
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
        self._length = checked(state, LogPlace, f"the state of {self.path}")["bytes"]

    def close(self, exit_code: int = 0) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @contextmanager
    def _writing(self) -> Iterator[BinaryIO]:
        """The open file, ready for the next row.

        Raises:
            UserError: the file cannot be written.
        """
        try:
            if self._file is None:
                # Not its parents: if the folder of the run was deleted, it stays deleted.
                self.path.parent.mkdir(exist_ok=True)
                self._file = open(self.path, "a+b")  # noqa: SIM115 (open until close())
                self._file.seek(0)
                kept = self._file.read(self._length)
                # whole lines only: somebody else may have shortened the file
                self._length = kept.rfind(b"\n") + 1
                self._file.truncate(self._length)
            yield self._file
        except OSError as error:
            with suppress(OSError):  # close() tries again to write what is still in the buffer
                self.close()
            self._file = None
            raise UserError(
                f"cannot write {self.path}: {error.strerror or error}; free some space and resume"
            ) from error


def number(value: Any) -> int | float | None:
    """``value`` as a plain number; ``None`` if it is NaN or infinite."""
    if isinstance(value, int):
        return value
    value = float(value)
    return value if math.isfinite(value) else None


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of a file, without an incomplete last line. A missing file has no rows.

    Raises:
        UserError: a complete line is not JSON, or is not a row.
    """
    return rows_from(Path(path), 0)[0] if Path(path).exists() else []


def rows_from(path: Path, start: int) -> tuple[list[dict[str, Any]], int]:
    """The complete rows of a file from the byte ``start`` on, and the byte at which they end.

    Raises:
        UserError: a line is not JSON, or is not a row.
    """
    with open(path, "rb") as file:
        file.seek(start)
        content = file.read()
    whole = content[: content.rfind(b"\n") + 1]  # without an incomplete last line
    try:
        rows = [from_json(line) for line in whole.splitlines()]
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it or remove it") from error
    return checked(rows, list[Row], path), start + len(whole)
