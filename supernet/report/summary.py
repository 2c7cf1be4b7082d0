"""The comparison that a run is for: the found architecture beside random ones, trained by the same
recipe.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table


@dataclass
class Row:
    """One side of the comparison, as text."""

    name: str
    architecture: str
    params: str
    madds: str
    latency: str
    accuracy: str
    interval: str
    seconds: str


HEADINGS = Row(
    *("", "architecture", "parameters", "multiply-adds", "latency (ms)"),
    *("accuracy", "95% interval", "seconds"),
)


def comparison(results: Mapping[str, Any]) -> list[Row]:
    """The found architecture, its rivals, then the random ones taken together. There is no row for
    an architecture that does not exist, and a dash for what was not measured.
    """
    rows = []
    cost, architecture = results.get("cost", {}), results.get("architecture", {})
    if architecture:
        trained = results.get("retrain", {})
        rows.append(
            Row(
                "found",
                architecture["text"],
                *costs([cost]),
                *accuracy_and_time(trained),
            )
        )
    for name, rival in results.get("rivals", {}).items():
        each = rival["architectures"][0]
        rows.append(
            Row(
                name.replace("_", " "),
                each["text"],
                *costs([each]),
                *accuracy_and_time(rival),
            )
        )
    if chance := results.get("random_baseline"):
        each = chance.get("architectures", [])
        rows.append(
            Row(
                "random",
                f"{len(chance['accuracy'])} architectures, means",
                *costs(each),
                *accuracy_and_time(chance),
            )
        )
    return rows


def costs(each: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    """The mean parameters, multiply-adds and latency of architectures."""

    def mean(metric: str, shown: Callable[[float], str]) -> str:
        known = [one[metric] for one in each if metric in one]
        return shown(fmean(known)) if known else "–"

    return (
        mean("params", thousands),
        mean("madds", thousands),
        mean("latency_ms", "{:.4g}".format),
    )


def accuracy_and_time(trained: Mapping[str, Any]) -> tuple[str, str, str]:
    seconds = trained.get("seconds")
    return (
        percent(trained.get("mean")),
        interval(trained.get("ci95")),
        "–" if seconds is None else f"{seconds:,.1f}",
    )


def summary_table(results: Mapping[str, Any]) -> Table:
    """The comparison as a table for the console, from what ``results.json`` holds: a column for the
    found architecture and one for the random ones. The architecture itself is not in it, because a
    table breaks a long text, which can then not be copied.
    """
    rows = comparison(results)
    shown = {k: v for k, v in vars(HEADINGS).items() if k not in ("name", "architecture")}
    table = Table(
        title=f"Test accuracy, trained from {start_of(results.get('retrain', {}))}",
        title_justify="left",
    )
    table.add_column(no_wrap=True)
    for row in rows:
        table.add_column(row.name, overflow="fold")
    for field, heading in shown.items():
        if field == "latency" and all(row.latency == "–" for row in rows):
            continue  # it was not measured
        table.add_row(heading, *(escape(getattr(row, field)) for row in rows))
    return table


def verdict(results: Mapping[str, Any]) -> str:
    """Whether the found architecture is better than random ones, in one line; "" if there is
    nothing to compare.
    """
    found = results.get("found_minus_random")
    if found is None:
        return ""
    said, ends = f"found minus random: {points(found['mean'])}", found["ci95"]
    if ends is None:
        return f"{said}; no interval, which takes three trainings or more on each side"
    shown = ends[0] > 0 or ends[1] < 0
    interval = f"95% interval {points(ends[0])} to {points(ends[1])}"
    return f"{said}, {interval}{'' if shown else ': no difference shown'}"


def points(fraction: float) -> str:
    """A difference of two percentages, in percentage points."""
    return f"{100 * fraction:+.2f} points"


def rank_rows(correlations: Mapping[str, Any]) -> list[list[str]]:
    """A row a predictor: tau with its interval and rho, overall and among the best tenth; and tau
    of the pairs with equal numbers of parameters.
    """
    nothing = {"tau": None, "tau_ci95": None}  # of a run before there was this figure
    return [
        [
            name,
            *(
                cell
                for group in ("all", "best_tenth")
                for cell in (with_interval(found[group]), decimal(found[group]["rho"]))
            ),
            with_interval(found.get("equal_params", nothing)),
        ]
        for name, found in correlations.items()
    ]


RANK_HEADINGS = (
    *("predictor", "tau", "rho", "tau, best tenth", "rho, best tenth"),
    "tau, equal parameters (±5%)",
)


def rank_tables(ranked: Mapping[str, Any]) -> Group:
    """What ``supernet rank`` found, a table for each truth, for the console."""
    tables = []
    for truth, correlations in ranked["against"].items():
        (some, best), *_ = (
            [found[group]["architectures"] for group in ("all", "best_tenth")]
            for found in correlations.values()
        )
        title = (
            f"Rank correlation with: {truth} ({some} architectures, {best} in the best tenth; "
            "95% intervals)"
        )
        table = Table(*RANK_HEADINGS, title=title, title_justify="left")
        for row in rank_rows(correlations):
            table.add_row(*map(escape, row))
        tables.append(table)
    return Group(*tables)


@dataclass
class Ended:
    """A job of a sweep that has ended: the name of its folder, why it failed (``None`` if it did
    not), and its results.
    """

    name: str
    failure: str | None
    results: Mapping[str, Any]


def sweep_table(jobs: Sequence[Ended], differ: Sequence[str]) -> Table:
    """One row for each job of a sweep. ``differ`` are the overrides of each job that not every job
    has.
    """
    headings = ("job", "differs in", "accuracy", "random", "with inherited weights", "parameters")
    table = Table(*headings, "seconds")
    for job, differs in zip(jobs, differ, strict=True):
        results = job.results
        figures = [
            percent(results.get("retrain", {}).get("mean")),
            percent(results.get("random_baseline", {}).get("mean")),
            percent(results.get("derive", {}).get("inherited_accuracy")),
            thousands(results.get("cost", {}).get("params")),
            thousands(results.get("total_seconds")),
        ]
        if job.failure is not None:
            figures = ["failed", *[""] * (len(figures) - 1)]
        table.add_row(escape(job.name), escape(differs), *figures)
    return table


def with_interval(found: Mapping[str, Any]) -> str:
    ends = found["tau_ci95"]
    return decimal(found["tau"]) + (f" ({ends[0]:.2f} to {ends[1]:.2f})" if ends else "")


def decimal(number: float | None) -> str:
    return "–" if number is None else f"{number:.2f}"


def start_of(retrained: Mapping[str, Any]) -> str:
    """What the found architecture was trained from."""
    if warm := retrained.get("warm_start"):
        taken, of = thousands(warm["weights"]), thousands(warm["of"])
        return f"{taken} of {of} weights of {warm['from']} and the rest from scratch"
    return "inherited weights" if retrained.get("init") == "inherit" else "scratch"


def percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.2f}%"


def interval(ends: list[float] | None) -> str:
    return "–" if ends is None else f"{percent(ends[0])} to {percent(ends[1])}"


def thousands(number: float | None) -> str:
    return "–" if number is None else f"{number:,.0f}"
