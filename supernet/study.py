"""A study: several methods with several seeds and one recipe, compared in one table."""

import dataclasses
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from supernet.checklist.practices import add_checklist
from supernet.config import Config, StudySettings, typed
from supernet.errors import UserError
from supernet.evaluate.published import Published, read_published
from supernet.evaluate.statistics import mean_and_interval
from supernet.files import write_json
from supernet.mixture import Architecture
from supernet.randomness import Streams
from supernet.run import Run
from supernet.runs.executor import Executor, Here
from supernet.runs.folder import State, remove_leftovers
from supernet.runs.job import Job
from supernet.runs.lock import held
from supernet.runs.setup import Setup
from supernet.runs.work import Work, counted_budget
from supernet.track.console import Labelled, Progress
from supernet.train.loop import StopRequest

Row = dict[str, Any]

SEARCHES = 1000  # random searches that are simulated in a published table


@dataclass(frozen=True, eq=False)
class StudyRun(Job):
    """One run of a study: one method with one seed, in a folder of its own.

    Its jobs run one after the other, because the other runs of the study use the other cores.
    """

    name: str  # the name of its subfolder
    settings: Row
    parent: str | None
    executor: Executor | None = None  # the study's executor, if cells do not run at once

    def inputs(self, work: Work) -> Row:
        return self.settings

    def compute(self, work: Work) -> Row:
        """The results of the run. With a published table, also the derived architecture."""
        setup, folder = Setup(typed(Config, self.settings, "")), work.folder / self.name
        folder.mkdir(exist_ok=True)
        with (
            held(folder),
            Run(
                setup,
                folder,
                parent=None if self.parent is None else Path(self.parent),
                executor=self.executor or Here(),
                progress=Labelled(work.progress, self.name),
                stop=work.stop,
            ) as run,
        ):
            if setup.config.study.published is None:
                run.run()
                return {"results": run.results()}
            architecture = run.derive()
            found = {
                "text": setup.space.encode(architecture),
                "parameter_free": free(setup, architecture),
            }
            return {"results": run.results(), "found": found}


def run(
    cells: dict[str, Config],
    folder: Path,
    executor: Executor,
    progress: Progress,
    stop: StopRequest,
    parent: Path | None = None,
) -> None:
    """Runs each cell in the subfolder of its name, and writes the comparison to ``results.json``.

    Finished runs are not repeated. ``parent`` is the folder of another study. A run of this study
    reuses what is still valid of the run with the same name there. With a published table, each run
    ends with its derivation.

    Raises:
        UserError: the table does not belong to the space, or runs failed. If runs failed, the
            others have ended first, and the message has the line that does what is missing.
    """
    remove_leftovers(folder)
    first = Setup(next(iter(cells.values())))
    settings, published, largest = first.config.study, None, ""
    if settings.published is not None:
        columns = (settings.target, settings.ranked_by)
        published = read_published("study.published", Path(settings.published), *columns)
        budget = counted_budget(first)
        # an early error if it is another space's
        largest = in_table(first, budget.largest("params"), published)
        if budget.limits:
            published = published.among(lambda text: budget.allows(first.space.decode(text)))
    # a latency that is measured beside other runs is that of a busy machine
    measures = any(config.budget.measures for config in cells.values())
    at_once = executor.workers > 1 and len(cells) > 1 and not measures
    parents = {name: parent_of(parent, name) for name in cells}
    jobs = [
        StudyRun(name, dataclasses.asdict(config), parents[name], None if at_once else executor)
        for name, config in cells.items()
    ]
    done: dict[str, Row] = {}
    failures: dict[str, str] = {}

    def failed(job: Job, line: str) -> None:
        failures[job.name] = line
        progress.message(f"{job.name} failed: {line}")

    for name, before in parents.items():  # so a run that has not begun remembers its parent
        if before is not None:
            State.begin(folder / name, Path(before))
    work = Work(first, State(folder), progress, stop)
    (executor if at_once else Here()).run(
        work, jobs, lambda job, found: done.update({job.name: found}), failed
    )
    found: list[Row] = []
    for name in [name for name in cells if name in done]:
        if published is not None:
            try:
                found.append(looked_up(first, done[name], published))
            except UserError as error:
                del done[name]
                failures[name] = str(error)
    results = [{"folder": name} | done[name]["results"] for name in cells if name in done]
    if published is not None:
        comparison = rows_of(found, results) + rivals(published, settings, largest)
        optimum = float(published.columns[settings.target].max()) / 100
        comparison = [row | {"regret": optimum - row["mean"]} for row in comparison]
    else:
        comparison = compare(results)
    value = {"schema": 1, "study": comparison, "runs": results, "found": found}
    write_json(folder / "results.json", value | ({"failed": failures} if failures else {}))
    add_checklist(folder)
    if comparison:
        progress.message(table(comparison))
    if failures:
        progress.message(failed_table(failures))
    progress.message(f"folder: {folder}")
    if failures:
        raise UserError(
            f"{len(failures)} of {len(cells)} runs failed ({', '.join(failures)}); when the cause "
            f"is mended, do what is missing with: supernet study from={shlex.quote(str(folder))}"
        )


def parent_of(parent: Path | None, name: str) -> str | None:
    """The folder of the same cell in another study, if it exists."""
    if parent is None or not (parent / name / "state.json").exists():
        return None
    return str(parent / name)


def compare(results: list[Row]) -> list[Row]:
    """One row for each method: the mean accuracy over the seeds, and the whole cost. The last row
    is the random architectures of all runs.
    """
    rows = rows_of([{"accuracy": result["retrain"]["mean"]} for result in results], results)
    # the random architectures depend on the seed only, and not on the method
    by_seed = {result["seed"]: result for result in results if "random_baseline" in result}
    chance = [
        accuracy
        for result in by_seed.values()
        for accuracy in result["random_baseline"]["accuracy"]
    ]
    return [*rows, row("random architectures", chance)] if chance else rows


def row(name: str, accuracies: list[float], seconds: float = 0.0) -> Row:
    mean, interval = mean_and_interval(accuracies)
    spread = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None
    return {
        "method": name,
        "runs": len(accuracies),
        "mean": mean,
        "ci95": interval,
        "sd": spread,
        "search_seconds": seconds,
    }


def rows_of(found: list[Row], results: list[Row]) -> list[Row]:
    """One row for each method, with the means over its architectures."""
    rows = []
    for method in dict.fromkeys(result["method"] for result in results):
        mine = [
            (one, result)
            for one, result in zip(found, results, strict=True)
            if result["method"] == method
        ]
        parts = ("search", "growth", "derive")
        seconds = sum(
            result[part]["seconds"] for _, result in mine for part in parts if part in result
        )
        shares = [one["parameter_free"] for one, _ in mine if "parameter_free" in one]
        rows.append(row(method, [one["accuracy"] for one, _ in mine], seconds))
        rows[-1] |= {"parameter_free": float(np.mean(shares))} if shares else {}
    return rows


def in_table(setup: Setup, architecture: Architecture, published: Published) -> str:
    """The text of an architecture, which must be in the table.

    Raises:
        UserError: it is not in the table.
    """
    where = f"study.published={setup.config.study.published}"
    return published.require(setup.space.encode(architecture), where, setup.space.name)


def looked_up(setup: Setup, done: Row, published: Published) -> Row:
    """The derived architecture of a run, and its published accuracy."""
    results, found = done["results"], done["found"]
    text = in_table(setup, setup.space.decode(found["text"]), published)
    return {
        "method": results["method"],
        "seed": results["seed"],
        "text": text,
        "accuracy": published.of([text], setup.config.study.target)[0] / 100,
        "parameter_free": found["parameter_free"],
    }


def free(setup: Setup, architecture: Architecture) -> float:
    """The share of an architecture's decisions that chose an option without parameters."""
    groups = setup.space.groups
    return setup.space.share(architecture, {group.name: group.parameter_free for group in groups})


def rivals(published: Published, settings: StudySettings, largest: str) -> list[Row]:
    """Comparisons from the same table: random search, the architecture with the most parameters,
    and the median.
    """
    accuracies = published.columns[settings.target]
    rng = Streams(0).host("rivals")
    found = published.random_search(
        settings.draws, settings.ranked_by, settings.target, SEARCHES, rng
    )
    return [
        row(
            f"random search, best of {settings.draws} by {settings.ranked_by}",
            [float(f) / 100 for f in found],
        ),
        row(
            "most parameters",
            [accuracy / 100 for accuracy in published.of([largest], settings.target)],
        ),
        row("median architecture", [float(np.median(accuracies)) / 100]),
    ]


def table(rows: list[Row]) -> Table:
    looked_up = "regret" in rows[0]
    result = Table(
        "method",
        "runs",
        "published accuracy" if looked_up else "accuracy from scratch",
        "95% interval",
    )
    for name in (["sd", "regret", "parameter-free"] if looked_up else []) + ["search seconds"]:
        result.add_column(name)
    for one in rows:
        cells = [
            one["method"],
            str(one["runs"]),
            f"{one['mean']:.2%}",
            dash(one["ci95"], lambda ci: "{:.2%} to {:.2%}".format(*ci)),
        ]
        cells += (
            [dash(one.get(name), "{:.2%}".format) for name in ("sd", "regret", "parameter_free")]
            if looked_up
            else []
        )
        result.add_row(*cells, f"{one['search_seconds']:.1f}")
    return result


def failed_table(failures: dict[str, str]) -> Table:
    """The runs that failed, and why."""
    result = Table("failed run", "why")
    for name, line in failures.items():
        result.add_row(escape(name), escape(line))
    return result


def dash(value: Any, shown: Callable[[Any], str]) -> str:
    return "–" if value is None else shown(value)
