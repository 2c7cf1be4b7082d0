"""The command line, ``supernet [COMMAND] [from=RUN_DIR] [KEY=VALUE ...]``.

:mod:`~supernet.cli.entry` is where it begins. :mod:`~supernet.cli.line` parses the words that were
typed, and :mod:`~supernet.cli.overrides` those of the form KEY=VALUE. :mod:`~supernet.cli.recorded`
reads and writes the settings with which a folder was started. :mod:`~supernet.cli.composition` lets
Hydra compose the configuration, and :mod:`~supernet.cli.launch` lets Hydra start the jobs.
:mod:`~supernet.cli.commands` says what each command does, and :mod:`~supernet.cli.jobs` starts one
that writes to folders. :mod:`~supernet.cli.messages` holds the texts.
"""

from supernet.cli.entry import main

__all__ = ["main"]
