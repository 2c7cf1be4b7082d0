"""The command line, ``supernet [COMMAND] [from=RUN_DIR] [KEY=VALUE ...]``.

:mod:`~supernet.cli.line` takes apart what was typed. :mod:`~supernet.cli.composition` asks Hydra
for the configuration. :mod:`~supernet.cli.recorded` reads and writes what a folder was started
with. :mod:`~supernet.cli.commands` does it. :mod:`~supernet.cli.messages` has the words.
"""

from supernet.cli.commands import main

__all__ = ["main"]
