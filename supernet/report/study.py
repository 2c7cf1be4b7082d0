"""``report.html`` of a study: one page, made from what its folder holds and nothing else.

Its words stand in ``study.html.jinja``. The tables are those of ``comparison.py``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from supernet.report import comparison
from supernet.report.comparison import Row, has_cost
from supernet.report.figures import WIDE, Chart, Dots, Line
from supernet.report.folder import ending, write_page
from supernet.report.page import template
from supernet.report.pictures import Picture, picture
from supernet.report.style import OTHERS, Style, styles
from supernet.report.values import Results
from supernet.shapes import FolderResults


def write_study(folder: Path) -> Path:
    """Writes ``report.html`` in the folder of a study and returns its path.

    Raises:
        UserError: a file of the study cannot be read, or the page cannot be written.
    """
    return write_page(folder, page, FolderResults)


def page(name: str, results: Results, config: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """The page as HTML. Every text is escaped, but for the drawings."""
    groups = comparison.groups(results["study"])
    return template("study.html.jinja").render(
        title=name,
        groups=[
            {
                "title": title,
                "claims": comparison.claims(rows),
                "tables": comparison.tables(rows),
                "pictures": pictures(rows, number),
                "shorter": any(row.get("share") for row in rows),
            }
            for number, (title, rows) in enumerate(groups.items())
        ],
        published=any("regret" in row for row in results["study"]),
        runs=comparison.runs(results["study"]),
        failed=comparison.failed(results),
        **ending(results, results["runs"][0] if results["runs"] else {}, config, overrides),
    )


def pictures(rows: Sequence[Row], number: int) -> list[Picture]:
    """The accuracies of all runs of a group, by method and by what they took."""
    shown = [row for row in rows if row["accuracies"]]
    style = styles(str(row["method"]) for row in shown)
    height = 0.9 + 0.34 * len(shown)
    names = [fill(comparison.name_of(row), 24) for row in shown]
    dots = [mark for place, row in enumerate(shown) for mark in strip(row, place, style)]
    chart = Chart("test accuracy (%)", "", dots=dots, size=(WIDE[0], height), names=names)
    found = [picture("Accuracy of every run", chart, f"points-{number}")]
    timed = [row for row in shown if any(row.get("total_seconds", [])) and has_cost(row)]
    if timed:
        dots = [front(timed), *(mark for row in timed for mark in against_time(row, style))]
        whole = [row for row in timed if row["base"] is None]
        key = {
            comparison.name_of(row): Style(style[row["method"]].colour, dots=True) for row in whole
        }
        changed = {row["base"] for row in timed}
        lines = [over_time(row, timed, style) for row in whole if row["method"] in changed]
        chart = Chart(
            "seconds to find and train one network", "test accuracy (%)", lines=lines, dots=dots
        )
        found.append(picture("Accuracy against total cost", chart, f"cost-{number}", key))
    return found


def strip(row: Row, place: int, style: Mapping[str, Style]) -> list[Dots]:
    """The accuracies of a row side by side, and their mean with its interval."""
    colour, each = style[row["method"]].colour, [100 * one for one in row["accuracies"]]
    low, high = ([100 * end] for end in row["ci95"]) if row["ci95"] else (None, None)
    return [
        Dots(each, [place] * len(each), colour, f"points-{place}", hollow=True),
        Dots(
            [100 * row["mean"]],
            [place],
            colour,
            f"mean-{place}",
            marker="D",
            size=6,
            low=low,
            high=high,
            across=True,
        ),
    ]


def front(rows: Sequence[Row]) -> Dots:
    """The highest mean accuracy that so many seconds have reached, as a line in steps."""
    reached: list[tuple[float, float]] = []
    for one in sorted((comparison.mean_seconds(row), 100 * row["mean"]) for row in rows):
        if not reached or one[1] > reached[-1][1]:
            reached.append(one)
    ends = max(max(row["total_seconds"]) for row in rows)
    x, y = map(list, zip(*reached, (ends, reached[-1][1]), strict=True))
    return Dots(x, y, OTHERS, "front", marker="", steps=True)


def over_time(row: Row, rows: Sequence[Row], style: Mapping[str, Style]) -> Line:
    """The means of a method over the time that shorter and shorter searches take."""
    own = [row, *(one for one in rows if one["base"] == row["method"])]
    points = sorted((comparison.mean_seconds(one), 100 * one["mean"]) for one in own)
    return Line(np.array(points), style[row["method"]], f"over-time-{row['method']}")


def against_time(row: Row, style: Mapping[str, Style]) -> list[Dots]:
    """The accuracies of a row over what each took, and their mean with its interval. A shorter
    search has the colour of its method.
    """
    method = row["base"] or row["method"]
    colour, each = style[method].colour, [100 * one for one in row["accuracies"]]
    low, high = ([100 * end] for end in row["ci95"]) if row["ci95"] else (None, None)
    mean = [comparison.mean_seconds(row)], [100 * row["mean"]]
    return [
        Dots(row["total_seconds"], each, colour, f"run-{row['method']}", hollow=True),
        Dots(*mean, colour, f"mean-{row['method']}", marker="D", size=7, low=low, high=high),
    ]
