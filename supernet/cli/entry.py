"""The entry point. It parses first, and then imports only what the command needs.

Torch and all that stands on it take seconds to import. ``--version`` and ``--help`` need none of
it, neither does ``--cfg``, which prints settings, and a wrong line is refused before.
"""

from collections.abc import Sequence

from supernet.cli.line import CommandLine, parse
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
        from supernet.cli.parent import with_parent

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
