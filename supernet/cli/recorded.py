"""The settings with which a folder was started: the files in ``.hydra``.

``supernet/cli`` writes these files itself, and atomically. Hydra would write them again each time.
A study that goes on with other settings records them in the place of the earlier ones.
"""

import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf

from supernet.checklist.record import RESULTS, STATEMENT
from supernet.checklist.record import read as read_record
from supernet.cli.composition import composed, settings
from supernet.cli.line import CommandLine, key
from supernet.cli.options import Folders, Recorded
from supernet.cli.trust import named, require_plain
from supernet.config import StudySettings, truth
from supernet.errors import UserError
from supernet.files import write_json, write_text
from supernet.runs.lock import InUse, held
from supernet.shapes import NextRecord, Overrides, Places, Settings, read

HYDRA = ".hydra"
CONFIG, FOLDERS, OVERRIDES = "config.yaml", "folders.yaml", "overrides.yaml"
NEXT = "next.json"  # the files of a record that takes the place of another one


def record(
    folder: Path, cfg: DictConfig, overrides: Sequence[str], folders: Folders, anew: bool
) -> None:
    """Records the settings, before anything else is done. Those of an earlier line stay, unless
    ``anew``. What was stated stays until it is stated otherwise.
    """
    finish(folder)
    before = recorded_in(folder)
    if anew or before is None:
        given = list(map(key, overrides))
        said = [one for one in before or [] if states(one) and key(one) not in given]
        value = cast(dict[str, Any], OmegaConf.to_container(settings(cfg), resolve=True))
        places = yaml.safe_dump(list(map(str, folders.own))) if folders.own else None
        replace_record(folder, stated(value, overrides, said) | {FOLDERS: places})
    else:
        record_statements(folder, overrides)


def recorded_in(folder: Path) -> list[str] | None:
    """The overrides that ``folder`` records; ``None`` if it records none."""
    path = folder / HYDRA / OVERRIDES
    found: list[str] | None = read(path, Overrides) if path.exists() else None
    return found


def record_statements(folder: Path, overrides: Sequence[str]) -> None:
    """Adds to the recorded settings what ``overrides`` say under ``checklist``. These settings
    alone may be given later, because they are about the run.

    Raises:
        UserError: what is recorded is missing or damaged.
    """
    said = list(filter(states, overrides))
    before = read(folder / HYDRA / OVERRIDES, Overrides)
    if not set(said) <= set(before):
        replace_record(folder, stated(read(folder / HYDRA / CONFIG, Settings), before, said))


def states(override: str) -> bool:
    """Whether an override states what no folder can know of a run."""
    return key(override).startswith(STATEMENT)


def stated(
    value: dict[str, Any], overrides: Sequence[str], said: Sequence[str]
) -> dict[str, str | None]:
    """The files of a record with the settings ``value`` and the ``overrides``, to which what is
    ``said`` is added.
    """
    names = [key(one) for one in said]
    if said:
        statements = dataclasses.asdict(composed(said).checklist)
        new = {one: statements[one] for one in (name.partition(".")[2] for name in names)}
        value = value | {"checklist": value.get("checklist", {}) | new}
    return {
        CONFIG: yaml.safe_dump(value, sort_keys=False, allow_unicode=True),
        OVERRIDES: yaml.safe_dump([*(one for one in overrides if key(one) not in names), *said]),
    }


def replace_record(folder: Path, files: dict[str, str | None]) -> None:
    """Replaces files of the record: name -> text, ``None`` for no file. As soon as :data:`NEXT` is
    there, the new ones hold, all of them.
    """
    write_json(folder / HYDRA / NEXT, files)
    finish(folder)


def finish(folder: Path) -> None:
    """Ends a change of the record that was stopped in the middle.

    Raises:
        UserError: its files are damaged, or the folder cannot be written.
    """
    path = folder / HYDRA / NEXT
    if path.is_file():
        for name, text in read(path, NextRecord).items():
            if text is None:
                (folder / HYDRA / name).unlink(missing_ok=True)
            else:
                write_text(folder / HYDRA / name, text)
        path.unlink()


def finish_if_free(folder: Path) -> None:
    """The same, unless another process uses the folder: that one ends the change itself."""
    if (folder / HYDRA / NEXT).is_file():
        with suppress(InUse), held(folder):
            finish(folder)


def folders_of(folder: Path, trusted: bool) -> Folders:
    """The folders of options that the run in ``folder`` was started with.

    Their files can set anything and name any class. Which folders they are is recorded, so they are
    only used if the user says that ``folder`` is ``trusted``.

    Raises:
        UserError: it is not trusted, or one of the folders does not exist any more.
    """
    path = folder / HYDRA / FOLDERS
    if not path.is_file():
        return Folders()
    places = read(path, Places)
    if not trusted:
        raise UserError(
            f"{path}: the run has options of its own, from {', '.join(places)}; if you trust them, "
            f"add trust=true, or give the folder anew: --config-dir={places[0]}"
        )
    return Folders.of(map(Path, places))


def same_truth(folder: Path, study: StudySettings) -> bool:
    """Whether the accuracies of ``study`` come from where those in ``folder`` come from: from
    trainings, or from the same columns of the same table in the same way.
    """
    path = folder / HYDRA / CONFIG
    recorded = read(path, Settings).get("study", {}) if path.is_file() else {}
    return truth(dataclasses.asdict(StudySettings()) | recorded) == truth(dataclasses.asdict(study))


def holds_study(folder: Path) -> bool:
    """Whether ``folder`` holds the results of a study or of a simulation. The results of a run are
    not read: a command writes them anew if they are damaged.

    Raises:
        UserError: the results of a study are damaged.
    """
    is_run = (folder / "state.json").is_file()
    return not is_run and (folder / RESULTS).is_file() and read_record(folder).is_study


def overrides_of(folder: Path, study: bool = False, setting: str = "from") -> list[str]:
    """The overrides that the run, or the ``study``, in ``folder`` was started with.

    Raises:
        UserError: it is not the folder of a run, or of a study. The message names ``setting``,
            which gave the folder.
    """
    record, is_run = folder / HYDRA / OVERRIDES, (folder / "state.json").is_file()
    if study and is_run:
        raise UserError(
            f"from={folder}: that is the folder of a run; supernet study goes on from that of a "
            "study"
        )
    if not study and not is_run:
        others = (path.parent for path in folder.glob("*/state.json"))
        runs = ", ".join(sorted(one.name for one in others if (one / ".hydra").is_dir()))
        none = " (there is no state.json in it)"
        hint = f"; choose one of the runs in it: {runs}" if runs else none
        raise UserError(f"{setting}={folder}: not the folder of a run{hint}")
    if not record.is_file():
        raise UserError(
            f"{setting}={folder}: there is no {record.relative_to(folder)} in it, which says how "
            "it was started; restore it"
        )
    return read(record, Overrides)


def kept_folders(kept: Sequence[str], folder: Path, line: CommandLine, given: Folders) -> Folders:
    """The folders of options for the overrides ``kept``, which ``folder`` records: those that are
    ``given``, or else those that it records.

    Raises:
        UserError: ``folder`` records more than data, and the user has not said to trust it.
    """
    require_plain(kept, folder, line.trust)
    folders = given if given.own else folders_of(folder, line.trust)
    if line.trust:
        return folders
    return replace(folders, recorded=Recorded(folder, named(line.typed, given)))
