"""What the folder of a run or of a study holds, and the commands that go on from it."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supernet import shapes
from supernet.errors import UserError
from supernet.files import within
from supernet.named import classes, programs

RESULTS, SETTINGS, OVERRIDES = "results.json", ".hydra/config.yaml", ".hydra/overrides.yaml"
RUN_DIR, STUDY_DIR = "RUN_DIR", "STUDY_DIR"
STATEMENT = "checklist."  # how a setting begins that states what no folder can know


@dataclass(frozen=True)
class Record:
    """A run, or a study with its ``runs``. A run of a study has the study as its ``study``."""

    folder: Path
    results: Mapping[str, Any]
    settings: Mapping[str, Any]
    runs: tuple["Record", ...] = ()
    study: "Record | None" = None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def is_simulation(self) -> bool:
        return "simulation" in self.results

    @property
    def is_study(self) -> bool:
        return self.is_simulation or "study" in self.results

    @property
    def whole(self) -> "Record":
        """The study that this run is of, or the record itself."""
        return self.study or self

    def has(self, name: str) -> bool:
        """Whether the folder holds the file of that name."""
        return within(self.folder, name).is_file()

    def setting(self, name: str) -> Any:
        """The recorded value of a setting, by its full name; ``None`` if there is none."""
        value: Any = self.settings
        for step in name.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        return value

    def statement(self, name: str) -> str:
        """What the user has stated by the setting ``checklist.NAME``; "" if nothing."""
        return " ".join(str(self.whole.setting(f"{STATEMENT}{name}") or "").split())

    @property
    def environments(self) -> list[Mapping[str, Any]]:
        """The different environments in which the jobs were computed."""
        if self.runs:
            each = [one for run in self.runs for one in run.environments]
        else:
            last = self.results.get("environment")
            each = [*self.results.get("environments_before", []), *([last] if last else [])]
        return [one for number, one in enumerate(each) if one not in each[:number]]

    def parts(self, *sections: str) -> list[str]:
        """The classes and programs that these sections of the settings name."""
        return sorted(set().union(*(named(self.setting(section)) for section in sections)))

    # --- commands

    @property
    def place(self) -> str:
        """What stands for the folder in a command, which may be moved to another place."""
        return STUDY_DIR if self.is_study else RUN_DIR

    def go_on(self, command: str, *overrides: str) -> str:
        """The command that goes on from the folder, or from that of the study."""
        whole = self.whole
        name = "study" if whole.is_study else command
        return shlex.join(["supernet", name, f"from={whole.place}", *overrides])

    def anew(self, *overrides: str) -> str:
        """The command that begins anew with the same settings, but for ``overrides``."""
        whole = self.whole
        return whole.begin("study" if whole.is_study else "run", *overrides)

    def begin(self, command: str, *overrides: str, leave_out: tuple[str, ...] = ()) -> str:
        """A command with the overrides of the folder, but for ``overrides``, statements, and what
        is left out.
        """
        path = self.folder / OVERRIDES
        kept = shapes.read(path, shapes.Overrides) if path.is_file() else []
        gone = {*leave_out, *(key(override) for override in overrides)}
        kept = [one for one in kept if key(one) not in gone and not key(one).startswith(STATEMENT)]
        return shlex.join(["supernet", command, *kept, *overrides])

    def say(self, name: str, what: str) -> str:
        """The command that records a statement."""
        return f'supernet checklist from={self.whole.place} checklist.{name}="{what}"'


def key(override: str) -> str:
    """The name of the setting that an override changes."""
    return override.partition("=")[0].lstrip("+~")


def named(value: Any) -> set[str]:
    """The classes and programs that are named anywhere in nested settings."""
    return {str(name) for _, name in (*classes(value), *programs(value))}


def read(folder: Path) -> Record:
    """What ``folder`` holds.

    Raises:
        UserError: it is not the folder of a run or of a study, or a file in it is damaged.
    """
    if not (folder / RESULTS).is_file():
        raise UserError(
            f"from={folder}: not the folder of a run or of a study (there is no {RESULTS} in it)"
        )
    results = shapes.read(folder / RESULTS, shapes.FolderResults)
    whole = Record(folder, results, settings_of(folder))
    runs = [
        Record(
            within(folder, one["folder"]),
            one,
            settings_of(within(folder, one["folder"])),
            (),
            whole,
        )
        for one in results.get("runs", [])
    ]
    return Record(folder, results, whole.settings, tuple(runs))


def settings_of(folder: Path) -> Mapping[str, Any]:
    path = folder / SETTINGS
    found: Mapping[str, Any] = shapes.read(path, shapes.Settings) if path.is_file() else {}
    return found
