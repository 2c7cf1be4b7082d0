"""Completes a line by what the folder of ``from=`` records."""

from dataclasses import replace

from supernet.cli.line import CommandLine, given_anew, key
from supernet.cli.recorded import finish_if_free, holds_study, kept_folders, overrides_of
from supernet.cli.texts import with_texts
from supernet.errors import UserError


def require_shown(line: CommandLine) -> None:
    """Raises a UserError if a line that shows what a folder holds has settings. The command
    ``checklist`` may have its own.
    """
    states = line.command == "checklist"
    for override in line.overrides:
        if not (states and key(override).startswith("checklist.")):
            own = "it has the settings checklist.code and checklist.tuning alone"
            raise UserError(
                f"{override}: supernet {line.command} shows what is in {line.parent}; "
                f"{own if states else 'leave it out'}"
            )
    if line.sweeps:
        raise UserError(f"-m: supernet {line.command} shows one folder; leave out -m")


def with_parent(line: CommandLine) -> CommandLine:
    """The line, with the overrides that the folder of ``from=`` was started with. Overrides that
    the line itself has replace them, and their text is what was typed.

    Raises:
        UserError: the command needs such a folder, or the folder is not one of a run.
    """
    before: list[str] = []
    if line.parent is not None:
        finish_if_free(line.parent)
    if line.parent is not None and (
        line.command == "checklist" or (line.command == "report" and holds_study(line.parent))
    ):
        require_shown(line)
    elif line.parent is not None:
        whole = line.command == "study" or (
            line.command == "reproduce" and holds_study(line.parent)
        )
        before = overrides_of(line.parent, whole)
        before = [override for override in before if not given_anew(override, line.overrides)]
        line.folders = kept_folders(before, line.parent, line, line.folders)
    elif line.command in ("evaluate", "report", "export", "reproduce", "checklist"):
        raise UserError(
            f"{line.command} needs the folder of a run: supernet {line.command} from=RUN_DIR"
        )
    return replace(line, overrides=[*before, *with_texts(line, before)])
