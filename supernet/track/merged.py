"""The rows of several jobs as one sequence, each passed on once, in the order in which they come.

Each job writes its rows into a file of its own (``metrics/JOB.jsonl``), which it cuts when it goes
on from a checkpoint. The rows that it then writes again are the same, to the last bit, so that what
was passed on before still holds, and is not passed on again.
"""

import math
from collections import Counter
from pathlib import Path
from typing import Any

from supernet.track.interface import Tracker
from supernet.track.jsonlines import JsonLines, read_rows, rows_from


class Merged:
    """Follows the files of the jobs in ``folder`` and logs what is new to ``tracker``."""

    def __init__(self, folder: Path, tracker: Tracker):
        self.folder, self.tracker = folder, tracker
        self.passed: Counter[str] = Counter()  # rows of each file that were passed on
        self.read: dict[str, tuple[int, int]] = {}  # of each file, the bytes and rows read

    def begin(self) -> dict[str, Any]:
        """The state with which trackers start: ``metrics.jsonl`` is continued where it ends."""
        path = self.folder / "metrics.jsonl"
        self.passed = Counter(file_of(row["stage"]) for row in read_rows(path))
        size = path.stat().st_size if path.exists() else 0
        return {JsonLines.__name__: {"bytes": size}}

    def follow(self) -> None:
        """Passes on what is new."""
        for path in sorted((self.folder / "metrics").glob("*.jsonl")):
            start, number = self.read.get(path.name, (0, 0))
            size = path.stat().st_size
            if size < start:  # the job has gone back to its checkpoint
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
    """The figures of a row; what was not finite is null in a file, and not a number here."""
    return {name: math.nan if value is None else value for name, value in row.items()}


def file_of(stage: str) -> str:
    """The name of the file in which a job of that name logs."""
    return f"{stage.replace('/', '-')}.jsonl"
