"""The job that makes a latency table: the user's own, or measured on this device."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supernet.cost.latency import Bench, latency_error, measured, read_table, write_table
from supernet.cost.table import CostTable
from supernet.randomness import Streams
from supernet.runs.folder import copy
from supernet.runs.job import Job

if TYPE_CHECKING:
    from supernet.runs.work import Work

FILE = "latency.csv"  # in the run's folder; a continued run reads it, so that it computes the same


@dataclass(frozen=True)
class Latency(Job):
    """Measures how long each operation takes and compares the sums with whole networks."""

    name = "latency"

    def inputs(self, work: "Work") -> dict[str, Any]:
        config, task = work.config, work.setup.task
        return {
            "space": work.setup.settings["space"],
            "device": config.device,
            "threads": config.threads,
            "table": config.budget.latency_table,
            "batch": config.budget.latency_batch,
            "task": [task.outputs, *task.input_shape],
        }

    def compute(self, work: "Work") -> dict[str, Any]:
        table, result = made(work)
        write_table(work.folder / FILE, table)
        return result

    def take_over(self, work: "Work", result: dict[str, Any]) -> None:
        if not (work.folder / FILE).exists():
            assert work.state.parent is not None
            copy(Path(work.state.parent) / FILE, work.folder / FILE)


def latency_table(work: "Work") -> CostTable:
    """The table of the run. If no run was begun (``supernet check``), the table is made now."""
    if work.state.plan is not None and work.result(Latency()) is not None:
        return read_table(work.folder / FILE, work.space)
    return made(work)[0]


def made(work: "Work") -> tuple[CostTable, dict[str, Any]]:
    """The table, and a record of it."""
    settings, started = work.config.budget, time.perf_counter()
    if settings.latency_table is not None:
        table = read_table(Path(settings.latency_table), work.space)
        result: dict[str, Any] = {"table": settings.latency_table}
    else:
        bench = Bench(
            work.space,
            work.setup.task,
            work.setup.device,
            Streams(work.config.seed),
            settings.latency_batch,
        )
        with work.progress.stage("latency", 2) as update:
            table = measured(bench)
            update(1, {})
            error = latency_error(table, bench)
            update(2, {})
        result = dataclasses.asdict(error)
    return table, result | {"seconds": time.perf_counter() - started}
