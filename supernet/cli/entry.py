"""The entry point. It parses first, and then imports only what the command needs.

Torch and all that stands on it take seconds to import. ``--version`` and ``--help`` need none of
it, neither does ``--cfg``, which prints settings, and a wrong line is refused before.
"""

from collections.abc import Sequence
from dataclasses import replace

from supernet.cli.line import CommandLine, given_anew, key, parse
from supernet.cli.messages import one_line_errors
from supernet.errors import UserError
from supernet.track.output import steady_output


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point. The exit code is 0; 1 if a reproduction differs from the run that it
    repeats; 2 for an error that the user can correct; 129, 130 or 143 if it was stopped by SIGHUP,
    SIGINT or SIGTERM.
    """
    with steady_output(), one_line_errors():
        line = parse(argv)
        from supernet.cli.composition import whole  # Hydra takes long to import

        whole.cache_clear()  # the files may have changed since an earlier command of this process
        line = with_parent(line)
        if line.flags and not line.sweeps:  # --cfg and the like
            show(line)
        else:
            check(line)
            from supernet.cli.commands import perform

            perform(line)


def check(line: CommandLine) -> None:
    """Raises a UserError if it can be known before torch is imported that the line is wrong. Of a
    sweep, the first job is checked.
    """
    if others := [flag for flag in line.flags if flag != "--multirun"]:
        raise UserError(f"{' '.join(others)}: shows one configuration; leave out -m")
    from supernet.cli.composition import require_right
    from supernet.cli.overrides import single_jobs

    require_right(single_jobs(line.overrides)[0] if line.sweeps else line.overrides, line.folders)


def show(line: CommandLine) -> None:
    """Prints what the flags of the line ask for."""
    from supernet.cli.composition import as_yaml, composition
    from supernet.cli.launch import launch

    with composition(line.overrides, line.folders) as cfg:  # an error is one line
        settings = as_yaml(cfg)
    if line.flags == ["--cfg", "job"]:
        print(settings, end="")  # Hydra would compose it once more, to print the same
    else:
        launch(line, lambda cfg: None)


def require_statements(line: CommandLine) -> None:
    """Raises a UserError if a line of the command ``checklist`` has other settings than its own."""
    for override in line.overrides:
        if not key(override).startswith("checklist."):
            raise UserError(
                f"{override}: supernet checklist shows what is in {line.parent}; it has the "
                "settings checklist.code and checklist.tuning alone"
            )
    if line.sweeps:
        raise UserError("-m: supernet checklist shows one folder; leave out -m")


def with_parent(line: CommandLine) -> CommandLine:
    """The line, with the overrides that the folder of ``from=`` was started with. Overrides that
    the line itself has replace them, and their text is what was typed.

    Raises:
        UserError: the command needs such a folder, or the folder is not one of a run.
    """
    # Hydra and OmegaConf take long to import
    from supernet.cli.recorded import kept_folders, overrides_of
    from supernet.cli.texts import with_texts

    before: list[str] = []
    if line.command == "checklist" and line.parent is not None:
        require_statements(line)
    elif line.parent is not None:
        before = overrides_of(line.parent, line.command)
        before = [override for override in before if not given_anew(override, line.overrides)]
        line.folders = kept_folders(before, line.parent, line, line.folders)
    elif line.command in ("evaluate", "report", "export", "reproduce", "checklist"):
        raise UserError(
            f"{line.command} needs the folder of a run: supernet {line.command} from=RUN_DIR"
        )
    return replace(line, overrides=[*before, *with_texts(line, before)])
