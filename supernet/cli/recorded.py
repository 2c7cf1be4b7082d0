"""The settings with which a folder was started: the files in ``.hydra``.

``supernet/cli`` writes these files itself, once and atomically. Hydra would write them again each
time.
"""

from collections.abc import Sequence
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf

from supernet.cli.composition import settings
from supernet.cli.options import Folders
from supernet.errors import UserError
from supernet.files import write_text


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


def folders_of(folder: Path) -> Folders:
    """The folders of options that the run in ``folder`` was started with.

    Raises:
        UserError: one of them does not exist any more.
    """
    path = folder / ".hydra" / "folders.yaml"
    if not path.is_file():
        return Folders()
    places = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Folders.of(map(Path, places))


def overrides_of(folder: Path, command: str, setting: str = "from") -> list[str]:
    """The overrides that the run in ``folder`` was started with; for the command ``study``, those
    of the study.

    Raises:
        UserError: it is not the folder of a run, or of a study. The message names ``setting``,
            which gave the folder.
    """
    record, is_run = folder / ".hydra" / "overrides.yaml", (folder / "state.json").is_file()
    if command == "study" and is_run:
        raise UserError(
            f"from={folder}: that is the folder of a run; supernet study goes on from that of a "
            "study"
        )
    if command != "study" and not is_run:
        runs = ", ".join(sorted(path.parent.name for path in folder.glob("*/state.json")))
        none = " (there is no state.json in it)"
        hint = f"; choose one of the runs in it: {runs}" if runs else none
        raise UserError(f"{setting}={folder}: not the folder of a run{hint}")
    if not record.is_file():
        raise UserError(
            f"{setting}={folder}: there is no {record.relative_to(folder)} in it, which says how "
            "it was started; restore it"
        )
    return yaml.safe_load(record.read_text(encoding="utf-8")) or []
