"""What a run folder holds so far: ``state.json``, and the keys by which finished stages are known
again.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supernet.errors import UserError
from supernet.files import read_json, write_json

SCHEMA = 1


def key_of(*parts: Any) -> str:
    """A short hash that differs if any of the parts (JSON values) does."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@dataclass
class State:
    """What a run folder holds so far: finished stages by name, the run that it came from, where its
    trackers stand.
    """

    folder: Path
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    plan: dict[str, str] | None = None  # what the run is to compute: see Run.plan
    parent: str | None = None
    origin: dict[str, Any] | None = (
        None  # the parent's search as it was then, key and result: it may go on, move or be deleted
    )
    warm_start: list[str] | None = (
        None  # the keys of the retrainings that retrain.warm_start names, as they were then
    )
    memory: dict[str, Any] | None = None  # what was foretold, and the batch that was chosen by it
    tracker: dict[str, Any] | None = None

    @classmethod
    def read(cls, folder: Path) -> "State":
        """The state of ``folder``; an empty one if it has none yet."""
        path = Path(folder) / "state.json"
        if not path.exists():
            return cls(Path(folder))
        value = read_json(path)
        schema = value.pop("schema", None) if isinstance(value, dict) else None
        if schema != SCHEMA:
            raise UserError(
                f"{path}: its schema is {schema}, not {SCHEMA}; this run needs another version of "
                "supernet"
            )
        return cls(Path(folder), **value)

    def write(self) -> None:
        value = {k: v for k, v in vars(self).items() if k != "folder"}
        write_json(self.folder / "state.json", {"schema": SCHEMA} | value)

    def result(self, stage: str, key: str) -> Any | None:
        """The result of a finished stage, if it was computed with the same ``key``."""
        found = self.stages.get(stage)
        return found["result"] if found and found["key"] == key else None


def remove_leftovers(folder: Path) -> None:
    """Removes what :func:`supernet.files.atomic` leaves behind when its process is killed."""
    for parent in (folder, folder / "checkpoints", folder / "pareto", folder / "wandb"):
        for path in parent.glob(".*.tmp"):
            path.unlink(missing_ok=True)
