"""What the runs of a study found, compared: a row for each method, rival and ablation.

All rows of one space and one data set (a *group*) are compared with the first method, pair by pair:
the same seed, and so the same splits of the data, on both sides. An ablation is compared with the
same method by the whole recipe, and a shorter search with the whole one.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from supernet.evaluate.statistics import holm, mean_and_interval, paired, relative_improvement

Row = dict[str, Any]

CHANCE = "random architectures"
FINDING = ("search", "growth", "derive", "shortlist")  # the parts of a run that find something


@dataclass(frozen=True)
class Outcome:
    """What a cell found, and how accurate it is. ``base`` is the method that is changed: in an
    ablation or, with a ``share``, in a shorter search. ``rival`` says whether it is one.
    ``results`` are those of the run.
    """

    entry: str
    seed: int
    space: str
    data: str
    accuracy: float
    results: Row
    base: str | None = None
    rival: bool = False
    parameter_free: float | None = None
    share: float | None = None


def finding_seconds(results: Row) -> float:
    """What it took to find the architecture."""
    return float(sum(results[part]["seconds"] for part in FINDING if part in results))


def compare(outcomes: Sequence[Outcome]) -> list[Row]:
    """The rows of all groups. The last row of each is its random architectures."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault((one.space, one.data), []).append(one)
    return [
        {"space": space, "data": data} | row
        for (space, data), members in groups.items()
        for row in compared(members)
    ]


def compared(outcomes: Sequence[Outcome]) -> list[Row]:
    """The rows of one group."""
    entries: dict[str, list[Outcome]] = {}
    for one in outcomes:
        entries.setdefault(one.entry, []).append(one)
    chance = chance_by_seed([one for one in outcomes if one.base is None])
    points = {name: by_seed(members) for name, members in entries.items()}
    rows: list[Row] = []
    for name, members in entries.items():
        own = chance_by_seed(members) or chance  # an ablation has its own: the recipe is another
        rows.append(row_of(name, members) | {"relative_improvement": improvement(members, own)})
    if chance:
        every = [accuracy for _, some in sorted(chance.items()) for accuracy in some]
        points[CHANCE] = {seed: float(np.mean(some)) for seed, some in chance.items()}
        rows.append(row(CHANCE, every) | {"relative_improvement": None})
    first = next((name for name, some in entries.items() if not some[0].rival), None)
    bases = {name: members[0].base for name, members in entries.items()}
    for each in rows:
        name = each["method"]
        each["against"] = comparison(name, bases.get(name) or first, points)
    with_holm([each["against"] for each in rows if each["against"]])
    return rows


def by_seed(members: Sequence[Outcome]) -> dict[int, float]:
    return {one.seed: one.accuracy for one in members}


def chance_by_seed(outcomes: Sequence[Outcome]) -> dict[int, list[float]]:
    """Seed -> the accuracies of its random architectures, which are the same for every method."""
    baselines = {one.seed: one.results.get("random_baseline") for one in reversed(outcomes)}
    return {seed: found["accuracy"] for seed, found in baselines.items() if found}


def row(name: str, accuracies: Sequence[float]) -> Row:
    mean, interval = mean_and_interval(accuracies)
    return {
        "method": name,
        "runs": len(accuracies),
        "accuracies": list(accuracies),
        "mean": mean,
        "ci95": interval,
        "sd": float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
        "search_seconds": 0.0,
    }


def row_of(name: str, members: Sequence[Outcome]) -> Row:
    """The row of a method, with the means over its runs."""
    found = row(name, [one.accuracy for one in members])
    shares = [one.parameter_free for one in members if one.parameter_free is not None]
    searched = [finding_seconds(one.results) for one in members]
    trained = [one.results.get("retrain", {}).get("seconds", 0.0) for one in members]
    return (
        found
        | {
            "seeds": [one.seed for one in members],
            "rival": members[0].rival,
            "base": members[0].base,
            "share": members[0].share,
            "search_seconds": sum(searched),
            "total_seconds": [sum(both) for both in zip(searched, trained, strict=True)],
            "tried": trainings(members[0].results, "judgements"),
            "whole": trainings(members[0].results, "evaluated"),
        }
        | ({"parameter_free": float(np.mean(shares))} if shares else {})
    )


def trainings(results: Row, counted: str) -> int | None:
    """How many trainings a search without a supernet has done: all (``judgements``), or those of
    all epochs (``evaluated``). With early stopping, an architecture that goes on begins anew, for
    more epochs, and each of its trainings counts.
    """
    count = results.get("derive", {}).get(counted)
    return count if count and "search" not in results and "growth" not in results else None


def improvement(members: Sequence[Outcome], chance: dict[int, list[float]]) -> Row | None:
    """The relative improvement over random architectures, in percent; Yang et al., ICLR 2020."""
    pairs = [
        (one.accuracy, float(np.mean(chance[one.seed]))) for one in members if one.seed in chance
    ]
    return improvement_over(*map(list, zip(*pairs, strict=True))) if pairs else None


def improvement_over(accuracies: Sequence[float], chance: Sequence[float]) -> Row | None:
    """The relative improvement of accuracies over those of ``chance``, pair by pair."""
    if min(chance) <= 0:
        return None
    mean, interval = relative_improvement(accuracies, chance)
    return {"mean": mean, "ci95": interval}


def comparison(name: str, other: str | None, points: dict[str, dict[int, float]]) -> Row | None:
    """The paired comparison of two rows over the seeds that both have."""
    if other is None or other == name or other not in points:
        return None
    seeds = sorted(points[name].keys() & points[other].keys())
    if not seeds:
        return None
    values, others = ([points[one][seed] for seed in seeds] for one in (name, other))
    return {"method": other, "pairs": len(seeds)} | asdict(paired(values, others))


def with_holm(comparisons: Sequence[Row]) -> None:
    """Adds to each comparison its p-value after Holm's correction over all of them, and whether a
    difference is shown (``None`` if there are too few seeds to say).
    """
    for one, p in zip(comparisons, holm([one["p"] for one in comparisons]), strict=True):
        one |= {"p_holm": p, "shown": None if p is None else p < 0.05}
