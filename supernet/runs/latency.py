"""The job that makes a latency table: the user's own, or measured on this device."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supernet.cost.latency import Bench, latency_error, measured, read_table, write_table
from supernet.cost.table import CostTable
from supernet.randomness import Streams
from supernet.runs.folder import LATENCIES, copy
from supernet.runs.job import Job
from supernet.runs.setup import Setup
from supernet.track.console import Progress

if TYPE_CHECKING:
    from supernet.runs.work import Work


@dataclass(frozen=True)
class Latency(Job):
    """Measures how long each operation takes and compares the sums with whole networks."""

    name = "latency"

    def inputs(self, work: "Work") -> dict[str, Any]:
        config, task = work.config, work.setup.task
        return {
            **work.setup.of("space"),
            "device": config.device,
            "threads": config.threads,
            "table": work.setup.of("budget")["budget"]["latency_table"],
            "batch": config.budget.latency_batch,
            "task": [task.outputs, *task.input_shape],
        }

    def compute(self, work: "Work") -> dict[str, Any]:
        table, result = made(work.setup, work.progress)
        write_table(work.folder / LATENCIES, table)
        return result

    def take_over(self, work: "Work", result: dict[str, Any]) -> None:
        assert work.state.parent is not None
        copy(Path(work.state.parent) / LATENCIES, work.folder / LATENCIES)


def made(setup: Setup, progress: Progress) -> tuple[CostTable, dict[str, Any]]:
    """The table, and a record of it."""
    settings, started = setup.config.budget, time.perf_counter()
    if settings.latency_table is not None:
        table = read_table(Path(settings.latency_table), setup.space)
        result: dict[str, Any] = {"table": settings.latency_table}
    else:
        bench = Bench(
            setup.space,
            setup.task,
            setup.device,
            Streams(setup.config.seed),
            settings.latency_batch,
        )
        with progress.stage("latency", 2) as update:
            table = measured(bench)
            update(1, {})
            error = latency_error(table, bench)
            update(2, {})
        result = dataclasses.asdict(error)
    return table, result | {"seconds": time.perf_counter() - started}
