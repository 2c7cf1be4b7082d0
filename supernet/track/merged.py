"""Merges the rows of several jobs into one sequence, in the order in which they arrive.

Each job writes its rows to a file of its own (``metrics/JOB.jsonl``). When it resumes from a
checkpoint, it cuts this file and writes some rows again. These have the same bits as before, so
rows that were already passed on stay valid, and no row is passed on twice.
"""

import math
from collections import Counter
from pathlib import Path
from typing import Any

from supernet.track.interface import Tracker
from supernet.track.jsonlines import JsonLines, read_rows, rows_from


class Merged:
    """Reads the files of the jobs in ``folder`` and logs new rows to ``tracker``."""

    def __init__(self, folder: Path, tracker: Tracker):
        self.folder, self.tracker = folder, tracker
        self.passed: Counter[str] = Counter()  # file -> how many of its rows were passed on
        self.read: dict[str, tuple[int, int]] = {}  # file -> how many bytes and rows were read

    def begin(self) -> dict[str, Any]:
        """The state with which the trackers start: ``metrics.jsonl`` continues at its end."""
        path = self.folder / "metrics.jsonl"
        self.passed = Counter(file_of(row["stage"]) for row in read_rows(path))
        size = path.stat().st_size if path.exists() else 0
        return {JsonLines.__name__: {"bytes": size}}

    def follow(self) -> None:
        """Passes on the rows that the jobs have written since the last call."""
        for path in sorted((self.folder / "metrics").glob("*.jsonl")):
            start, number = self.read.get(path.name, (0, 0))
            size = path.stat().st_size
            if size < start:  # the job went back to its checkpoint and cut the file
                start, number = 0, 0
            if size == start:
                continue
            rows, end = rows_from(path, start)
            for row in rows:
                number += 1
                if number > self.passed[path.name]:
                    self.passed[path.name] = number
                    self.tracker.log(row.pop("stage"), row.pop("step"), numbers(row))
            self.read[path.name] = end, number


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """The figures of a row. A file has null for a figure that is not finite; here it is NaN."""
    return {name: math.nan if value is None else value for name, value in row.items()}


def file_of(stage: str) -> str:
    """The name of the file that the rows of the job ``stage`` are written to."""
    return f"{stage.replace('/', '-')}.jsonl"
