"""The comparison of a study as tables for the console."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from supernet.report import comparison


def tables(rows: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """The tables of all spaces and data sets."""
    for title, content in comparison.titled(rows).items():
        shown = Table(*content.columns, title=title, title_justify="left")
        for row in content.rows:
            shown.add_row(*map(escape, row))
        yield shown


def failed_table(failures: Mapping[str, str]) -> Table:
    """The runs that failed, and why."""
    result = Table("failed run", "why")
    for name, line in failures.items():
        result.add_row(escape(name), escape(line))
    return result
