"""What each command does."""

import contextlib
import itertools
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from supernet import study
from supernet.cli.composition import (
    composed,
    composition,
    register,
    to_config,
    with_paths_made_absolute,
)
from supernet.cli.line import CommandLine, given_anew, key, parse, quoted, single_jobs
from supernet.cli.messages import one_line_errors
from supernet.cli.options import Folders, conf_dir
from supernet.cli.recorded import folders_of, overrides_of, record
from supernet.config import Config
from supernet.errors import UserError
from supernet.report.summary import rank_tables, summary_table
from supernet.run import Run, same_computation
from supernet.runs.check import check
from supernet.runs.evaluate import evaluate
from supernet.runs.executor import executor_of
from supernet.runs.folder import State
from supernet.runs.setup import Setup
from supernet.runs.work import Work
from supernet.track.console import Progress
from supernet.train.loop import Stopped, StopRequest

LEAVES = ("report.html", "export", "architecture.json", "latency.csv")  # named when a command ends


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point. The exit code is 0; 2 for an error that the user can correct; 130 or 143 if
    it was stopped.
    """
    with one_line_errors():
        line = with_parent(parse(argv))
        if line.flags and not line.sweeps:  # --cfg and the like
            with composition(line.overrides, line.folders):
                pass
            launch(line)
        elif line.command == "check":
            for overrides in each(line):
                for message in check(Setup(composed(overrides, line.folders))):
                    Progress().message(message)
        elif line.command == "evaluate":
            assert line.parent is not None
            for overrides in each(line):
                setup = Setup(composed(overrides, line.folders))
                Progress().message(evaluate(setup, line.parent))
        else:
            launch(prepared(line))


def with_parent(line: CommandLine) -> CommandLine:
    """The line, with the overrides that the folder of ``from=`` was started with. Overrides that
    the line itself has replace them.

    Raises:
        UserError: the command needs such a folder, or the folder is not one of a run.
    """
    if line.parent is None:
        if line.command in ("evaluate", "report", "export"):
            raise UserError(
                f"{line.command} needs the folder of a run: supernet {line.command} from=RUN_DIR"
            )
        return line
    before = overrides_of(line.parent, line.command)
    kept = [override for override in before if not given_anew(override, line.overrides)]
    folders = line.folders if line.folders.own else folders_of(line.parent)
    return replace(line, overrides=kept + line.overrides, folders=folders)


def each(line: CommandLine) -> list[list[str]]:
    """The overrides of each run that is checked before the first one begins.

    For a sweep, there is one run for each value of each swept key. For a study, all of its runs are
    checked.
    """
    found = [line.overrides]
    if line.sweeps:
        found = single_jobs([*swept_by_a_file(line), *line.overrides])
    if line.command == "study":
        cells = [cells_of(overrides, line.folders) for overrides in found]
        found = [overrides for cell in cells for overrides in cell.values()]
    return found


def swept_by_a_file(line: CommandLine) -> list[str]:
    """The sweep that the file of an experiment defines (``hydra.sweeper.params``), as overrides."""
    with composition(single_jobs(line.overrides)[0], line.folders) as cfg:
        params = cfg.hydra.sweeper.params or {}
    given = {key(override) for override in line.overrides}
    return [f"{name}={values}" for name, values in params.items() if name not in given]


def cells_of(overrides: Sequence[str], folders: Folders) -> dict[str, list[str]]:
    """The runs of a study, every method with every seed: name of the subfolder -> overrides."""
    config = composed(overrides, folders)
    if config.architecture is not None:
        raise UserError("a study compares what methods find: leave out architecture=")
    if not (config.study.methods and config.study.seeds):
        raise UserError("study.methods and study.seeds: there must be at least one of each")
    own = [
        override
        for override in overrides
        if key(override) not in ("method", "seed") and not key(override).startswith("hydra.")
    ]
    return {
        f"{method}-{seed}": [*own, f"method={method}", f"seed={seed}"]
        for method in config.study.methods
        for seed in config.study.seeds
    }


# --- the folder of a run


def prepared(line: CommandLine) -> CommandLine:
    """The line for Hydra: everything is checked, and the folder is chosen.

    If the run in the folder of ``from=`` computes the same, it is continued there. Otherwise a new
    folder is made, which no other run uses.
    """
    setting = "hydra.sweep.dir" if line.sweeps else "hydra.run.dir"
    chosen = setting in map(key, line.overrides)
    with composition(single_jobs(line.overrides)[0], line.folders) as cfg:
        folder = Path(OmegaConf.select(cfg, setting)).resolve()
    here = not chosen and not line.sweeps and line.parent is not None
    if here and line.parent is not None and goes_on(line, line.parent):
        folder = line.parent
    else:
        for overrides in each(line):
            Setup(composed(overrides, line.folders))
        folder = made(folder, shared=chosen)
    return replace(line, overrides=[*line.overrides, f"{setting}={quoted(str(folder))}"])


def goes_on(line: CommandLine, folder: Path) -> bool:
    """Whether the run in ``folder``, or every run of the study, computes the same as the line."""
    if line.command != "study":
        return same_computation(Setup(composed(line.overrides, line.folders)), folder)
    cells = cells_of(line.overrides, line.folders)
    return all(
        same_computation(Setup(composed(overrides, line.folders)), folder / name)
        for name, overrides in cells.items()
        if (folder / name / "state.json").exists()
    )


def made(folder: Path, shared: bool = False) -> Path:
    """Makes ``folder``. If it exists and may not be ``shared``, it makes ``folder-2``,
    ``folder-3``, ...
    """
    try:
        for number in itertools.count(1):
            with contextlib.suppress(FileExistsError):
                new = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
                new.mkdir(parents=True, exist_ok=shared)
                return new
    except OSError as error:
        raise UserError(
            f"cannot make {folder}: {error.strerror}; work elsewhere, or say where: "
            "hydra.run.dir=FOLDER"
        ) from error
    raise AssertionError("there is always another number")


# --- running a command


def launch(line: CommandLine) -> None:
    """Starts Hydra, which calls ``job`` once for each run."""
    register()

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def job(cfg: DictConfig) -> None:
        with one_line_errors():
            folder = Path(HydraConfig.get().runtime.output_dir)
            overrides = with_paths_made_absolute(cfg, HydraConfig.get().overrides.task)
            record(folder, cfg, overrides, line.folders)
            execute(line, to_config(cfg, line.folders), folder, overrides)

    before = sys.argv
    sys.argv = ["supernet", *line.flags, *line.folders.override(), *line.overrides]
    try:
        job()
    finally:
        sys.argv = before


def execute(line: CommandLine, config: Config, folder: Path, overrides: list[str]) -> None:
    """Runs one command in ``folder``."""
    progress, stop, command = Progress(), StopRequest(), line.command
    with stop.listening():
        try:
            setup = Setup(config)
            with executor_of(setup) as executor:
                if command == "study":
                    cells = recorded_cells(cells_of(overrides, line.folders), folder, line.folders)
                    study.run(cells, folder, executor, progress, stop, line.parent)
                    return
                progress.message(f"{command}: {config.name} in {folder}")
                run = Run(
                    setup,
                    folder,
                    parent=line.parent,
                    executor=executor,
                    progress=progress,
                    stop=stop,
                )
                with run:
                    done(run, command)
                    results = run.results()
        except Stopped as stopped:
            again = f"supernet {command} from={shlex.quote(str(folder))}"
            progress.message(f"stopped by {stopped}; go on with: {again}")
            sys.exit(128 + stopped.signum)
    if command in ("run", "retrain"):
        progress.message(summary_table(results))
    for name in LEAVES:
        if (folder / name).exists():
            progress.message(f"{name.partition('.')[0]}: {folder / name}")
    progress.message(f"folder: {folder}")


def done(run: Run, command: str) -> None:
    """Runs one command on a run that has begun."""
    if command == "rank":
        others = [beside(Path(other)) for other in run.setup.config.rank.beside]
        run.progress.message(rank_tables(run.rank(others)))
        run.report()
    else:
        getattr(run, command)()


def beside(folder: Path) -> Work:
    """The run in ``folder``, for reading only."""
    overrides = overrides_of(folder, "rank", "rank.beside")
    return Work(Setup(composed(overrides, folders_of(folder))), State.read(folder))


def recorded_cells(
    cells: dict[str, list[str]], folder: Path, folders: Folders
) -> dict[str, Config]:
    """The configurations of a study's runs. Each is recorded in its subfolder, as if it had been
    started alone.
    """
    for name, overrides in cells.items():
        with composition(overrides, folders) as cfg:
            record(folder / name, cfg, overrides, folders)
    return {name: composed(overrides, folders) for name, overrides in cells.items()}
