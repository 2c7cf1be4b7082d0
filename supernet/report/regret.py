"""The comparison of searchers on a table as text: their regret, and how it differs from that of
random search. The console and the page show the same table.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from supernet.report.comparison import FEW, NONE, scaled
from supernet.report.summary import interval, percent, thousands
from supernet.report.values import Table, filled

Row = Mapping[str, Any]

SHOWN = (0.1, 0.2, 0.5)  # shares of the most evaluations, after which the regret is shown
CLAIMS = {  # a verdict, as a sentence begins that names the searchers with it
    "better": "Less regret than random search after as many evaluations",
    "worse": "More regret than random search after as many evaluations",
    NONE: "No difference from random search is shown",
    FEW: "Too few simulations to compare with random search",
}


def found(rows: Sequence[Row]) -> Table:
    """A row for each searcher, the least regret first. Columns of dashes are left out."""
    ordered = sorted(rows, key=lambda row: float(row["regret"]))
    most = max(len(row["curve"]) for row in rows)
    places = dict.fromkeys(max(1, round(share * most)) for share in SHOWN)
    regrets = {
        f"regret after {place:,}": [percent(regret_after(row, place)) for row in ordered]
        for place in places
    }
    return filled(
        {
            "searcher": [row["searcher"] for row in ordered],
            **regrets,
            "evaluations": [evaluations(row) for row in ordered],
            "regret at the end": [percent(row["regret"]) for row in ordered],
            "95% interval": [interval(row["ci95"]) for row in ordered],
            "minus random, points": [difference(row["minus_random"]) for row in ordered],
            "verdict": [verdict(row["minus_random"]) for row in ordered],
            "optimum found": [f"{row['optimum_found']:.0%}" for row in ordered],
            "cost": [thousands(row["cost"]) for row in ordered],
        }
    )


def regret_after(row: Row, evaluations: int) -> float | None:
    """The mean regret after so many evaluations; ``None`` before the first whole one, and after the
    last one.
    """
    curve: Sequence[float | None] = row["curve"]
    return curve[evaluations - 1] if evaluations <= len(curve) else None


def evaluations(row: Row) -> str:
    """How many evaluations the searches of a searcher have spent: the fewest to the most."""
    least, most = (
        f"{row['evaluations'][end]:,.1f}".removesuffix(".0") for end in ("least", "most")
    )
    return least if least == most else f"{least} to {most}"


def difference(against: Row | None) -> str:
    """How much more the regret is than that of random search, in points, with its interval, after
    so many evaluations of both.
    """
    if against is None:
        return "–"
    ends = against["ci95"]
    said = "" if ends is None else " ({:+.2f} to {:+.2f})".format(*scaled(ends))
    return f"{100 * against['difference']:+.2f}{said} after {against['after']:,}"


def verdict(against: Row | None) -> str:
    """What the comparison with random search shows, in words."""
    if against is None:
        return "–"
    if against["ci95"] is None:
        return FEW
    low, high = against["ci95"]
    if low <= 0 <= high:
        return NONE
    return "better" if high < 0 else "worse"


def claims(rows: Sequence[Row], simulations: int) -> list[str]:
    """What the table shows, in sentences: the least regret, then what differs from random search
    and what is not shown to differ.
    """
    least = min(row["regret"] for row in rows)
    best = [row for row in rows if row["regret"] == least]
    names = ", ".join(row["searcher"] for row in best)
    ends = "" if best[0]["ci95"] is None else f", 95% interval {interval(best[0]['ci95'])}"
    said = [
        f"The least regret at the end: {names}, {percent(least)} after {evaluations(best[0])} "
        f"evaluations, in the mean of {simulations:,} simulations{ends}."
    ]
    compared = [row for row in rows if row["minus_random"] is not None]
    for word, sentence in CLAIMS.items():
        members = [row for row in compared if verdict(row["minus_random"]) == word]
        if members:
            each = (f"{row['searcher']} {difference(row['minus_random'])}" for row in members)
            unit = "points" if word == FEW else "points with 95% intervals"
            said.append(f"{sentence}, in {unit}: {', '.join(each)}.")
    if not compared:
        said.append("Nothing is compared with random search.")
    return said
