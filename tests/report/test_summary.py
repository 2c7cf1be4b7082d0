"""The table that ends a run."""

import io

from rich.console import Console

from supernet.report.summary import summary_table
from tests.report.conftest import results


def rendered(value: dict, width: int = 132) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(summary_table(value))
    return console.file.getvalue()


def test_found_beside_random():
    text = rendered(results("nb201"))
    found = next(line for line in text.splitlines() if "found" in line)
    for shown in ("73,754", "1,234,567", "97.96%", "96.29% to 99.63%", "40.1"):
        assert shown in found
    chance = next(line for line in text.splitlines() if "random" in line)
    for shown in ("2 architectures", "70,020", "1,250,030", "96.39%", "82.98% to 109.79%", "35.6"):
        assert shown in chance


def test_a_genotype_is_shown_whole_with_its_brackets():
    value = results("darts")
    text = rendered(value, width=100)
    cells = [line.split("│")[2].strip() for line in text.splitlines() if line.count("│") > 5]
    assert "".join(cells).replace(" ", "").startswith(value["architecture"]["text"].replace(" ", ""))


def test_what_was_not_run_is_a_dash():
    value = results("nb201")
    del value["retrain"], value["random_baseline"]
    text = rendered(value)
    assert "random" not in text
    assert text.count("–") == 3
    assert "found" not in rendered({})
