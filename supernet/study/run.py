"""Runs the cells of a study, and compares what they found."""

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from supernet.checklist.practices import add_checklist
from supernet.config import Config, typed
from supernet.cost.rivals import rival
from supernet.errors import UserError
from supernet.files import read_json, write_json
from supernet.report.comparison import of_study
from supernet.run import Run, same_computation
from supernet.runs.executor import Executor, Here
from supernet.runs.folder import State, empty, remove_leftovers
from supernet.runs.job import Job
from supernet.runs.lock import held
from supernet.runs.setup import Setup
from supernet.runs.tables import track
from supernet.runs.work import Work, counted_budget
from supernet.shapes import Candidates, read
from supernet.study.cells import Cell
from supernet.study.comparison import Outcome, Row, compare
from supernet.study.cost import candidates
from supernet.study.published import Lookup, free
from supernet.study.tables import failed_table, tables
from supernet.track.console import Labelled, Progress
from supernet.train.loop import StopRequest

KIND = ("entry", "rival", "base", "share")  # what a run is, in ``results.json``
TRAINED = ("retrain", "random_baseline", "rivals", "found_minus_random")  # parts of a run's results
CANDIDATES = "candidates.json"  # how many architectures each rival at equal cost tries

Prepare = Callable[[Sequence[Cell]], Mapping[str, Config]]


@dataclass(frozen=True, eq=False)
class StudyRun(Job):
    """One run of a study, in a folder of its own.

    Its jobs run one after the other, because the other runs of the study use the other cores.
    """

    name: str  # the name of its subfolder
    settings: Row
    parent: str | None
    executor: Executor | None = None  # the study's executor, if cells do not run at once
    exports: bool = True  # whether it writes the network that it has trained

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
                if self.exports:
                    run.run()
                else:
                    run.retrain(restored=False)
                    run.report()
                return {"results": run.results()}
            architecture = run.derive()
            found = {
                "text": setup.space.encode(architecture),
                "parameter_free": free(setup, architecture),
            }
            return {"results": run.results(), "found": found}


@dataclass
class Study:
    """A study while it runs. ``prepare`` composes the configurations of cells and records them."""

    folder: Path
    executor: Executor
    progress: Progress
    stop: StopRequest
    prepare: Prepare
    parent: Path | None = None
    done: dict[str, Row] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def perform(self, cells: Sequence[Cell], configs: Mapping[str, Config]) -> None:
        """Runs cells that do not need each other, at once if possible. Finished ones are not run
        again. A cell that fails does not end the others.
        """
        # a latency that is measured beside other runs is that of a busy machine
        measures = any(config.budget.measures for config in configs.values())
        at_once = self.executor.workers > 1 and len(cells) > 1 and not measures
        parents = {name: parent_of(self.parent, name) for name in configs}
        inner = None if at_once else self.executor
        exports = {cell.name: cell.method for cell in cells}
        jobs = [
            StudyRun(name, dataclasses.asdict(config), parents[name], inner, exports[name])
            for name, config in configs.items()
        ]
        for name, before in parents.items():  # so a run that has not begun remembers its parent
            if before is not None:
                State.begin(self.folder / name, Path(before))
        first = Setup(next(iter(configs.values())))
        work = Work(first, State(self.folder), self.progress, self.stop)
        executor = self.executor if at_once else Here()
        executor.run(
            work, jobs, lambda job, found: self.done.update({job.name: found}), self.failed
        )

    def failed(self, job: Job, line: str) -> None:
        self.failures[job.name] = line
        self.progress.message(f"{job.name} failed: {line}")

    def ready(self, cells: Sequence[Cell]) -> list[Cell]:
        """Those of the waiting cells whose other cells are done, with what they need of them. The
        others have failed.
        """
        found, path = [], self.folder / CANDIDATES
        known: dict[str, Row] = read(path, Candidates) if path.exists() else {}
        for cell in filter(lambda one: one.waits, cells):
            needed = cell.needed(cells)
            if missing := [one.name for one in needed if one.name not in self.done]:
                self.failures[cell.name] = f"waits for {', '.join(missing)}"
            else:
                changes = {**cell.changes, **self.learnt(cell, needed, known)}
                found.append(replace(cell, changes=changes))
        if known:  # seconds differ each time, so this is decided once for the same methods' runs
            write_json(path, known)
        return found

    def learnt(self, cell: Cell, needed: Sequence[Cell], known: dict[str, Row]) -> dict[str, str]:
        """What a waiting cell had to wait for, as settings: the number of its candidates, which is
        added to what is ``known``, or an architecture.
        """
        if cell.equal_cost:
            name, of = "-".join([*cell.group, cell.entry]), sorted(one.name for one in needed)
            if name not in known or known[name]["of"] != of:
                (config,) = self.prepare([cell]).values()
                number = candidates(config, [self.done[one]["results"] for one in of])
                known[name] = {"candidates": number, "of": of}
            return {"searcher.candidates": str(known[name]["candidates"])}
        if (found := cell.trained_again) is not None:
            # as text, and no path, so that the study can be moved
            return {"architecture": self.done[found.name]["results"]["architecture"]["text"]}
        setup = Setup(self.prepare([cell])[cell.name])
        return {"architecture": setup.space.encode(rival(cell.entry, counted_budget(setup)))}

    def cleared(self, cells: Sequence[Cell], configs: Mapping[str, Config]) -> list[Cell]:
        """The rivals at equal cost that have tried another number of architectures, with their
        folders made empty.
        """
        found = []
        for cell in filter(lambda one: one.equal_cost, cells):
            folder = self.folder / cell.name
            if not same_computation(Setup(configs[cell.name]), folder):
                self.progress.message(f"{cell.name} begins again: it may try another number")
                with held(folder):
                    empty(folder)
                found.append(cell)
        return found


def run(
    cells: Sequence[Cell],
    folder: Path,
    executor: Executor,
    progress: Progress,
    stop: StopRequest,
    prepare: Prepare,
    parent: Path | None = None,
) -> None:
    """Runs each cell in the subfolder of its name, and writes the comparison to ``results.json``
    and ``report.html``.

    Finished runs are not repeated. ``parent`` is the folder of another study. A run of this study
    reuses what is still valid of the run with the same name there. With a published table, each run
    ends with its derivation.

    Raises:
        UserError: the table does not belong to the space, or runs failed. If runs failed, the
            others have ended first, and the message has the line that does what is missing.
    """
    remove_leftovers(folder)
    study = Study(folder, executor, progress, stop, prepare, parent)
    configs = prepare([cell for cell in cells if not cell.waits])
    first = Setup(next(iter(configs.values())))
    # an early error if it is another space's
    lookup = None if first.config.study.published is None else Lookup(first)
    study.perform([cell for cell in cells if not cell.waits], configs)
    if ready := study.ready(cells):
        configs = prepare(ready)
        if cleared := study.cleared(ready, configs):
            configs = {**configs, **prepare(cleared)}
        study.perform(ready, configs)
    outcomes: dict[str, Outcome] = {}
    found: list[Row] = []
    for cell in [cell for cell in cells if cell.name in study.done]:
        try:
            if lookup is not None:
                found.append(lookup.found(study.done[cell.name]))
            outcomes[cell.name] = outcome(cell, study.done[cell.name], found)
        except UserError as error:
            study.failures[cell.name] = str(error)
    runs = [
        {"folder": name} | {part: getattr(one, part) for part in KIND} | one.results
        for name, one in outcomes.items()
    ]
    comparison = compare([*outcomes.values()])
    if lookup is not None and comparison:
        comparison = lookup.completed(comparison)
    value = {
        "schema": 1,
        "study": comparison,
        "runs": runs,
        "found": found,
    }
    failures = study.failures
    write_json(folder / "results.json", value | ({"failed": failures} if failures else {}))
    add_checklist(folder)
    track(of_study(read_json(folder / "results.json")), first, folder)
    if comparison:
        for one in tables(comparison):
            progress.message(one)
        progress.message(f"report: {page_of(folder)}")
    if failures:
        progress.message(failed_table(failures))
    progress.message(f"folder: {folder}")
    if failures:
        raise UserError(
            f"{len(failures)} of {len(cells)} runs failed ({', '.join(failures)}); when the cause "
            f"is mended, do what is missing with: supernet study from={shlex.quote(str(folder))}"
        )


def outcome(cell: Cell, done: Row, found: Sequence[Row]) -> Outcome:
    """What a cell found. With a published table, ``found`` ends with what was looked up for it.
    Trainings in the folder of the cell then count nothing: they are another kind of truth.
    """
    results, looked_up = done["results"], found[-1] if found else None
    if looked_up is not None:
        results = {name: part for name, part in results.items() if name not in TRAINED}
    return Outcome(
        cell.entry,
        cell.seed,
        cell.changes.get("space", results["space"]),
        cell.changes.get("data", results["data"]),
        results["retrain"]["mean"] if looked_up is None else looked_up["accuracy"],
        results,
        None if cell.base is None else cell.base.entry,
        not cell.method and cell.base is None,
        None if looked_up is None else looked_up["parameter_free"],
        cell.share,
    )


def page_of(folder: Path) -> Path:
    """Writes ``report.html`` from the files in ``folder``."""
    from supernet.report.study import write_study  # matplotlib takes a second to import

    return write_study(folder)


def parent_of(parent: Path | None, name: str) -> str | None:
    """The folder of the same cell in another study, if it exists."""
    if parent is None or not (parent / name / "state.json").exists():
        return None
    return str(parent / name)
