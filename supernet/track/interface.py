"""What a tracker is: it takes flat rows of scalars, a summary and artifacts, and can go on where a
checkpoint was written.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Tracker:
    """A tracker that keeps nothing; the others override what they need."""

    def start(
        self, folder: Path, config: Mapping[str, Any], state: Mapping[str, Any] | None = None
    ) -> None:
        """Begins, or goes on from ``state`` (an earlier :meth:`state_dict`), in a run's folder.

        Raises:
            UserError: it cannot; said before any training.
        """

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Takes one row: scalars after ``step`` steps of ``stage`` (``search``, ``retrain/0``,
        ...).
        """

    def summary(self, values: Mapping[str, Any]) -> None:
        """Takes the final figures of the run; may be nested."""

    def artifact(self, name: str, kind: str, paths: Sequence[Path]) -> None:
        """Takes files that the run has made."""

    def state_dict(self) -> dict[str, Any]:
        """The place reached so far; every row up to here is on disk when this returns."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to the place of :meth:`state_dict`: what was logged after it will be logged
        again, and must not count twice.
        """

    def close(self, exit_code: int = 0) -> None:
        """Ends; 0 means that all went well."""


@dataclass
class NoTracker(Tracker):
    """``tracker=none``: nothing beyond the files that are always written."""


class Trackers(Tracker):
    """Several trackers as one, asked in their order. The state is kept by class, so that a run can
    go on with other trackers.
    """

    def __init__(self, trackers: Sequence[Tracker]):
        self.trackers = list(trackers)

    def start(
        self, folder: Path, config: Mapping[str, Any], state: Mapping[str, Any] | None = None
    ) -> None:
        for tracker in self.trackers:
            tracker.start(folder, config, (state or {}).get(type(tracker).__name__))

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        for tracker in self.trackers:
            tracker.log(stage, step, metrics)

    def summary(self, values: Mapping[str, Any]) -> None:
        for tracker in self.trackers:
            tracker.summary(values)

    def artifact(self, name: str, kind: str, paths: Sequence[Path]) -> None:
        for tracker in self.trackers:
            tracker.artifact(name, kind, paths)

    def state_dict(self) -> dict[str, Any]:
        return {type(tracker).__name__: tracker.state_dict() for tracker in self.trackers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for tracker in self.trackers:
            if type(tracker).__name__ in state:
                tracker.load_state_dict(state[type(tracker).__name__])

    def close(self, exit_code: int = 0) -> None:
        with ExitStack() as stack:  # each is closed even if another one fails
            for tracker in self.trackers:
                stack.callback(tracker.close, exit_code)
