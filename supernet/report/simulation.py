"""``report.html`` of searchers that were simulated on a table: one page, made from what its folder
holds and nothing else.

Its words stand in ``simulation.html.jinja``. The table is that of ``regret.py``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from supernet.report import regret
from supernet.report.figures import Chart, Line, identifier
from supernet.report.folder import ending, write_page
from supernet.report.page import template
from supernet.report.pictures import Picture, picture
from supernet.report.regret import Row
from supernet.report.series import Range, thinned
from supernet.report.style import styles
from supernet.report.values import Results
from supernet.shapes import SimulationResults


def write_simulation(folder: Path) -> Path:
    """Writes ``report.html`` in the folder of a simulation and returns its path.

    Raises:
        UserError: a file of the folder cannot be read, or the page cannot be written.
    """
    return write_page(folder, page, SimulationResults)


def page(name: str, results: Results, config: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """The page as HTML. Every text is escaped, but for the drawing."""
    rows = results["simulation"]
    return template("simulation.html.jinja").render(
        title=name,
        table=Path(results["table"]).name,
        about=results,
        claims=regret.claims(rows, results["simulations"]),
        found=regret.found(rows),
        compared=sum(row["minus_random"] is not None for row in rows),
        pictures=curves(rows, results["cost"]),
        **ending(results, results, config, overrides),
    )


def curves(rows: Sequence[Row], cost: str | None) -> list[Picture]:
    """The mean regret of each searcher after each evaluation, with its interval as a band; and over
    what the evaluations have ``cost``, if a column of the table says that.
    """
    found = [drawn(rows, "evaluations", "regret", {})]
    if cost is not None:
        paid = {row["searcher"]: np.array(row["cost_curve"]) for row in rows}
        found.append(drawn(rows, f"sum of {cost}", "regret-cost", paid))
    return found


def drawn(rows: Sequence[Row], over: str, name: str, places: Mapping[str, np.ndarray]) -> Picture:
    """One picture of the curves. ``places`` are where the evaluations of a searcher stand; by
    default they are 1, 2, ...
    """
    style = styles(row["searcher"] for row in rows)
    lines = [
        Line(
            curve(row, places.get(row["searcher"], np.arange(1, len(row["curve"]) + 1))),
            style[row["searcher"]],
            identifier("curve", row["searcher"]),
        )
        for row in rows
    ]
    means = 100 * np.array([one for row in rows for one in row["curve"] if one is not None])
    positive = means[means > 0]
    chart = Chart(
        over,
        "regret (points of percent)",
        lines,
        logarithmic=positive.size > 0,  # a logarithm has no place for zeros alone
        limits=(positive.min() / 1.3, means.max() * 1.3) if positive.size else None,
    )
    return picture(f"Mean regret over {over}", chart, name, style)


def curve(row: Row, places: np.ndarray) -> np.ndarray | Range:
    """The mean regret in points of percent at the ``places`` of the evaluations, where its interval
    is known with this. There is none before the first whole evaluation.
    """
    means, band = 100 * np.array(row["curve"], float), row["curve_ci95"]
    if band is None:
        return thinned(np.column_stack((places, means))[~np.isnan(means)])
    after, low, high = (np.array(band[name]) for name in ("after", "low", "high"))
    return Range(places[after - 1], means[after - 1], 100 * low, 100 * high)
