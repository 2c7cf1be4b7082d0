"""The comparison of a study as text: what was found, and which differences are shown. The console
and the page show the same tables.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from supernet.report import values
from supernet.report.summary import interval, percent, points
from supernet.report.values import Results, Table, filled, table

Row = Mapping[str, Any]

FOUND, AGAINST = "what was found", "paired differences"
NONE = "no difference shown"
FEW = "too few seeds to say"


def groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each space and data set, under a title."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(f"{row['space']} on {row['data']}", []).append(row)
    return found


def titled(rows: Sequence[Row]) -> dict[str, Table]:
    """The tables of all groups, under the title of the group and their own."""
    return {
        f"{title}: {kind}": content
        for title, members in groups(rows).items()
        for kind, content in tables(members).items()
    }


def tables(rows: Sequence[Row]) -> dict[str, Table]:
    """The tables of one group under their titles: what was found, and how far that differs. The
    second one is left out where there is nothing to compare.
    """
    both = {FOUND: found(rows), AGAINST: differences(rows)}
    return {title: content for title, content in both.items() if content is not None}


def runs(rows: Sequence[Row]) -> Table | None:
    """Every run: what it compares, its accuracy, and what it took."""
    each = [
        [
            row["space"],
            row["data"],
            name_of(row),
            seed,
            percent(accuracy),
            f"{seconds:,.1f}",
        ]
        for row in rows
        if "seeds" in row
        for seed, accuracy, seconds in zip(
            row["seeds"], row["accuracies"], row["total_seconds"], strict=True
        )
    ]
    return table(["space", "data", "method", "seed", "accuracy", "seconds"], each)


def failed(results: Results) -> Table | None:
    """The runs that failed, and why."""
    return table(["run", "why it failed"], list(results.get("failed", {}).items()))


def of_study(results: Results) -> dict[str, Table]:
    """The tables of a study under their titles: those of all groups, every run, the runs that
    failed, and the checklist.
    """
    others = {
        "every run": runs(results["study"]),
        "runs that failed": failed(results),
        "checklist": values.practices(results),
    }
    return titled(results["study"]) | {title: one for title, one in others.items() if one}


def name_of(row: Row) -> str:
    """The name of a row; of a search from scratch also how many trainings it took, and how many of
    them had all epochs.
    """
    name = str(row["method"]).replace("_", " ") if row.get("rival") else str(row["method"])
    if not row.get("tried"):
        return name
    some = row.get("whole") not in (None, row["tried"])
    whole = f", {row['whole']} of all epochs" if some else ""
    return f"{name} ({row['tried']} trainings{whole})"


def found(rows: Sequence[Row]) -> Table:
    """What each method, rival and ablation found. Columns of dashes are left out."""
    columns = {
        "method": [name_of(row) for row in rows],
        "runs": [str(row["runs"]) for row in rows],
        "published accuracy" if any("regret" in row for row in rows) else "accuracy from scratch": [
            percent(row["mean"]) for row in rows
        ],
        "95% interval": [interval(row["ci95"]) for row in rows],
        "standard deviation": [percent(row["sd"]) for row in rows],
        "above random, relative": [improvement(row["relative_improvement"]) for row in rows],
        "regret": [percent(row.get("regret")) for row in rows],
        "parameter-free": [percent(row.get("parameter_free")) for row in rows],
        "seconds of a search": [seconds(row) for row in rows],
    }
    return filled(columns)


def improvement(one: Row | None) -> str:
    """An improvement in percent, with its interval."""
    if one is None:
        return "–"
    ends = "" if one["ci95"] is None else " ({:+.1f}% to {:+.1f}%)".format(*one["ci95"])
    return f"{one['mean']:+.1f}%{ends}"


def seconds(row: Row) -> str:
    """What one search took; an ablation trains what another run has found."""
    searched = "total_seconds" in row and has_cost(row)
    return f"{row['search_seconds'] / row['runs']:,.1f}" if searched else "–"


def differences(rows: Sequence[Row]) -> Table | None:
    """Each row minus the one that it is compared with."""
    return table(
        [
            *("method", "minus", "points", "95% interval", "p (Holm)", "effect size d", "verdict"),
            "seeds to show 1 point",
        ],
        [
            [
                name_of(row),
                one["method"],
                f"{100 * one['difference']:+.2f}",
                "–" if one["ci95"] is None else "{:+.2f} to {:+.2f}".format(*scaled(one["ci95"])),
                "–" if one["p_holm"] is None else f"{one['p_holm']:.3g}",
                "–" if one["d"] is None else f"{one['d']:+.2f}",
                verdict(one),
                "–" if one["seeds"] is None else f"{one['seeds']:,}",
            ]
            for row in rows
            if (one := row["against"]) is not None
        ],
    )


def scaled(ends: Sequence[float]) -> list[float]:
    return [100 * end for end in ends]


def verdict(one: Row) -> str:
    """What a comparison shows, in words."""
    if one["shown"] is None:
        return FEW
    if not one["shown"]:
        return NONE
    return "better" if one["difference"] > 0 else "worse"


def claims(rows: Sequence[Row]) -> list[str]:
    """What one group shows, in sentences: first the best mean of a run, then what is above it
    without a search, such as random architectures, then every comparison.
    """
    methods = [row for row in rows if "total_seconds" in row]
    if not methods:
        return []
    best = max(methods, key=lambda row: float(row["mean"]))
    ends = "" if best["ci95"] is None else f", 95% interval {interval(best['ci95'])}"
    mean = f"{percent(best['mean'])} over {best['runs']} seeds"
    said = [f"The highest mean: {name_of(best)}, {mean}{ends}."]
    unsearched = [row for row in rows if "total_seconds" not in row and row["mean"] > best["mean"]]
    above = [f"{name_of(row)}, {percent(row['mean'])}" for row in unsearched]
    said += [f"Above it without a search: {'; '.join(above)}."] if above else []
    for row in rows:
        if (one := row["against"]) is None:
            continue
        difference = f"{points(one['difference'])} over {one['pairs']} seeds"
        said.append(f"{name_of(row)} minus {one['method']}: {difference}: {verdict(one)}.")
    spreads = [one["seeds"] for row in rows if (one := row["against"]) and one["seeds"]]
    if spreads:
        said.append(
            "To show a difference of one point in 80 of 100 studies, the comparisons here need up "
            f"to {max(spreads):,} seeds."
        )
    return said


def has_cost(row: Row) -> bool:
    """Whether a row has searched. An ablation has no cost of its own."""
    return row["base"] is None or row.get("share") is not None


def mean_seconds(row: Row) -> float:
    """What a run took: to find the architecture, and to train it."""
    return fmean(row["total_seconds"])
