"""Starts Hydra."""

import sys
from collections.abc import Callable

import hydra
from omegaconf import DictConfig

from supernet.cli.composition import register
from supernet.cli.line import CommandLine
from supernet.cli.messages import one_line_errors
from supernet.cli.options import conf_dir


def launch(line: CommandLine, job: Callable[[DictConfig], None]) -> None:
    """Starts Hydra, which calls ``job`` once for each run. With the flag ``--cfg`` and the like,
    Hydra prints what the flag asks for and calls nothing.
    """
    register()

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def started(cfg: DictConfig) -> None:
        with one_line_errors():
            job(cfg)

    before = sys.argv
    sys.argv = ["supernet", *line.flags, *line.folders.override(), *line.overrides]
    try:
        started()
    finally:
        sys.argv = before
