"""What ``metrics.jsonl`` says, as plain values: which curves there are, and their points."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = Mapping[str, Any]  # {"stage": "search/0", "step": 12, "epoch": 0.5, "loss": 1.5}
Rows = Sequence[Row]

POINTS = 1000  # of a curve at most: more cannot be seen
NO_FIGURES = ("stage", "step", "epoch")  # what a row holds besides its figures


@dataclass(frozen=True)
class Range:
    """Several curves as one: their mean, and the lowest and the highest of them, at each ``x``."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def stages(rows: Rows, kind: str) -> list[Rows]:
    """The rows of the stages ``kind/0``, ``kind/1``, ... in the order of their numbers.

    Stages that ran at the same time have their rows mixed in the file. A stage that is called
    ``kind`` alone, as a single search was in older runs, counts as number 0.
    """
    found: dict[int, list[Row]] = {}
    for row in rows:
        name, _, number = row["stage"].partition("/")
        if name == kind and (number.isdecimal() or not number):
            found.setdefault(int(number or 0), []).append(row)
    return [found[number] for number in sorted(found)]


def names_in(rows: Iterable[Row]) -> list[str]:
    """The names of all figures in ``rows``, in the order in which they first come."""
    return list(dict.fromkeys(name for row in rows for name in row if name not in NO_FIGURES))


def curve(rows: Rows, name: str) -> np.ndarray:
    """The points ``[n, 2]`` of one figure: the epoch (the step where the rows have no epoch) and
    the value. A row whose value was not finite is left out.
    """
    found = [
        (row.get("epoch", row["step"]), row[name]) for row in rows if row.get(name) is not None
    ]
    return np.array(found, dtype=float).reshape(-1, 2)


def thinned(points: np.ndarray) -> np.ndarray:
    """At most ``POINTS`` points: a longer curve becomes the means of equal groups."""
    if len(points) <= POINTS:
        return points
    return np.array([group.mean(axis=0) for group in np.array_split(points, POINTS)])


def together(curves: Sequence[np.ndarray]) -> np.ndarray | Range:
    """The mean and the range of several curves, at the epochs that all of them have; a single curve
    as it is.
    """
    if len(curves) == 1:
        return thinned(curves[0])
    values = [dict(points.tolist()) for points in curves]
    x = [epoch for epoch in values[0] if all(epoch in other for other in values)]
    table = np.array([[one[epoch] for epoch in x] for one in values]).reshape(len(values), len(x))
    columns = np.column_stack((x, table.mean(axis=0), table.min(axis=0), table.max(axis=0)))
    return Range(*thinned(columns).T)


def options(rows: Iterable[Row]) -> dict[str, list[str]]:
    """The options of each group of decisions whose logits were logged as
    ``logits/GROUP/SLOT/OPTION``.
    """
    found: dict[str, list[str]] = {}
    for name in names_in(rows):
        if name.startswith("logits/"):
            _, group, _, option = name.split("/", 3)
            if option not in found.setdefault(group, []):
                found[group].append(option)
    return found


def shares(rows: Rows, group: str) -> dict[int, dict[str, np.ndarray]]:
    """For each slot of a group, and each option: the points ``[n, 2]`` of its share, which is the
    softmax of the logits over the options. A logit that is not finite gives no share.
    """
    slots: dict[int, list[str]] = {}
    for name in names_in(rows):
        if name.startswith(f"logits/{group}/"):
            _, _, slot, option = name.split("/", 3)
            slots.setdefault(int(slot), []).append(option)
    return {slot: _softmax(rows, f"logits/{group}/{slot}", slots[slot]) for slot in sorted(slots)}


def _softmax(rows: Rows, prefix: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    logged = [row for row in rows if any(row.get(f"{prefix}/{o}") is not None for o in names)]
    epochs = [row.get("epoch", row["step"]) for row in logged]
    table = np.array([[row.get(f"{prefix}/{option}") for option in names] for row in logged], float)
    table = np.where(np.isnan(table), -np.inf, table).reshape(-1, len(names))
    table = np.exp(table - table.max(axis=1, keepdims=True))
    table /= table.sum(axis=1, keepdims=True)
    return {
        option: np.column_stack((epochs, share))
        for option, share in zip(names, table.T, strict=True)
    }
