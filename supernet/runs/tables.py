"""Gives the tables of a comparison to the tracker."""

from collections.abc import Mapping
from pathlib import Path

from supernet.config import build
from supernet.report.values import Table
from supernet.runs.setup import Setup
from supernet.track.interface import Tracker


def track(tables: Mapping[str, Table], setup: Setup, folder: Path) -> None:
    """Gives tables to the tracker of ``setup``, as a run of the name of the ``folder``.

    Raises:
        UserError: the tracker cannot start.
    """
    tracker: Tracker = build(setup.config.tracker, "tracker", Tracker)
    tracker.start(folder, setup.settings | {"name": folder.name})
    for title, table in tables.items():
        tracker.table(title, table.columns, table.rows)
    tracker.close()
