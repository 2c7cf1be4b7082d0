"""Helpers for tests of training: a tracker whose rows can be read, and stages that are stopped or
crash.
"""

import signal
from collections.abc import Callable

from supernet.track.interface import Tracker
from supernet.train.checkpoint import Checkpoints
from supernet.train.loop import Stage, Stopped, StopRequest, run_stage

NEVER = 1e9  # seconds between checkpoints


class Rows(Tracker):
    """A tracker that keeps its rows in a list. The list outlives the tracker, as a file outlives a
    process.
    """

    def __init__(self, rows: list):
        self.rows = rows

    def log(self, stage, step, metrics):
        self.rows.append((stage, step, dict(metrics)))

    def state_dict(self):
        return {"rows": len(self.rows)}

    def load_state_dict(self, state):
        del self.rows[state["rows"] :]


def after(stage: Stage, steps: int, do: Callable[[], None]) -> Stage:
    """``stage``, changed so that it calls ``do`` at the end of its step number ``steps``."""
    step = stage.step

    def counted(index):
        figures = step(index)
        if index + 1 == steps:
            do()
        return figures

    stage.step = counted
    return stage


def straight(stage: Stage) -> list:
    """Runs a stage without checkpoints; returns its rows."""
    rows = []
    run_stage(stage, tracker=Rows(rows), log_every=2)
    return rows


def stopped_and_resumed(make: Callable[[], Stage], steps: int, folder) -> tuple[Stage, list]:
    """Stops a stage after ``steps`` and resumes with a new stage. Returns the new stage when it is
    finished, and the rows.
    """
    rows, stop = [], StopRequest()
    stage = after(make(), steps, lambda: stop._receive(signal.SIGTERM, None))
    try:
        run_stage(stage, Checkpoints(folder, NEVER), Rows(rows), stop=stop, log_every=2)
    except Stopped as stopped:
        assert stopped.signum == signal.SIGTERM
    else:
        raise AssertionError("it did not stop")
    stage = make()
    cost = run_stage(stage, Checkpoints(folder, NEVER), Rows(rows), log_every=2)
    assert cost.steps == stage.steps
    return stage, rows
