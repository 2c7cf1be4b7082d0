"""What ``supernet reproduce`` says: before the run, and after it."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from supernet.report import values
from supernet.report.console import console_table
from supernet.report.summary import interval, percent, thousands

HEADINGS = ("condition", "recorded", "here", "may change the bits")


def condition_rows(conditions: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A row for each condition that is not the same."""
    return [
        [one["name"], one["recorded"], one["here"], "yes" if one["decides"] else "no"]
        for one in conditions
    ]


def condition_table(conditions: Sequence[Mapping[str, Any]]) -> Table:
    """The conditions that are not the same, for the console."""
    content = values.Table(HEADINGS, condition_rows(conditions))
    return console_table(content, "Conditions that are not the same")


def reproduction_table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """The verdict on each run of a study, by its name."""
    rows = [
        [
            name,
            verdict(one),
            *("–" if each is None else mean_of(each) for each in one["accuracies"]),
        ]
        for name, one in found.items()
    ]
    return console_table(values.Table(["run", "verdict", "accuracy", "here"], rows))


def verdict_lines(found: Mapping[str, Any]) -> list[str]:
    """The verdict on a reproduction that has ended, and what it stands on; else nothing."""
    if "verdict" not in found:
        return []
    lines = [verdict(found)]
    lines.append(f"figures and weights: {thousands(found['figures'])} compared, {differing(found)}")
    before, now = found["architectures"]
    if before is not None:
        lines.append("architecture: " + ("the same" if before == now else f"{before}, here {now}"))
    before, now = found["accuracies"]
    if before and now:
        lines.append(f"accuracy: {mean_of(before)}, here {mean_of(now)}")
    if found["not_repeated"]:
        lines.append(f"not repeated: {', '.join(found['not_repeated'])}")
    return lines


def verdict(found: Mapping[str, Any]) -> str:
    """The verdict and, unless it is plain, why."""
    return ": ".join(filter(None, [found["verdict"], found["why"]]))


def differing(found: Mapping[str, Any]) -> str:
    first = found["first_difference"]
    if first is None:
        return "none differ"
    return (
        f"{thousands(found['different'])} differ, the first is {first['where']}: "
        f"{first['recorded']}, here {first['here']}"
    )


def mean_of(summary: Mapping[str, Any]) -> str:
    ends = summary["ci95"]
    return percent(summary["mean"]) + (f" (95%: {interval(ends)})" if ends else "")
