"""The command line: Hydra in, function calls out. ``supernet [COMMAND] [from=RUN_DIR] [hydra overrides]``."""

import contextlib
import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import hydra
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from supernet import study
from supernet.config import Config, typed
from supernet.errors import UserError, unknown
from supernet.report.summary import summary_table
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
    "study": "run every method of study.methods with every seed of study.seeds, and compare",
    "check": "build everything and try one step, without writing anything",
}
NEEDS_VALUE = (
    "--cfg",
    "-c",
    "--package",
    "-p",
    "--info",
    "-i",
    "--config-dir",
    "-cd",
    "--config-name",
    "-cn",
    "--config-path",
    "-cp",
)


@dataclass
class CommandLine:
    """A command line in its parts: the command, the run of ``from=``, Hydra's own flags, and the overrides."""

    command: str = "run"
    parent: Path | None = None
    flags: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)

    @property
    def sweeps(self) -> bool:
        return "--multirun" in self.flags


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point. Exits with 0; with 2 for what the user can mend; with 130 or 143 when stopped."""
    ConfigStore.instance().store("schema", Config)
    with one_line_errors():
        line = parse(list(sys.argv[1:] if argv is None else argv))
        if "--help" in line.flags:
            print(help_text())
        elif line.flags and not line.sweeps:  # Hydra's own business: --cfg, --info, --version, ...
            launch(line)
        elif line.command == "check":
            check(composed(line.overrides))
        else:
            launch(prepared(line))


def parse(arguments: list[str]) -> CommandLine:
    """Splits a command line; whatever is neither command, flag nor KEY=VALUE is an error."""
    line = CommandLine()
    if arguments and "=" not in arguments[0] and not arguments[0].startswith(("-", "~", "+")):
        line.command = arguments.pop(0)
        if line.command not in COMMANDS:
            raise UserError(f"command: {unknown(line.command, list(COMMANDS))}")
    while arguments:
        argument = arguments.pop(0)
        if argument.startswith("-"):
            line.flags.append({"-m": "--multirun", "-h": "--help"}.get(argument, argument))
            if argument in NEEDS_VALUE and arguments:
                line.flags.append(arguments.pop(0))
        elif argument.startswith("from="):
            line.parent = Path(argument.removeprefix("from=")).expanduser().resolve()
            if not (line.parent / "state.json").is_file():
                raise UserError(f"{argument}: not the folder of a run (there is no state.json in it)")
        elif "=" in argument or argument.startswith("~"):
            line.overrides.append(argument)
        else:
            raise UserError(f"{argument!r} is neither a command nor KEY=VALUE; see supernet --help")
    return line


def prepared(line: CommandLine) -> CommandLine:
    """The line as Hydra is to see it: a parent's overrides first, everything checked, the folder chosen."""
    if line.parent is None and line.command in ("evaluate", "report", "export"):
        raise UserError(f"{line.command} needs the folder of a run: supernet {line.command} from=RUN_DIR")
    if line.parent is not None:
        new = {key(override) for override in line.overrides}
        old = yaml.safe_load((line.parent / ".hydra" / "overrides.yaml").read_text()) or []
        line.overrides = [override for override in old if key(override) not in new] + line.overrides
    for job in single_jobs(line.overrides) if line.sweeps else [line.overrides]:
        config = composed(job)
    if line.parent is not None and not line.sweeps and same_computation(config, line.parent, line.command):
        line.overrides = [*line.overrides, f"hydra.run.dir='{line.parent}'"]
    return line


def launch(line: CommandLine) -> None:
    """Hands over to Hydra, which makes the folder and calls back, once a job."""

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def job(cfg: DictConfig) -> None:
        with one_line_errors():
            execute(line.command, to_config(cfg), Path(HydraConfig.get().runtime.output_dir), line.parent)

    before = sys.argv
    sys.argv = ["supernet", *line.flags, *line.overrides]
    try:
        job()
    finally:
        sys.argv = before


def execute(command: str, config: Config, folder: Path, parent: Path | None = None) -> None:
    """Runs one command in ``folder``; ``parent`` is the run that a new folder starts from."""
    progress, stop = Progress(), StopRequest()
    with stop.listening():
        try:
            if command == "study":
                study.run(config, folder, study_jobs(config), progress, stop)
                return
            progress.message(f"{command}: {config.name} in {folder}")
            with Run(config, folder, parent=parent, progress=progress, stop=stop) as run:
                if command == "evaluate":
                    judgement = run.evaluate()
                    progress.message(
                        f"accuracy {judgement.accuracy:.4f} ± {judgement.standard_error:.4f} (standard error), "
                        f"loss {judgement.loss:.4f}, on {judgement.images} images, with inherited weights"
                    )
                    return
                getattr(run, command)()
                results = run.results()
        except Stopped as stopped:
            progress.message(f"stopped by {stopped}; go on with: supernet {command} from={folder}")
            sys.exit(128 + stopped.signum)
    if command in ("run", "retrain"):
        progress.message(summary_table(results))
    for name in ("report.html", "export", "architecture.json"):
        if (folder / name).exists():
            progress.message(f"{name.partition('.')[0]}: {folder / name}")
    progress.message(f"folder: {folder}")


def check(config: Config) -> None:
    """Builds everything, tries one step of each stage, says how large it is; writes nothing."""
    progress = Progress()
    for line in Run(config, Path(os.devnull)).check():
        progress.message(line)


def study_jobs(config: Config) -> list[tuple[str, Config]]:
    """Every method with every seed: the name of the subfolder and the configuration."""
    own = [override for override in HydraConfig.get().overrides.task if key(override) not in ("method", "seed")]
    return [
        (
            f"{method}-{seed}",
            composed([*own, f"method={method}", f"seed={seed}"]),
        )
        for method in config.study.methods
        for seed in config.study.seeds
    ]


# --- configuration


def conf_dir() -> Path:
    """The YAML: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "conf"


def composed(overrides: Sequence[str]) -> Config:
    """The configuration of these overrides, checked."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", list(overrides), return_hydra_config=True)
        with restored_hydra_config():
            HydraConfig.instance().set_config(cfg)
            return to_config(cfg)


@contextlib.contextmanager
def restored_hydra_config() -> Iterator[None]:
    """Composing inside a running job must not change what Hydra says of that job."""
    before = HydraConfig.instance().cfg
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def to_config(cfg: DictConfig) -> Config:
    plain = OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name != "hydra"])
    return typed(Config, OmegaConf.to_container(plain, resolve=True, throw_on_missing=True), "")


def key(override: str) -> str:
    """What an override is about: ``+a.b=1`` -> ``a.b``."""
    return override.partition("=")[0].lstrip("+~")


def single_jobs(overrides: Sequence[str]) -> list[list[str]]:
    """One job of a sweep for each value of each swept key, so that a wrong value is found before the first job runs."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    swept = {o.input_line: [f"{o.key_or_group}={v}" for v in o.sweep_string_iterator()] for o in parsed if o.is_sweep_override()}
    first = [swept.get(o, [o])[0] for o in overrides]
    jobs = [first]
    for position, override in enumerate(overrides):
        jobs += [[*first[:position], value, *first[position + 1 :]] for value in swept.get(override, [])[1:]]
    return jobs


# --- what people read


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns what the user can mend into one line and exit code 2; HYDRA_FULL_ERROR=1 shows the whole traceback."""
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"supernet: {explained(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("supernet: interrupted", file=sys.stderr)
        sys.exit(130)


def explained(error: Exception) -> str:
    """One line: the key, what was expected, and the nearest valid name."""
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{group}: {unknown(name, list(error.options or []))}"
    cause = error.__cause__ or error
    at = getattr(cause, "full_key", None) or ""
    if (isinstance(error, ConfigCompositionException) and "is not in" in str(cause)) or "not in '" in str(cause):
        wrong = at or str(error).partition("'")[2].partition("'")[0]
        near = difflib.get_close_matches(wrong, known_keys(), n=1, cutoff=0.5)
        return f"{wrong}: there is no such setting; " + (f"did you mean {near[0]}?" if near else "see supernet --cfg job")
    text = str(cause).splitlines()[0]
    return f"{at}: {text}" if at else " ".join(str(error).split())


def known_keys() -> list[str]:
    """Every key and group of the default configuration."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        tree = OmegaConf.to_container(compose("config"), resolve=False)

    def flat(node: object, prefix: str) -> Iterator[str]:
        for name, value in node.items() if isinstance(node, dict) else ():
            yield f"{prefix}{name}"
            yield from flat(value, f"{prefix}{name}.")

    return [*flat(tree, ""), *(path.name for path in conf_dir().iterdir() if path.is_dir())]


def help_text() -> str:
    commands = "\n".join(f"  {name:<10}{what}" for name, what in COMMANDS.items())
    groups = "\n".join(
        f"  {folder.name:<10}{', '.join(sorted(path.stem for path in folder.glob('*.yaml')))}"
        for folder in sorted(conf_dir().iterdir())
        if folder.is_dir()
    )
    return f"""supernet [COMMAND] [from=RUN_DIR] [KEY=VALUE ...]

Commands
{commands}

Groups, chosen as space=darts
{groups}

Settings are changed as search.epochs=10; `supernet --cfg job` prints all of them with their values.
from=RUN_DIR goes on from a run: in its folder, or in a new one if the overrides change what was computed.
-m runs every combination: supernet -m method=darts,spos seed=0,1,2"""


if __name__ == "__main__":
    main()
