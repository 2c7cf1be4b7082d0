"""The comparison of a study as tables for the console."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from supernet.report import comparison, values
from supernet.report.console import console_table


def tables(rows: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """The tables of all spaces and data sets."""
    for title, content in comparison.titled(rows).items():
        yield console_table(content, title)


def failed_table(failures: Mapping[str, str]) -> Table:
    """The runs that failed, and why."""
    return console_table(values.Table(["failed run", "why"], list(failures.items())))
