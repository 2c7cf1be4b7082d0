"""Runs the command line as a user would: in this process if that is enough, otherwise in a process
of its own.
"""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supernet import cli

ROOT = Path(__file__).parents[1]
TINY = (
    "size=tiny",
    "data.train_limit=320",
    "measure.every=0",
)  # 10 steps of search, 20 of each retraining, and no instruments that take longer


@dataclass
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def folder(self) -> Path:
        """The folder that the command says it wrote."""
        return Path(re.findall(r"^folder: (.*)$", self.out, re.M)[-1])


def supernet(*arguments: str, cwd: Path) -> Outcome:
    """Runs ``supernet ARGUMENTS`` in the folder ``cwd``, in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(list(arguments))
        except SystemExit as exit:
            code = exit.code or 0
    return Outcome(code, out.getvalue(), err.getvalue())


def finished(*arguments: str, cwd: Path) -> Path:
    """Runs a command that must succeed without any warning. Returns the folder that it wrote."""
    outcome = supernet(*arguments, cwd=cwd)
    assert (outcome.code, outcome.err) == (0, "")
    return outcome.folder


def process(*arguments: str, cwd: Path, **settings: Any) -> subprocess.Popen:
    """Starts ``python -m supernet.cli ARGUMENTS`` in a process and a process group of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"} | {
        "PYTHONPATH": str(ROOT)
    }
    return subprocess.Popen(
        [sys.executable, "-m", "supernet.cli", *arguments],
        cwd=cwd,
        env=environment | settings.pop("env", {}),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **settings,
    )


def waited(running: subprocess.Popen) -> Outcome:
    out, err = running.communicate(timeout=300)
    return Outcome(running.returncode, out, err)


def wandb_records(folder: Path) -> list[dict[str, Any]]:
    """The records of the one offline run in a run folder, read by W&B's own reader."""
    (run,) = (folder / "wandb").glob("offline-run-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def wandb_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows that W&B would draw, without times."""
    items = [
        record["history"]["item"] for record in wandb_records(folder) if record["type"] == "history"
    ]
    return [
        {k: v for k, v in item.items() if k not in ("_runtime", "_timestamp")} for item in items
    ]


def as_wandb(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of ``metrics.jsonl`` as W&B stores them: each stage has a step of its own."""
    return [
        {"_step": index}
        | {f"{row['stage']}/{k}": v for k, v in row.items() if k != "stage" and v is not None}
        for index, row in enumerate(rows)
    ]
