"""The command line: Hydra in, function calls out. ``supernet [COMMAND] [from=RUN_DIR] [hydra
overrides]``.
"""

import argparse
import contextlib
import difflib
import itertools
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import hydra
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from supernet import study
from supernet.config import Config, typed, with_named_phases
from supernet.errors import UserError, unknown
from supernet.files import write_text
from supernet.rank import rank
from supernet.report.summary import rank_tables, summary_table
from supernet.run import Run, same_computation
from supernet.track.console import Progress
from supernet.train.loop import Stopped, StopRequest

COMMANDS = {
    "run": "search, derive, retrain, report and export (this is the default)",
    "search": "train the supernet",
    "derive": "choose the architecture from the trained supernet",
    "retrain": "train it from scratch, beside random architectures",
    "evaluate": "judge architecture=... with the inherited weights of a run",
    "export": "write the trained network as JSON, Python, safetensors, torch.export and ONNX",
    "report": "write report.html",
    "latency": "measure the latency of every operation here, as a table for budget.latency_table",
    "rank": "compare the order in which the trained supernet puts architectures with the truth",
    "study": "run every method of study.methods with every seed of study.seeds, and compare",
    "check": "build everything and try one step, without writing anything",
}

SEVERAL = ("modifier", "guard", "instrument")  # groups of which several are chosen at once


@dataclass
class CommandLine:
    """A command line in its parts: the command, the folder of ``from=``, flags that are Hydra's
    own, and the overrides.
    """

    command: str = "run"
    parent: Path | None = None
    flags: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)

    @property
    def sweeps(self) -> bool:
        return "--multirun" in self.flags


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point. Exits with 0; with 2 for what the user can mend; with 130 or 143 when
    stopped.
    """
    ConfigStore.instance().store("schema", Config)
    with one_line_errors():
        line = parse(argv)
        if line.flags and not line.sweeps:  # --cfg and the like
            with composition(line.overrides):
                pass
            launch(line)
        elif line.command == "check":
            for job in jobs(line):
                check(composed(job))
        elif line.command == "evaluate":
            for job in jobs(line):
                evaluate(composed(job), line.parent)
        else:
            launch(prepared(line))


# --- what was typed


class Flags(argparse.ArgumentParser):
    """The flags, most of which are Hydra's; what else stands in the line is left to :func:`parse`."""

    def __init__(self):
        super().__init__("supernet", add_help=False, allow_abbrev=False)
        self.add_argument("words", nargs="*")
        self.add_argument("-h", "--help", action="help")
        self.add_argument("--version", action="version", version=f"supernet {version('supernet')}")
        self.add_argument("-m", "--multirun", action="store_true")
        self.add_argument("-c", "--cfg", choices=["job", "hydra", "all"])
        self.add_argument("-p", "--package")
        self.add_argument("--resolve", action="store_true")
        self.add_argument(
            "-i",
            "--info",
            choices=["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"],
        )
        self.add_argument("--hydra-help", action="store_true")

    def format_help(self) -> str:
        return help_text()

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see supernet --help")


def parse(arguments: Sequence[str] | None) -> CommandLine:
    """Splits a command line; whatever is neither command, flag nor KEY=VALUE is an error.

    The overrides of the folder of ``from=`` come first, without those that are given anew.
    """
    given = vars(Flags().parse_intermixed_args(arguments))
    line, words = CommandLine(), given.pop("words")
    for name, value in given.items():
        if value:
            line.flags += [
                f"--{name.replace('_', '-')}",
                *([value] if isinstance(value, str) else []),
            ]
    for word in words:
        if word in COMMANDS:
            line.command = word
        elif word.startswith("from="):
            line.parent = Path(word.removeprefix("from=")).expanduser().resolve()
        elif "=" in word or word.startswith("~"):
            line.overrides += [readable(override) for override in spelled_out(word)]
        else:
            raise UserError(
                f"command: {unknown(word, list(COMMANDS))}; everything else is KEY=VALUE"
            )
    if (commands := [word for word in words if word in COMMANDS])[1:]:
        raise UserError(
            f"{' '.join(commands)}: one command at a time; supernet --help says what each includes"
        )
    if line.parent is not None:
        line.overrides = [
            o for o in overrides_of(line.parent, line.command) if not given_anew(o, line.overrides)
        ] + line.overrides
    elif line.command in ("evaluate", "report", "export"):
        raise UserError(
            f"{line.command} needs the folder of a run: supernet {line.command} from=RUN_DIR"
        )
    return line


def spelled_out(word: str) -> list[str]:
    """The overrides that a word stands for: a list of samplers with their shares is a schedule of
    them.
    """
    if word.startswith("sampler=["):
        return ["sampler=schedule", word.replace("sampler=", "sampler.phases=", 1)]
    return [word]


def readable(override: str) -> str:
    """The override, with its value quoted where Hydra's grammar would stumble over it, as over an
    architecture.

    Raises:
        UserError: it is no override, or it takes away a whole group.
    """
    name, _, value = override.partition("=")
    for text in (override, f"{name}={quoted(value)}"):
        with contextlib.suppress(OverrideParseException):
            (parsed,) = OverridesParser.create().parse_overrides([text])
            if not parsed.key_or_group:
                break
            several = parsed.key_or_group in SEVERAL and isinstance(parsed.value(), list)
            chosen = parsed.is_sweep_override() or isinstance(parsed.value(), str) or several
            if parsed.key_or_group in groups() and (parsed.is_delete() or not chosen):
                raise UserError(
                    f"{override}: a run needs one; choose one of "
                    f"{', '.join(options(parsed.key_or_group))}"
                )
            return text
    raise UserError(f"{override!r} is not KEY=VALUE; see supernet --help")


def quoted(text: str) -> str:
    return "'" + text.replace("'", "\\'") + "'"


def key(override: str) -> str:
    """What an override is about: ``+a.b=1`` -> ``a.b``."""
    return override.partition("=")[0].lstrip("+~")


def given_anew(override: str, overrides: Sequence[str]) -> bool:
    """Whether one of ``overrides`` is about the same, or chooses the part that ``override`` is
    about.
    """
    new = {key(other) for other in overrides}
    if "method" in new:
        new |= {"sampler", "learner", "modifier", "guard", "searcher"}
    return key(override) in new or key(override).partition(".")[0] in new


def overrides_of(folder: Path, command: str, setting: str = "from") -> list[str]:
    """What the run in ``folder``, or for the command ``study`` the study, was started with;
    ``setting`` is what named it.
    """
    record, is_run = folder / ".hydra" / "overrides.yaml", (folder / "state.json").is_file()
    if command == "study" and is_run:
        raise UserError(
            f"from={folder}: that is the folder of a run; supernet study goes on from that of a "
            "study"
        )
    if command != "study" and not is_run:
        runs = ", ".join(sorted(path.parent.name for path in folder.glob("*/state.json")))
        hint = (
            f"; choose one of the runs in it: {runs}" if runs else " (there is no state.json in it)"
        )
        raise UserError(f"{setting}={folder}: not the folder of a run{hint}")
    if not record.is_file():
        raise UserError(
            f"{setting}={folder}: there is no {record.relative_to(folder)} in it, which says how "
            "it was started; restore it"
        )
    return yaml.safe_load(record.read_text(encoding="utf-8")) or []


def jobs(line: CommandLine) -> list[list[str]]:
    """The overrides of each job that is to be looked at before the first one runs.

    Of a sweep that is one for each value of each swept key, of a study every one.
    """
    found = single_jobs(line.overrides) if line.sweeps else [line.overrides]
    if line.command == "study":
        found = [overrides for job in found for overrides in study_jobs(job).values()]
    return found


def single_jobs(overrides: Sequence[str]) -> list[list[str]]:
    """One job of a sweep for each value of each swept key."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    swept = {
        o.input_line: [f"{o.key_or_group}={v}" for v in o.sweep_string_iterator()]
        for o in parsed
        if o.is_sweep_override()
    }
    first = [swept.get(o, [o])[0] for o in overrides]
    found = [first]
    for position, override in enumerate(overrides):
        found += [
            [*first[:position], value, *first[position + 1 :]]
            for value in swept.get(override, [])[1:]
        ]
    return found


def study_jobs(overrides: Sequence[str]) -> dict[str, list[str]]:
    """Every method with every seed: the name of the subfolder and the overrides."""
    config = composed(overrides)
    if config.architecture is not None:
        raise UserError("a study compares what methods find: leave out architecture=")
    if not (config.study.methods and config.study.seeds):
        raise UserError("study.methods and study.seeds: there must be at least one of each")
    own = [
        o for o in overrides if key(o) not in ("method", "seed") and not key(o).startswith("hydra.")
    ]
    return {
        f"{m}-{s}": [*own, f"method={m}", f"seed={s}"]
        for m in config.study.methods
        for s in config.study.seeds
    }


# --- what is done


def prepared(line: CommandLine) -> CommandLine:
    """The line as Hydra is to see it: everything checked, and the folder chosen.

    That of ``from=`` goes on if it computes the same; else a new one is made, which no other run
    gets.
    """
    setting = "hydra.sweep.dir" if line.sweeps else "hydra.run.dir"
    chosen = setting in map(key, line.overrides)
    with composition(single_jobs(line.overrides)[0]) as cfg:
        folder = Path(OmegaConf.select(cfg, setting)).resolve()
    if not chosen and not line.sweeps and line.parent is not None and goes_on(line, line.parent):
        folder = line.parent
    else:
        for job in jobs(line):
            Run(composed(job), Path(os.devnull))
        folder = made(folder, shared=chosen)
    line.overrides.append(f"{setting}={quoted(str(folder))}")
    return line


def goes_on(line: CommandLine, folder: Path) -> bool:
    """Whether the run, or every run of the study, in ``folder`` computes what the line asks for."""
    if line.command != "study":
        return same_computation(composed(line.overrides), folder)
    runs = {folder / name: job for name, job in study_jobs(line.overrides).items()}
    return all(
        same_computation(composed(job), run)
        for run, job in runs.items()
        if (run / "state.json").exists()
    )


def made(folder: Path, shared: bool = False) -> Path:
    """Makes ``folder``; unless it may be ``shared``, and another run was faster, ``folder-2``,
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


def launch(line: CommandLine) -> None:
    """Hands over to Hydra, which calls back, once a job."""

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def job(cfg: DictConfig) -> None:
        with one_line_errors():
            folder, overrides = (
                Path(HydraConfig.get().runtime.output_dir),
                list(HydraConfig.get().overrides.task),
            )
            record(folder, cfg, overrides)
            execute(line.command, to_config(cfg), folder, overrides, line.parent)

    before = sys.argv
    sys.argv = ["supernet", *line.flags, *line.overrides]
    try:
        job()
    finally:
        sys.argv = before


def execute(
    command: str, config: Config, folder: Path, overrides: list[str], parent: Path | None
) -> None:
    """Runs one command in ``folder``; ``parent`` is the run, or the study, that a new folder starts
    from.
    """
    progress, stop = Progress(), StopRequest()
    with stop.listening():
        try:
            if command == "study":
                study.run(recorded(study_jobs(overrides), folder), folder, progress, stop, parent)
                return
            progress.message(f"{command}: {config.name} in {folder}")
            with Run(config, folder, parent=parent, progress=progress, stop=stop) as run:
                if command == "rank":
                    ranked = rank(run, [beside(Path(other)) for other in config.rank.beside])
                    progress.message(rank_tables(ranked))
                    run.report()
                else:
                    getattr(run, command)()
                results = run.results()
        except Stopped as stopped:
            progress.message(
                f"stopped by {stopped}; go on with: supernet {command} "
                f"from={shlex.quote(str(folder))}"
            )
            sys.exit(128 + stopped.signum)
    if command in ("run", "retrain"):
        progress.message(summary_table(results))
    for name in ("report.html", "export", "architecture.json", "latency.csv"):
        if (folder / name).exists():
            progress.message(f"{name.partition('.')[0]}: {folder / name}")
    progress.message(f"folder: {folder}")


def beside(folder: Path) -> Run:
    """The run in ``folder``, to look at only."""
    return Run(composed(overrides_of(folder, "rank", "rank.beside")), folder)


def evaluate(config: Config, parent: Path) -> None:
    """Judges ``architecture=...``, or what the run in ``parent`` derived, with that run's weights;
    writes nothing.
    """
    judgement = Run(config, parent).evaluate()
    Progress().message(
        f"accuracy {judgement.accuracy:.4f} ± {judgement.standard_error:.4f} (standard error), "
        f"loss {judgement.loss:.4f}, on {judgement.images} images, with inherited weights"
    )


def check(config: Config) -> None:
    """Builds everything, tries one step of each stage, says how large it is; writes nothing."""
    progress = Progress()
    for line in Run(config, Path(os.devnull)).check():
        progress.message(line)


# --- configuration


def conf_dir() -> Path:
    """The YAML: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "conf"


def groups() -> list[str]:
    return sorted(path.name for path in conf_dir().iterdir() if path.is_dir())


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


@contextlib.contextmanager
def composition(overrides: Sequence[str]) -> Iterator[DictConfig]:
    """What Hydra makes of these overrides, its own node included, as long as what that refers to
    can be resolved.

    It may be used inside a running job, of which Hydra knows again afterwards.

    Raises:
        UserError: a key, a value or a name is wrong.
    """
    application, job = GlobalHydra.instance(), HydraConfig.instance()
    running = application.hydra, job.cfg
    application.clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("config", list(overrides), return_hydra_config=True)
        job.set_config(cfg)
        yield cfg
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explained(error, overrides)) from error
    finally:
        application.hydra, job.cfg = running


def composed(overrides: Sequence[str]) -> Config:
    """The configuration of these overrides, checked."""
    with composition(overrides) as cfg:
        return to_config(cfg)


def to_config(cfg: DictConfig) -> Config:
    tree = OmegaConf.to_container(settings(cfg), resolve=True, throw_on_missing=True)
    tree["sampler"] = with_named_phases(tree["sampler"], phase)
    return typed(Config, tree, "")


def phase(name: str) -> Any:
    """The node of the sampler of that name, as the phase of a schedule.

    Raises:
        UserError: there is none.
    """
    if name not in options("sampler"):
        raise UserError(f"sampler.phases: {unknown(name, options('sampler'))}")
    return OmegaConf.to_container(OmegaConf.load(conf_dir() / "sampler" / f"{name}.yaml"))


def settings(cfg: DictConfig) -> DictConfig:
    """All but Hydra's own node, and but what a recipe says of parts of the groups of ``SEVERAL``
    that the line replaced by others.
    """
    own = OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name != "hydra"])
    for group in SEVERAL:
        for name in [name for name, node in own[group].items() if "_target_" not in (node or {})]:
            if not any(
                f"{key(override)}.".startswith(f"{group}.{name}.")
                for override in HydraConfig.get().overrides.task
            ):
                del own[group][name]
    return own


def record(folder: Path, cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Writes down once, before anything else, what was asked for: Hydra would write it anew each
    time, and not atomically.
    """
    if not (folder / ".hydra" / "overrides.yaml").exists():
        write_text(
            folder / ".hydra" / "config.yaml", OmegaConf.to_yaml(settings(cfg), resolve=True)
        )
        write_text(folder / ".hydra" / "overrides.yaml", yaml.safe_dump(list(overrides)))


def recorded(jobs: dict[str, list[str]], folder: Path) -> dict[str, Config]:
    """The configurations of a study's jobs, each on record in its subfolder as if it had been
    started alone.
    """
    for name, overrides in jobs.items():
        with composition(overrides) as cfg:
            record(folder / name, cfg, overrides)
    return {name: composed(overrides) for name, overrides in jobs.items()}


# --- what people read


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns what the user can mend into one line and exit code 2; HYDRA_FULL_ERROR=1 shows the
    whole traceback.
    """
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException, OSError) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"supernet: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("supernet: interrupted", file=sys.stderr)
        sys.exit(130)


def explained(error: Exception, overrides: Sequence[str]) -> str:
    """One line: the key, what was expected, and the nearest valid name."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{group}: {unknown(name, options(group))}"
    if "Ambiguous value" in str(error):
        several = str(error).partition("'")[2].partition("'")[0]
        return f"{several}: add -m to run a job for each of these values; one value that is a list is written KEY=[a,b]"
    cause = error.__cause__ or error
    at = getattr(cause, "full_key", None) or ""
    if (
        isinstance(error, ConfigCompositionException) and "is not in" in str(cause)
    ) or "not in '" in str(cause):
        wrong = at or str(error).partition("'")[2].partition("'")[0]
        group, _, part = wrong.partition(".")
        if group in groups() and part in options(group):
            return f"{wrong}: {part} is not chosen, so it has no settings; add {group}=[{part}]"
        near = difflib.get_close_matches(wrong, known_keys(overrides), n=1, cutoff=0.5)
        return f"{wrong}: there is no such setting; " + (
            f"did you mean {near[0]}?" if near else "see supernet --cfg job"
        )
    text = str(cause).splitlines()[0]
    return f"{at}: {text}" if at else str(error)


def known_keys(overrides: Sequence[str]) -> list[str]:
    """Every key and group of the configuration that has these overrides' options."""
    with composition([override for override in overrides if key(override) in groups()]) as cfg:
        tree = OmegaConf.to_container(settings(cfg), resolve=False)

    def flat(node: Any, prefix: str) -> Iterator[str]:
        for name, value in node.items() if isinstance(node, dict) else ():
            yield f"{prefix}{name}"
            yield from flat(value, f"{prefix}{name}.")

    return [*flat(tree, ""), *groups()]


def help_text() -> str:
    commands = "\n".join(f"  {name:<12}{what}" for name, what in COMMANDS.items())
    choices = "\n".join(f"  {group:<12}{', '.join(options(group))}" for group in groups())
    return f"""supernet [COMMAND] [from=RUN_DIR] [KEY=VALUE ...]

Commands
{commands}

Groups, chosen as space=darts
{choices}

Settings are changed as search.epochs=10; `supernet --cfg job` prints all of them with their values.
from=RUN_DIR goes on from a run: in its folder, or in a new one if the overrides change what was computed.
-m runs every combination: supernet -m method=darts,spos seed=0,1,2
"""


if __name__ == "__main__":
    main()
