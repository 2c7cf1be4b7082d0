"""The texts that people read: the help, and errors in one line each."""

import contextlib
import os
import sys
from collections.abc import Iterator

from supernet.cli.options import Folders
from supernet.errors import UserError, enough_memory

COMMANDS = {
    "run": "search, derive, retrain, report and export (this is the default)",
    "search": "train the supernet",
    "derive": "choose the architecture from the trained supernet",
    "retrain": "train it from scratch, beside random architectures",
    "evaluate": "judge architecture=... with the inherited weights of a run",
    "export": "write the trained network as JSON, Python, safetensors, torch.export and ONNX",
    "report": "write report.html",
    "latency": "measure the latency of every operation here, as a table for budget.latency_table",
    "reproduce": "run the run of from= again, and say whether its results come out again",
    "rank": "compare the order in which the trained supernet puts architectures with the truth",
    "study": "run every method of study.methods with every seed of study.seeds, and compare",
    "checklist": "show which good practices a run or a study follows, each with its evidence",
    "check": "build everything and try one step, without writing anything",
}

WHOLE = ("experiment", "debug")  # groups of settings for a whole run; a run needs none of them


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns an error that the user can correct into one line and exit code 2. HYDRA_FULL_ERROR=1
    shows the whole traceback.
    """
    try:
        with enough_memory("memory"):
            yield
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1" or not correctable(error):
            raise
        print(f"supernet: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("supernet: interrupted", file=sys.stderr)
        sys.exit(130)


def correctable(error: Exception) -> bool:
    """Whether the user can correct what ``error`` reports."""
    from hydra.errors import HydraException  # Hydra takes long to import
    from omegaconf.errors import OmegaConfBaseException

    return isinstance(error, UserError | HydraException | OmegaConfBaseException | OSError)


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
