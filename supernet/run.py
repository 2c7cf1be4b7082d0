"""The steps of a run in one folder: search, derive, retrain, export, report.

A run can be stopped at any moment and continued later. Each step is one or more jobs
(:mod:`supernet.runs.job`). If the key of a job is found in the folder, or in the folder of the
parent run, the job is not run again. The executor runs the other jobs.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from supernet.checklist.practices import checklist
from supernet.checklist.record import SETTINGS, Record
from supernet.config import build
from supernet.environment import environment
from supernet.errors import UserError
from supernet.files import write_json
from supernet.mixture import Architecture
from supernet.runs.contents import require_same_content
from supernet.runs.derive import Derive, shortlist, write_architectures
from supernet.runs.executor import Executor, Here
from supernet.runs.export import Export
from supernet.runs.folder import State, computed, remove_leftovers, take_over
from supernet.runs.grow import grow
from supernet.runs.job import Job, key_of
from supernet.runs.judge import Judge
from supernet.runs.latency import Latency
from supernet.runs.lock import InUse, held
from supernet.runs.memory import as_planned, fitted
from supernet.runs.preflight import rehearse, warnings_of
from supernet.runs.rank import ranking
from supernet.runs.results import results, search_of
from supernet.runs.search import searches
from supernet.runs.setup import Setup
from supernet.runs.training import (
    finished_retrainings,
    random_trainings,
    retrainings,
    rival_trainings,
)
from supernet.runs.work import Work
from supernet.track.console import Progress
from supernet.track.interface import Trackers
from supernet.track.jsonlines import JsonLines
from supernet.track.merged import Merged
from supernet.train.loop import StopRequest


class Run:
    """One configuration in one folder. Each method does one step, and first the steps it needs."""

    def __init__(
        self,
        setup: Setup,
        folder: Path,
        *,
        parent: Path | None = None,
        executor: Executor | None = None,
        progress: Progress | None = None,
        stop: StopRequest | None = None,
    ):
        self.progress, self.stop = progress or Progress(quiet=True), stop or StopRequest()
        self.executor = executor or Here()
        self.state = self.state_of(setup, Path(folder))
        for warning in warnings_of(setup):
            self.progress.message(warning)
        if self.state.plan is None:
            setup = self.begin(setup, parent)
        self.setup = as_planned(setup, self.state.memory)
        self.parent = State.read(Path(self.state.parent)) if self.state.parent else None
        self.tracker = Trackers(
            [JsonLines(self.state.folder / "metrics.jsonl"), build(setup.config.tracker, "tracker")]
        )
        self.compared = False  # whether the data set is the one with which the run began
        self.merged = Merged(self.state.folder, self.tracker)
        self.work = Work(
            self.setup,
            self.state,
            self.progress,
            self.stop,
            self.merged.follow,
            self.executor.workers,
        )

    @staticmethod
    def state_of(setup: Setup, folder: Path) -> State:
        """The state of ``folder``. It is a new one if a run of other settings has begun there and
        has computed nothing, for example because its settings were refused.
        """
        state = State.read(folder)
        if state.plan is None or computed(folder) or goes_on(setup, state):
            return state
        return State(folder)

    def begin(self, setup: Setup, parent: Path | None) -> Setup:
        """Records what a new run must remember of other runs. Returns the setup that fits into
        memory.
        """
        before, state, warm = None, self.state, setup.config.retrain.warm_start
        if parent is not None and parent != state.folder:
            state.parent = str(parent)
        if state.parent is not None:
            before = State.read(Path(state.parent))
            state.origin = search_of(before)
        if warm is not None:  # now, because the retrainings may be deleted later
            state.warm_start = [stage["key"] for stage in finished_retrainings(Path(warm))]
        setup, state.memory = fitted(setup, state, before, self.progress)
        return setup

    def __enter__(self) -> Self:
        if not goes_on(self.setup, self.state):
            raise UserError(
                f"{self.state.folder} holds a run of other settings; choose another folder, or "
                "start from=that one"
            )
        remove_leftovers(self.state.folder)
        self.tracker.start(self.state.folder, self.setup.settings, self.merged.begin())
        if self.state.plan is None:  # last: what is refused above leaves no plan behind
            self.state.plan = plan_of(self.setup)
            self.state.write()
        return self

    def __exit__(self, kind: type | None, *error: Any) -> None:
        self.tracker.close(0 if kind is None else 1)

    # --- the steps

    def run(self) -> None:
        """The main command: all steps."""
        self.retrain(restored=False)
        self.export(again=False)
        self.report()
        self.tracker.summary(self.results())

    def search(self) -> list[dict[str, Any]]:
        """Trains the supernets, also those that were trained and whose checkpoints are gone. If
        networks grow, it grows them.
        """
        jobs = searches(self.setup)
        self.prepare()
        if self.setup.grows:
            return [self.work.result(grow(self.work, self.perform))]
        self.perform(jobs)
        return self.restore(jobs)

    def latency(self) -> None:
        """Makes the latency table."""
        self.perform([Latency()])

    def prepare(self) -> None:
        """Makes the latency table, if the budget needs one."""
        if self.setup.config.budget.measures:
            self.latency()

    def derive(self) -> Architecture:
        """Finds the architecture: the given one, or the best one of the searcher."""
        self.prepare()
        growth = None
        if self.setup.grows:
            growth = grow(self.work, self.perform)
        elif self.setup.given is None:
            self.perform(searches(self.setup))
            self.perform([Judge()])
            for candidate in shortlist(self.work):
                self.perform([candidate])
        (derived,) = self.perform([Derive(growth)])
        return write_architectures(self.work, derived)

    def retrain(self, restored: bool = True) -> None:
        """Trains the derived network from scratch, once for each seed, and for comparison random
        networks and rivals.

        Random networks do not need the search. With several workers they are trained at the same
        time. If ``restored``, a derived network whose checkpoint is gone is trained again.
        """
        if not self.state.stages:
            rehearse(self.setup)
        self.prepare()
        # before the search, because there may be no such architectures
        chance, rivals = random_trainings(self.work), rival_trainings(self.work)
        if self.setup.init == "inherit":  # also if the architecture is given
            self.search()
        if self.executor.workers > 1 and self.setup.given is None and not self.setup.grows:
            self.perform([*searches(self.setup), *chance])
        derived = retrainings(self.work, self.derive())
        self.perform([*derived, *rivals, *chance])
        if restored:
            self.restore(derived)

    def export(self, again: bool = True) -> Path:
        """Writes the trained network in every form. If it is there already, only if ``again``."""
        job, folder = Export(self.derive()), self.state.folder / "export"
        self.perform([job.network(self.work)])
        again = again or not (folder / "bundle.json").exists()
        self.perform([job], again=again)
        if again:
            self.tracker.artifact(
                "architecture", "architecture", [self.state.folder / "architecture.json"]
            )
            self.tracker.artifact("export", "model", sorted(folder.iterdir()))
        return folder

    def rank(self, others: Sequence[Work]) -> dict[str, Any]:
        """Measures whether the supernet puts architectures in the right order, and the supernets of
        ``others``.

        Raises:
            UserError: the other runs, or the published table, do not fit.
        """
        self.prepare()
        job = ranking(self.work, others)
        self.perform(searches(self.setup))
        self.perform(job.trainings(self.work))
        return self.perform([job])[0]

    def report(self) -> Path:
        """Writes ``report.html`` from what the folder holds."""
        self.state.require_there()
        write_results(self.setup, self.state)
        return page_of(self.state.folder)

    def results(self) -> dict[str, Any]:
        """Every figure so far, in the form of ``results.json``."""
        return results(self.setup, self.state)

    # --- jobs

    def perform(self, jobs: Sequence[Job], again: bool = False) -> list[Any]:
        """The results of jobs that do not need each other. A finished job is not run again, unless
        ``again``.

        Raises:
            UserError: a job failed.
            Stopped: the run was asked to stop.
        """
        if not self.compared:
            self.compared = True
            if require_same_content(self.setup, self.state, self.parent, self.progress):
                self.state.write()
        missing = [job for job in jobs if again or self.finished(job) is None]
        needed = {one.name: one for job in missing for one in job.needs(self.work)}
        self.restore(list(needed.values()))
        if missing:
            self.executor.run(self.work, missing, self.commit)
        return [self.work.result(job) for job in jobs]

    def restore(self, jobs: Sequence[Job]) -> list[Any]:
        """The results of finished jobs, whose checkpoints are there when this returns. A job whose
        checkpoint is gone, for example because it was damaged, is run again.

        The jobs that used the old checkpoint stay finished, because the new one has the same bits.
        """
        for job in jobs:
            path = self.work.checkpoints.path(job.name)
            if self.finished(job) is not None and not path.exists():
                self.progress.message(f"{path} is gone: {job.name} is run again")
                del self.state.stages[job.name]  # else a part of it would count as the whole
                self.state.write()
        return self.perform(jobs) if jobs else []

    def finished(self, job: Job) -> Any | None:
        """The result of a job that this run or its parent has finished; else ``None``. If the
        parent has finished it, its checkpoint and its rows are copied.
        """
        result, key = self.work.result(job), self.work.key(job)
        if result is None and self.parent is not None:
            result = self.parent.result(job.name, key)
            if result is not None:
                for stage in job.stages:
                    take_over(self.parent.folder, self.state.folder, stage)
                job.take_over(self.work, result)
                self.merged.follow()
                self.commit(job, result, self.parent.environments)
        return result

    def commit(
        self, job: Job, result: Any, environments: Sequence[dict[str, Any]] | None = None
    ) -> None:
        """Records that a job is finished. After this it is not run again.

        ``environments`` are those of the run that has done it; ``None`` means this process.
        """
        self.state.require_there()
        if environments is None:
            environments = [environment(self.setup.device, self.setup.config.threads)]
        known = self.state.environments
        known += [one for one in environments if one not in known]
        self.state.stages[job.name] = {"key": self.work.key(job), "result": result}
        self.state.write()
        write_results(self.setup, self.state)


def write_results(setup: Setup, state: State) -> None:
    """Writes ``results.json``: every figure of a run so far, and the checklist."""
    value, recorded = results(setup, state), (state.folder / SETTINGS).is_file()
    record = Record(state.folder, value, setup.settings if recorded else {})
    write_json(state.folder / "results.json", value | {"checklist": checklist(record)})


def page_of(folder: Path) -> Path:
    """Writes ``report.html`` from the files in ``folder``."""
    from supernet.report.page import write_report  # matplotlib takes a second to import

    return write_report(folder)


def plan_of(setup: Setup) -> str:
    """A key of what a configuration computes. A folder is only continued with the same key."""
    return key_of(setup.result_settings)


def goes_on(setup: Setup, state: State) -> bool:
    """Whether the run of ``state`` can go on with a configuration: it computes the same, or the run
    has not begun.
    """
    return state.plan is None or state.plan == plan_of(as_planned(setup, state.memory))


def same_computation(setup: Setup, folder: Path) -> bool:
    """Whether a configuration computes the same as the run in ``folder``, so that it can go on."""
    return goes_on(setup, State.read(folder))


def report(setup: Setup, folder: Path) -> Path:
    """Writes ``report.html`` from what the run in ``folder`` has computed so far.

    Another process may be writing to the folder at this time. Then it also keeps ``results.json``
    up to date.
    """
    with suppress(InUse), held(folder):
        write_results(setup, State.read(folder))
    return page_of(folder)
