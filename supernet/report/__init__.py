"""What was found, for people: the table that ends a run and the page ``report.html``."""

from supernet.report.page import write_report
from supernet.report.summary import summary_table

__all__ = ["summary_table", "write_report"]
