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
        draws=len(rows[0]["curve"]),
        claims=regret.claims(rows, results["simulations"]),
        found=regret.found(rows),
        compared=sum(row["minus_random"] is not None for row in rows),
        picture=curves(rows),
        **ending(results, results, config, overrides),
    )


def curves(rows: Sequence[Row]) -> Picture:
    """The mean regret of each searcher after each evaluation, with its interval as a band."""
    style = styles(row["searcher"] for row in rows)
    lines = [
        Line(curve(row), style[row["searcher"]], identifier("curve", row["searcher"]))
        for row in rows
    ]
    means = 100 * np.array([row["curve"] for row in rows])
    positive = means[means > 0]
    chart = Chart(
        "evaluations",
        "regret (points of percent)",
        lines,
        logarithmic=positive.size > 0,  # a logarithm has no place for zeros alone
        limits=(positive.min() / 1.3, means.max() * 1.3) if positive.size else None,
    )
    return picture("Mean regret over evaluations", chart, "regret", style)


def curve(row: Row) -> np.ndarray | Range:
    """The mean regret in points of percent, where its interval is known with this."""
    means, band = 100 * np.array(row["curve"]), row["curve_ci95"]
    if band is None:
        return thinned(np.column_stack((np.arange(1, len(means) + 1), means)))
    after, low, high = (np.array(band[name]) for name in ("after", "low", "high"))
    return Range(after, means[after - 1], 100 * low, 100 * high)
