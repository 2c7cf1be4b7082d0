"""The folder of a run: its state, its results, its checkpoints, and its rows of figures.

| file | what it holds |
|---|---|
| ``state.json`` | the key and the result of every finished job, and what the run must remember |
| ``results.json`` | the figures of the run so far, for people and programs |
| ``checkpoints/JOB.pt`` | the last checkpoint of a job that trains |
| ``metrics/JOB.jsonl`` | the rows that a job has logged |
| ``latency.csv`` | the latency table, if the budget needs one |
| ``metrics.jsonl`` | the rows of all jobs, in the order in which they came |
| ``.lock`` | is locked while a process writes to the folder (:mod:`supernet.runs.lock`) |
"""

import shutil
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from supernet.errors import UserError
from supernet.files import atomic, read_json, write_json
from supernet.runs.lock import HOLDER, LOCK
from supernet.shapes import RunState, checked
from supernet.train.checkpoint import Checkpoints

SCHEMA = 3  # 2: of versions before the content of data was part of every key
LATENCIES = "latency.csv"  # a run that goes on reads it, and so computes the same


@dataclass
class State:
    """The content of ``state.json``. It is replaced as a whole whenever a job ends."""

    folder: Path
    # Name of each finished job -> its key and its result.
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    plan: str | None = None  # the key of all settings that a result depends on
    parent: str | None = None  # the folder of the run that this one goes on from
    # The parent's search when this run began. It is kept, because the parent may be continued,
    # moved or deleted.
    origin: dict[str, Any] | None = None
    warm_start: list[str] | None = None  # keys of the retrainings that retrain.warm_start names
    # the predicted memory, and the batch that was chosen for it
    memory: dict[str, Any] | None = None
    # the checksums of the data set and of the files that settings name, from when the run began
    contents: dict[str, dict[str, Any]] | None = None
    # the versions and the hardware with which its jobs were done; several, if the run went on
    # elsewhere
    environments: list[dict[str, Any]] = field(default_factory=list)
    # the run that this one repeats, and what the comparison with it says
    reproduction: dict[str, Any] | None = None

    @classmethod
    def read(cls, folder: Path) -> "State":
        """The state of ``folder``; an empty state if it has none yet.

        Raises:
            UserError: the file is not JSON, or of another version.
        """
        path = Path(folder) / "state.json"
        if not path.exists():
            return cls(Path(folder))
        value = read_json(path)
        schema = value.pop("schema", None) if isinstance(value, dict) else None
        if schema != SCHEMA:
            raise UserError(
                f"{path}: its schema is {schema}, but supernet {version('supernet')} reads "
                f"{SCHEMA}; this run needs another version of supernet, or a new start without "
                "from="
            )
        checked({"schema": schema, **value}, RunState, path)
        return cls(Path(folder), **value)

    @classmethod
    def begin(cls, folder: Path, parent: Path | None) -> None:
        """Writes the state of a run that has not begun, if the folder has none yet. So a run that
        is stopped or killed before it has done anything can go on from its folder.
        """
        if not (folder / "state.json").exists():
            cls(folder, parent=None if parent in (None, folder) else str(parent)).write()

    def require_there(self) -> None:
        """Raises a UserError if the folder was deleted or moved while the run was writing to it."""
        if not (self.folder / "state.json").exists():
            raise UserError(
                f"{self.folder} was deleted or moved while the run was writing to it; if it was "
                "moved, go on with from=ITS_NEW_PLACE, otherwise start again"
            )

    def write(self) -> None:
        value = {k: v for k, v in vars(self).items() if k != "folder"}
        write_json(self.folder / "state.json", {"schema": SCHEMA} | value)

    def result(self, name: str, key: str) -> Any | None:
        """The result of a finished job, if it was computed with the same ``key``."""
        found = self.stages.get(name)
        return found["result"] if found and found["key"] == key else None


def computed(folder: Path) -> bool:
    """Whether anything was computed in the folder of a run, or in that of a run of a study. If not,
    the folder can be used for other settings.
    """
    runs = [folder, *(path.parent for path in folder.glob("*/state.json"))]
    return any(State.read(run).stages or any((run / "checkpoints").glob("*.pt")) for run in runs)


def rows_path(folder: Path, name: str) -> Path:
    """The file in which the job of that name logs its rows."""
    return folder / "metrics" / f"{name.replace('/', '-')}.jsonl"


def take_over(parent: Path, folder: Path, name: str) -> None:
    """Copies the checkpoint and the rows of a finished stage from the folder of the parent run.

    They replace what this run has: it may have begun the same stage and stopped in the middle.
    """
    theirs, ours = Checkpoints(parent / "checkpoints"), Checkpoints(folder / "checkpoints")
    pairs = [
        (theirs.path(name), ours.path(name)),
        (rows_path(parent, name), rows_path(folder, name)),
    ]
    for source, target in pairs:
        if source.exists():
            copy(source, target)


def copy(source: Path, target: Path) -> None:
    """Copies a file atomically: ``target`` is never incomplete.

    Raises:
        UserError: ``target`` cannot be written.
    """
    with atomic(target) as temporary:
        shutil.copyfile(source, temporary)


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files that :func:`supernet.files.atomic` leaves if it is killed."""
    inside = ("checkpoints", "metrics", "pareto", "wandb")
    for parent in (folder, *(folder / name for name in inside)):
        for path in parent.glob(".*.tmp"):
            path.unlink(missing_ok=True)


def empty(folder: Path) -> None:
    """Removes all that a run has left in ``folder``, which is held. Its state goes last: if this is
    stopped, the folder is still that of the run.
    """
    state = folder / "state.json"
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != state and path.name not in (LOCK, HOLDER):
            path.unlink()
    state.unlink(missing_ok=True)
