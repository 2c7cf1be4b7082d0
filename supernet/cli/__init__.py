"""The command line, ``supernet [COMMAND] [from=RUN_DIR] [KEY=VALUE ...]``.

:mod:`~supernet.cli.line` parses the words that were typed. :mod:`~supernet.cli.composition` lets
Hydra compose the configuration. :mod:`~supernet.cli.recorded` reads and writes the settings with
which a folder was started. :mod:`~supernet.cli.commands` runs the command.
:mod:`~supernet.cli.messages` holds the texts.
"""

from supernet.cli.commands import main

__all__ = ["main"]
