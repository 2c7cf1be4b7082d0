"""Starts a command that writes to folders: chooses its folder, and runs its jobs there."""

import contextlib
import errno
import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from supernet import reproduce, simulation
from supernet.cli.cells import line_of, runs_of, study_cells
from supernet.cli.composition import composed, composition, to_config, with_paths_made_absolute
from supernet.cli.launch import launch
from supernet.cli.line import CommandLine, key
from supernet.cli.options import Folders
from supernet.cli.overrides import literal, single_jobs
from supernet.cli.recorded import kept_folders, overrides_of, record, recorded_in, same_truth
from supernet.cli.sweep import Results, Sweep, again
from supernet.cli.trust import needs_trust
from supernet.config import Config, StudySettings
from supernet.errors import UserError
from supernet.report.reproduction import verdict_lines
from supernet.report.summary import rank_tables, summary_table, verdict
from supernet.run import Run, same_computation
from supernet.runs.executor import executor_of
from supernet.runs.folder import State, computed
from supernet.runs.lock import held
from supernet.runs.memory import as_planned
from supernet.runs.preflight import read_files
from supernet.runs.setup import Setup
from supernet.runs.work import Work
from supernet.study import run as study
from supernet.study.cells import Cell
from supernet.track.console import Progress
from supernet.train.loop import Stopped, StopRequest

LEAVES = ("report.html", "export", "architecture.json", "latency.csv")  # named when a command ends


def started(
    line: CommandLine,
    stop: StopRequest,
    original: reproduce.Recorded | None = None,
    go_on: str | None = None,
) -> list[Results]:
    """Performs a command that writes to folders: one, or one for each job of a sweep. ``original``
    is the run that is repeated. ``go_on`` is the command that goes on after a stop, if it is not
    the line's own. Returns the results of each job.

    A signal that arrives before anything is written ends the command at once. One that arrives
    later is heeded by the jobs.
    """
    try:
        line, folder = prepared(line, stop)
    except Stopped as stopped:
        Progress().message(f"stopped by {stopped} before anything was written")
        sys.exit(128 + stopped.signum)
    sweep, found = Sweep(line, folder) if line.sweeps else None, list[Results]()
    launch(line, lambda cfg: found.append(job(line, cfg, stop, sweep, original, go_on)))
    if sweep is not None:
        sweep.end()
    return found


def each(line: CommandLine) -> list[list[str]]:
    """The overrides of each run that is checked before the first one begins.

    For a sweep, there is one run for each value of each swept key. For a study, all of its runs are
    checked.
    """
    found = [line.overrides]
    if line.sweeps:
        found = single_jobs([*swept_by_a_file(line), *line.overrides])
    if line.command == "study":
        found = [one for overrides in found for one in runs_of(overrides, line.folders).values()]
    return found


def swept_by_a_file(line: CommandLine) -> list[str]:
    """The sweep that the file of an experiment defines (``hydra.sweeper.params``), as overrides."""
    with composition(single_jobs(line.overrides)[0], line.folders) as cfg:
        params = cfg.hydra.sweeper.params or {}
    given = {key(override) for override in line.overrides}
    return [f"{name}={values}" for name, values in params.items() if name not in given]


# --- the folder of a run


def prepared(line: CommandLine, stop: StopRequest) -> tuple[CommandLine, Path]:
    """The line for Hydra, and its folder: everything is checked, and the folder is chosen.

    If the run in the folder of ``from=`` computes the same, it is continued there. Otherwise a new
    folder is made, which no other run uses.

    Raises:
        UserError: something is wrong with the settings, or with a file that they name.
        Stopped: a signal has arrived. No folder was made.
    """
    setting = "hydra.sweep.dir" if line.sweeps else "hydra.run.dir"
    chosen = setting in map(key, line.overrides)
    with composition(single_jobs(line.overrides)[0], line.folders) as cfg:
        written = OmegaConf.select(cfg, setting)
    if not written.strip():
        raise UserError(f"{setting}: is empty; say where: {setting}=FOLDER")
    folder = Path(written).resolve()
    parent = line.goes_on_from
    here = not chosen and not line.sweeps
    if here and parent is not None and goes_on(line, parent):
        folder = parent
    else:
        for overrides in each(line):
            read_files(Setup(composed(overrides, line.folders)), line.command, parent)
        stop.check()
        folder = made(folder, setting, shared=chosen)
    said = f"{setting}={literal(str(folder))}"
    return replace(line, overrides=[*line.overrides, said]), folder


def goes_on(line: CommandLine, folder: Path) -> bool:
    """Whether the run in ``folder``, or every run of the study, computes the same as the line. A
    study whose accuracies come from elsewhere is another one.
    """
    if line.command != "study":
        return same_computation(Setup(composed(line.overrides, line.folders)), folder)
    study = composed(line.overrides, line.folders).study
    if not same_truth(folder, study):
        return False
    if study.table is not None:
        return simulation.goes_on(simulations(line.overrides, line.folders), folder)
    return all(
        same_computation(Setup(composed(line_of(line.overrides, cell), line.folders)), begun)
        for cell in study_cells(line.overrides, line.folders)
        # what the others compute depends on these
        if not cell.waits and ((begun := folder / cell.name) / "state.json").exists()
    )


def extends(line: CommandLine, folder: Path) -> bool:
    """Whether the study in ``folder`` goes on with another line than the recorded one."""
    other = line.command == "study" and line.overrides != recorded_in(folder)
    return other and goes_on(line, folder)


def require_same_truth(folder: Path, study: StudySettings) -> None:
    """Raises a UserError if ``folder`` holds a study whose accuracies come from elsewhere."""
    if computed(folder) and not same_truth(folder, study):
        raise UserError(
            f"hydra.run.dir={folder}: holds a study whose accuracies come from elsewhere "
            "(study.published, study.table, and what is read from them); choose a new folder, or "
            "leave it out"
        )


def simulations(overrides: Sequence[str], folders: Folders) -> dict[str, Config]:
    """The configurations of the searchers of a study on a table, by their names."""
    return {name: composed(one, folders) for name, one in runs_of(overrides, folders).items()}


def made(folder: Path, setting: str = "hydra.run.dir", shared: bool = False) -> Path:
    """Makes ``folder``. If it exists and may not be ``shared``, it makes ``folder-2``,
    ``folder-3``, ... The message of an error names the ``setting`` that chooses another.
    """
    try:
        if shared and folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "there is a file of that name")
        for number in itertools.count(1):
            with contextlib.suppress(FileExistsError):
                new = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
                new.mkdir(parents=True, exist_ok=shared)
                return new
    except OSError as error:
        raise UserError(
            f"cannot make {folder}: {error.strerror}; work elsewhere, or say where: "
            f"{setting}=FOLDER"
        ) from error
    raise AssertionError("there is always another number")


# --- running a command


def job(
    line: CommandLine,
    cfg: DictConfig,
    stop: StopRequest,
    sweep: Sweep | None,
    original: reproduce.Recorded | None,
    go_on: str | None,
) -> Results:
    """One job of the line, for which Hydra has made the configuration ``cfg``. Returns its results;
    of a sweep, the sweep has them.
    """
    # as it is written: a folder may be called ${x}, and that is no reference
    whole: Any = HydraConfig.instance().cfg
    hydra: Any = OmegaConf.to_container(whole.hydra, resolve=False)
    folder = Path(hydra["runtime"]["output_dir"])
    overrides = with_paths_made_absolute(cfg, hydra["overrides"]["task"])

    def run() -> Results:
        with held(folder):
            config = to_config(cfg, line.folders)
            if line.command == "study":
                require_same_truth(folder, config.study)
            else:
                State.begin(folder, line.goes_on_from)
            anew = not computed(folder) or extends(replace(line, overrides=overrides), folder)
            record(folder, cfg, overrides, line.folders, anew)
            return execute(line, config, folder, overrides, stop, original)

    go_on = go_on or again(line, folder if sweep is None else sweep.folder)
    if sweep is None and needs_trust(overrides, as_written(cfg), line.folders):
        go_on += " trust=true"
    try:
        if sweep is None:
            return run()
        sweep.job(folder, overrides, run)
        return {}
    except Stopped as stopped:
        Progress().message(f"stopped by {stopped}; go on with: {go_on}")
        sys.exit(128 + stopped.signum)
    except KeyboardInterrupt:
        Progress().message(f"interrupted; go on with: {go_on}")
        sys.exit(130)


def as_written(cfg: DictConfig) -> dict[str, Any]:
    """The settings, with the references in them."""
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False))


def execute(
    line: CommandLine,
    config: Config,
    folder: Path,
    overrides: list[str],
    stop: StopRequest,
    original: reproduce.Recorded | None,
) -> Results:
    """Runs one command in ``folder``. Returns the results of the run; those of a study are empty.

    Raises:
        UserError: it failed.
        Stopped: it was asked to stop.
    """
    progress, command = Progress(), line.command
    setup = Setup(config)
    with executor_of(setup) as executor:
        if command == "study" and config.study.table is not None:
            searchers = simulations(overrides, line.folders)
            simulation.run(searchers, folder, executor, progress, stop)
            return {}
        if command == "study":
            cells = study_cells(overrides, line.folders)

            def prepare(some: Sequence[Cell]) -> dict[str, Config]:
                lines = {cell.name: line_of(overrides, cell) for cell in some}
                return recorded_cells(lines, folder, line.folders)

            study.run(cells, folder, executor, progress, stop, prepare, line.parent)
            return {}
        if original is not None:
            reproduce.require_own(folder)
        progress.message(f"{command}: {config.name} in {folder}")
        run = Run(
            setup,
            folder,
            parent=line.goes_on_from,
            executor=executor,
            progress=progress,
            stop=stop,
        )
        with run:
            if original is None:
                done(run, line)
            else:
                reproduce.again(run, original, lambda step: done(run, replace(line, command=step)))
            results = run.results()
    if original is not None:
        for text in verdict_lines(results["reproduction"]):
            progress.message(text)
    if command in ("run", "retrain"):
        progress.message(summary_table(results))
        if line_of_verdict := verdict(results):
            progress.message(line_of_verdict)
        if "architecture" in results:  # outside the table, so that it can be copied
            progress.message(f"found: {results['architecture']['text']}")
    say_leaves(folder, progress)
    return results


def say_leaves(folder: Path, progress: Progress) -> None:
    """Names what a command has left in ``folder``, and the folder."""
    for name in LEAVES:
        if (folder / name).exists():
            progress.message(f"{name.partition('.')[0]}: {folder / name}")
    progress.message(f"folder: {folder}")


def done(run: Run, line: CommandLine) -> None:
    """Runs one command on a run that has begun."""
    if line.command == "rank":
        others = [beside(Path(other), line) for other in run.setup.config.rank.beside]
        run.progress.message(rank_tables(run.rank(others)))
        run.report()
    else:
        getattr(run, line.command)()


def beside(folder: Path, line: CommandLine) -> Work:
    """The run in ``folder``, for reading only."""
    overrides, state = overrides_of(folder, setting="rank.beside"), State.read(folder)
    given = Folders() if line.trust else line.folders  # if trusted: each run has its own
    folders = kept_folders(overrides, folder, line, given)
    setup = Setup(composed(overrides, folders))
    return Work(as_planned(setup, state.memory), state)


def recorded_cells(
    cells: dict[str, list[str]], folder: Path, folders: Folders
) -> dict[str, Config]:
    """The configurations of a study's runs. Each is recorded in its subfolder, as if it had been
    started alone.
    """
    configs = {}
    for name, overrides in cells.items():
        (folder / name).mkdir(exist_ok=True)
        with composition(overrides, folders) as cfg, held(folder / name):
            record(folder / name, cfg, overrides, folders, anew=not computed(folder / name))
            configs[name] = to_config(cfg, folders)
    return configs
