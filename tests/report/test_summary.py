"""The table that ends a run."""

import io
import re

import pytest
from rich.console import Console

from supernet.report.summary import summary_table, verdict
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


@pytest.mark.parametrize("space", ["nb201", "darts"])
def test_an_architecture_is_not_in_the_table_which_would_break_it(space):
    value = results(space)
    assert value["architecture"]["text"][:8] not in str(rendered(value))


@pytest.mark.parametrize(
    ("difference", "ends", "said"),
    [
        (0.0123, [0.002, 0.0226], "+1.23 points, 95% interval +0.20 points to +2.26 points"),
        (-0.01, [-0.02, -0.005], "-1.00 points, 95% interval -2.00 points to -0.50 points"),
        (0.01, [-0.01, 0.03], "95% interval -1.00 points to +3.00 points: no difference shown"),
        (0.0, [0.0, 0.0], "+0.00 points to +0.00 points: no difference shown"),
        (0.5, None, "+50.00 points; no interval, which takes three trainings or more"),
    ],
)
def test_the_verdict_says_what_is_shown(difference, ends, said):
    line = verdict({"found_minus_random": {"mean": difference, "ci95": ends}})
    assert said in line and line.startswith("found minus random: ")
    shown = ends is not None and not ends[0] <= 0 <= ends[1]
    assert ("no difference shown" in line or "no interval" in line) != shown


def test_without_random_architectures_there_is_no_verdict():
    assert verdict({}) == ""


def test_what_was_not_run_is_a_dash():
    value = results("nb201")
    del value["retrain"], value["random_baseline"]
    assert rendered(value)[0] == ["", "found"]
    assert [line[1] for line in rendered(value)[-3:]] == ["–", "–", "–"]
    assert "found" not in str(rendered({}))
