"""The settings with which a folder was started: the files in ``.hydra``.

``supernet/cli`` writes these files itself, once and atomically. Hydra would write them again each
time.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf

from supernet.checklist.record import RESULTS
from supernet.checklist.record import read as read_record
from supernet.cli.composition import composed, settings
from supernet.cli.line import CommandLine, key
from supernet.cli.options import Folders, Recorded
from supernet.cli.trust import named, require_plain
from supernet.errors import UserError
from supernet.files import write_text
from supernet.shapes import Overrides, Places, Settings, read


def record(
    folder: Path, cfg: DictConfig, overrides: Sequence[str], folders: Folders, anew: bool
) -> None:
    """Records the settings, before anything else is done. Those of an earlier line stay, unless
    ``anew``.
    """
    if anew or not (folder / ".hydra" / "overrides.yaml").exists():
        text = OmegaConf.to_yaml(settings(cfg), resolve=True)
        write_text(folder / ".hydra" / "config.yaml", text)
        (folder / ".hydra" / "folders.yaml").unlink(missing_ok=True)
        if folders.own:
            places = yaml.safe_dump([str(place) for place in folders.own])
            write_text(folder / ".hydra" / "folders.yaml", places)
        write_text(folder / ".hydra" / "overrides.yaml", yaml.safe_dump(list(overrides)))
    else:
        record_statements(folder, overrides)


def record_statements(folder: Path, overrides: Sequence[str]) -> None:
    """Adds to the recorded settings what ``overrides`` say under ``checklist``. These settings
    alone may be given later, because they are about the run.

    Raises:
        UserError: what is recorded is missing or damaged.
    """
    said = [override for override in overrides if key(override).startswith("checklist.")]
    path, place = folder / ".hydra" / "overrides.yaml", folder / ".hydra" / "config.yaml"
    before = read(path, Overrides)
    if set(said) <= set(before):
        return
    recorded, stated = read(place, Settings), dataclasses.asdict(composed(said).checklist)
    given = [key(one).partition(".")[2] for one in said]
    recorded["checklist"] = recorded.get("checklist", {}) | {name: stated[name] for name in given}
    write_text(place, yaml.safe_dump(recorded, sort_keys=False, allow_unicode=True))
    after = [one for one in before if key(one) not in map(key, said)] + said
    write_text(path, yaml.safe_dump(after))


def folders_of(folder: Path, trusted: bool) -> Folders:
    """The folders of options that the run in ``folder`` was started with.

    Their files can set anything and name any class. Which folders they are is recorded, so they are
    only used if the user says that ``folder`` is ``trusted``.

    Raises:
        UserError: it is not trusted, or one of the folders does not exist any more.
    """
    path = folder / ".hydra" / "folders.yaml"
    if not path.is_file():
        return Folders()
    places = read(path, Places)
    if not trusted:
        raise UserError(
            f"{path}: the run has options of its own, from {', '.join(places)}; if you trust them, "
            f"add trust=true, or give the folder anew: --config-dir={places[0]}"
        )
    return Folders.of(map(Path, places))


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
    record, is_run = folder / ".hydra" / "overrides.yaml", (folder / "state.json").is_file()
    if study and is_run:
        raise UserError(
            f"from={folder}: that is the folder of a run; supernet study goes on from that of a "
            "study"
        )
    if not study and not is_run:
        runs = ", ".join(sorted(path.parent.name for path in folder.glob("*/state.json")))
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
