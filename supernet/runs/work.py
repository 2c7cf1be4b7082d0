"""What a job works with: the parts of the run, its folder, and the results of other jobs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from supernet.cost.budget import Budget
from supernet.cost.latency import read_table
from supernet.cost.table import CostTable
from supernet.mixture import Architecture
from supernet.runs.folder import LATENCIES, State, rows_path
from supernet.runs.job import Job, key_of_job
from supernet.runs.setup import Setup
from supernet.track.console import Progress
from supernet.track.jsonlines import JsonLines
from supernet.train.checkpoint import Checkpoints
from supernet.train.loop import Stage, StageCost, StopRequest, run_stage


class Work:
    """A run as its jobs see it, in any process. It reads the state of the run and never writes it.

    ``on_row`` is called after each row that a job logs here. ``at_once`` is how many jobs could run
    at once: a job that runs alone may use as many threads to judge.
    """

    def __init__(
        self,
        setup: Setup,
        state: State,
        progress: Progress | None = None,
        stop: StopRequest | None = None,
        on_row: Callable[[], None] = lambda: None,
        at_once: int = 1,
    ):
        self.setup, self.config, self.space = setup, setup.config, setup.space
        self.state, self.folder = state, Path(state.folder)
        self.progress, self.stop = progress or Progress(quiet=True), stop or StopRequest()
        self.on_row, self.at_once = on_row, at_once
        self.keys: dict[Job, str] = {}
        self.checkpoints = Checkpoints(
            self.folder / "checkpoints",
            self.config.checkpoint.every_seconds,
            state.require_there,
        )

    def key(self, job: Job) -> str:
        """The key of a job; see :func:`~supernet.runs.job.key_of_job`."""
        if job not in self.keys:
            self.keys[job] = key_of_job(job, self)
        return self.keys[job]

    def result(self, job: Job) -> Any:
        """The result of a job, a JSON value; ``None`` if it is not finished."""
        return self.state.result(job.name, self.key(job))

    @cached_property
    def budget(self) -> Budget:
        """The limits on architectures: in the search, for random ones, and in the derivation.

        Raises:
            UserError: it needs the latency table of the run, which is not there.
        """
        tables: dict[str, CostTable] = {}
        if self.config.budget.measures:
            tables["latency_ms"] = read_table(self.folder / LATENCIES, self.space)
        return budget_of(self.setup, tables)

    def same(self, architecture: Architecture) -> Architecture:
        """The architecture that stands for all that count as the same; see ``distinct``."""
        return self.space.canonical(architecture) if self.config.distinct else architecture

    def different(self, rng: np.random.Generator, wanted: int) -> list[Architecture]:
        """Different random architectures within the budget: as many as ``wanted``, or as are found
        in a hundred times as many draws.
        """
        found: dict[Architecture, Architecture] = {}
        for _ in range(100 * wanted):
            if len(found) == wanted:
                break
            architecture = self.budget.random(rng)
            found.setdefault(self.same(architecture), architecture)
        return list(found.values())

    @contextmanager
    def rows(self, name: str) -> Iterator["Rows"]:
        """The file in which the job of that name logs its rows."""
        rows = Rows(rows_path(self.folder, name), self.on_row)
        try:
            yield rows
        finally:
            rows.close()

    def train(self, stage: Stage, rows: "Rows | None" = None) -> StageCost:
        """Trains a stage to its end. It starts from the last checkpoint of the stage if there is
        one.
        """
        with nullcontext(rows) if rows is not None else self.rows(stage.name) as log:
            return run_stage(stage, self.checkpoints, log, self.progress, self.stop)


class Rows(JsonLines):
    """The rows of one job. ``on_row`` is called after each."""

    def __init__(self, path: Path, on_row: Callable[[], None]):
        super().__init__(path)
        self.on_row = on_row

    def log(self, stage: str, step: int, metrics: Any) -> None:
        super().log(stage, step, metrics)
        self.on_row()


def budget_of(setup: Setup, tables: dict[str, CostTable]) -> Budget:
    """The limits of a configuration. ``tables`` are the costs that were measured."""
    return Budget(setup.space, setup.task, setup.config.budget.limits(), tables)


def counted_budget(setup: Setup) -> Budget:
    """The limits of a configuration that are counted, and not measured."""
    limits = setup.config.budget.limits()
    return Budget(
        setup.space, setup.task, {name: limits[name] for name in limits if name != "latency_ms"}
    )
