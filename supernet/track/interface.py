"""The interface of a tracker.

A tracker takes rows of scalars, a summary and artifacts (files). It can continue from the place at
which a checkpoint was written.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Tracker:
    """A tracker that keeps nothing. Other trackers override the methods that they need."""

    def start(
        self, folder: Path, config: Mapping[str, Any], state: Mapping[str, Any] | None = None
    ) -> None:
        """Begins in the ``folder`` of a run, or continues from ``state``, an earlier
        :meth:`state_dict`. It is called before any training.

        Raises:
            UserError: the tracker cannot start.
        """

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Takes one row: the metrics after ``step`` steps of ``stage`` (``search``, ``retrain/0``,
        ...).
        """

    def summary(self, values: Mapping[str, Any]) -> None:
        """Takes the final figures of the run. They may be nested."""

    def artifact(self, name: str, kind: str, paths: Sequence[Path]) -> None:
        """Takes files that the run has written; W&B calls such a group of files an artifact."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Takes a table of texts. It replaces an earlier one of the same name."""

    def state_dict(self) -> dict[str, Any]:
        """The place that has been reached. Every row so far is on disk when this returns."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to the place of a :meth:`state_dict`. Rows that were logged after it will be
        logged again and must not count twice.
        """

    def close(self, exit_code: int = 0) -> None:
        """Ends the tracker. ``exit_code`` 0 means that the run succeeded."""


@dataclass
class NoTracker(Tracker):
    """The tracker of ``tracker=none``. It adds nothing to the files that every run writes."""


class Trackers(Tracker):
    """Several trackers as one. Each call goes to all of them, in their order.

    The state is stored by the name of the class, so that a resumed run can have other trackers.
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

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        for tracker in self.trackers:
            tracker.table(name, columns, rows)

    def state_dict(self) -> dict[str, Any]:
        return {type(tracker).__name__: tracker.state_dict() for tracker in self.trackers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for tracker in self.trackers:
            if type(tracker).__name__ in state:
                tracker.load_state_dict(state[type(tracker).__name__])

    def close(self, exit_code: int = 0) -> None:
        with ExitStack() as stack:  # closes every tracker, even if closing another one fails
            for tracker in self.trackers:
                stack.callback(tracker.close, exit_code)
