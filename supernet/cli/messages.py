"""The texts that people read: the help, and Hydra's errors in one line each."""

import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Iterator, Sequence

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from supernet.cli.options import Folders
from supernet.errors import UserError, unknown

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

WHOLE = ("experiment", "debug")  # groups of settings for a whole run; a run needs none of them


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns an error that the user can correct into one line and exit code 2. HYDRA_FULL_ERROR=1
    shows the whole traceback.
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


def explained(error: Exception, folders: Folders, known: Callable[[], Sequence[str]]) -> str:
    """One line for an error of Hydra: the key, what was expected, and the nearest valid name.

    ``known`` returns every key of the configuration. It is called only if it is needed.
    """
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{group}: {unknown(name, folders.options(group))}"
    if "Ambiguous value" in str(error):
        several = str(error).partition("'")[2].partition("'")[0]
        return (
            f"{several}: add -m to run a job for each of these values; one value that is a list "
            "is written KEY=[a,b]"
        )
    cause = error.__cause__ or error
    at = getattr(cause, "full_key", None) or ""
    no_such_key = isinstance(error, ConfigCompositionException) and "is not in" in str(cause)
    if no_such_key or "not in '" in str(cause):
        wrong = at or str(error).partition("'")[2].partition("'")[0]
        group, _, part = wrong.partition(".")
        if group in folders.groups() and part in folders.options(group):
            return f"{wrong}: {part} is not chosen, so it has no settings; add {group}=[{part}]"
        near = difflib.get_close_matches(wrong, known(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "see supernet --cfg job"
        return f"{wrong}: there is no such setting; {hint}"
    text = str(cause).splitlines()[0]
    return f"{at}: {text}" if at else str(error)


def help_text(folders: Folders) -> str:
    """What ``supernet --help`` prints."""
    commands = "\n".join(f"  {name:<12}{what}" for name, what in COMMANDS.items())
    groups = [group for group in folders.groups() if group not in WHOLE]
    choices, whole = (
        "\n".join(f"  {group:<12}{', '.join(folders.options(group))}" for group in names)
        for names in (groups, WHOLE)
    )
    return f"""supernet [COMMAND] [from=RUN_DIR] [KEY=VALUE ...]

Commands
{commands}

Groups, chosen as space=darts
{choices}

Settings of a whole run, chosen as experiment=default_method
{whole}

Settings are changed as search.epochs=10; `supernet --cfg job` prints all of them with their values.
from=RUN_DIR goes on from a run: in its folder, or in a new one if the overrides change what was
computed. trust=true lets that run use classes and options that are not of this package.
-m runs every combination: supernet -m method=darts,spos seed=0,1,2
--config-dir DIR adds options of your own: DIR/space/mine.yaml is chosen as space=mine."""
