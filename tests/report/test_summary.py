"""The table that ends a run."""

import io
import re

from rich.console import Console

from supernet.report.summary import summary_table
from tests.report.conftest import results


def rendered(value: dict, width: int = 80) -> list[list[str]]:
    """The cells of the table as printed, line by line."""
    console = Console(file=io.StringIO(), width=width)
    console.print(summary_table(value))
    lines = console.file.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    return [
        [cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in lines if line[0] in "│┃"
    ]


def test_found_beside_random():
    cells = {line[0]: line[1:] for line in rendered(results("nb201")) if line[0]}
    assert cells["parameters"] == ["73,754", "70,020"]
    assert cells["multiply-adds"] == ["1,234,567", "1,250,030"]
    assert cells["accuracy"] == ["97.96%", "96.39%"]
    assert cells["95% interval"] == ["96.29% to 99.63%", "82.98% to 109.79%"]
    assert cells["seconds"] == ["40.1", "35.6"]
    assert rendered(results("nb201"))[0] == ["", "found", "random"]


def test_a_genotype_is_shown_whole_with_its_brackets():
    value = results("darts")
    text = "".join(line[1] for line in rendered(value)[1:])
    assert text.replace(" ", "").startswith(value["architecture"]["text"].replace(" ", ""))


def test_what_was_not_run_is_a_dash():
    value = results("nb201")
    del value["retrain"], value["random_baseline"]
    assert rendered(value)[0] == ["", "found"]
    assert [line[1] for line in rendered(value)[-3:]] == ["–", "–", "–"]
    assert "found" not in str(rendered({}))
