"""A table of the page, for the console."""

from rich.markup import escape
from rich.table import Table

from supernet.report import values


def console_table(content: values.Table, title: str | None = None) -> Table:
    """The table with its texts as they are: brackets in them are no markup."""
    shown = Table(title=title, title_justify="left")
    for heading in content.columns:
        shown.add_column(heading, overflow="fold")  # a name that is cut short says too little
    for row in content.rows:
        shown.add_row(*map(escape, row))
    return shown
