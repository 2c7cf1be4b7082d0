"""What ``results.json`` and the configuration say, as the tables and numbers that the page shows.

Every function gives ``None``, or an empty value, where the part of the run that it is about was not
run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from supernet.report.series import Rows, stages
from supernet.report.summary import (
    HEADINGS,
    RANK_HEADINGS,
    comparison,
    percent,
    rank_rows,
    start_of,
    thousands,
)
from supernet.shapes import RIVALS, flat

Results = Mapping[str, Any]  # what results.json holds

COSTS = {"params": "parameters", "madds": "multiply-adds", "latency_ms": "latency (ms)"}
LONG = 24  # letters: a column with more in a cell may wrap
STAGES = {
    "latency": "measuring the latency table",
    "search": "search",
    "growth": "growth",
    "derive": "deriving the architecture",
    "shortlist": "training the shortlist",
    "retrain": "retraining",
    "random_baseline": "training random architectures",
    "rank": "judging for the rank correlation",
}


@dataclass(frozen=True)
class Table:
    """A table of text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def kinds(self) -> list[str]:
        """What each column holds: ``number``, ``short`` text, or ``long`` text that may wrap."""
        return [self._kind([row[i] for row in self.rows]) for i in range(len(self.columns))]

    def _kind(self, cells: Sequence[str]) -> str:
        if all(cell.lstrip("−-")[:1].isdigit() or cell in ("–", "") for cell in cells):
            return "number"
        return "long" if max(map(len, cells)) > LONG else "short"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table | None:
    """A table, or ``None`` without rows."""
    return Table(columns, [[str(cell) for cell in row] for row in rows]) if rows else None


def filled(columns: Mapping[str, Sequence[str]]) -> Table:
    """A table of these columns: heading -> cells. Columns of dashes are left out."""
    kept = {name: cells for name, cells in columns.items() if set(cells) != {"–"}}
    return Table(list(kept), [list(row) for row in zip(*kept.values(), strict=True)])


def facts(results: Results) -> dict[str, str]:
    """What was run, in a few words."""
    names = ("space", "method", "data", "seed", "parent")
    return {name: str(results[name]) for name in names if results.get(name) is not None}


# --- what was found


def compared(results: Results) -> Table | None:
    """The found architecture beside the random ones."""
    headings, *rows = [
        [row.name, row.accuracy, row.interval, row.params, row.madds, row.latency, row.seconds]
        for row in (HEADINGS, *comparison(results))
    ]
    others = results.get("random_baseline", {}).get("accuracy", [])
    rows = [
        [f"random, mean of {len(others)}", *row[1:]] if row[0] == "random" else row for row in rows
    ]
    if all(row[-2] == "–" for row in rows):  # no latency was measured
        headings, *rows = [[*row[:-2], row[-1]] for row in (headings, *rows)]
    return table(headings, rows)


def trained(results: Results) -> dict[str, Any] | None:
    """How the found architecture was trained, and the accuracy of each training."""
    found = results.get("retrain")
    if not found:
        return None
    return {
        "start": start_of(found),
        "epochs": found.get("epochs"),
        "each": [percent(accuracy) for accuracy in found["accuracy"]],
    }


def derived(results: Results) -> dict[str, Any] | None:
    """Which searcher chose the architecture, among how many, and how it judged it."""
    found = results.get("derive")
    if not found:
        return None
    return {name: found.get(name) for name in ("searcher", "evaluated", "inherited_accuracy")}


def fidelity(results: Results) -> Table | None:
    """Every setting that makes the run cheaper, its value, and that of the paper or the data."""
    parts = {"search": "search", "retrain": "retraining"}
    found = {
        title: results[part]["fidelity"]
        for part, title in parts.items()
        if results.get(part, {}).get("fidelity")
    }
    names = dict.fromkeys(name for settings in found.values() for name in settings)
    rows = [
        [name.replace("_", " "), *(share(settings.get(name)) for settings in found.values())]
        for name in names
    ]
    return table(["", *found], rows)


def share(one: Mapping[str, Any] | None) -> str:
    """``10,000 of 50,000 (data.train_limit)``."""
    if one is None:
        return "–"
    value, full = (
        "×".join(map(thousands, x)) if isinstance(x, list) else thousands(x)
        for x in (one["value"], one["full"])
    )
    return f"{value} of {full} ({one['setting']})"


def decisions(results: Results) -> Table | None:
    """Each decision of the architecture that was found: its group, its slot, its option."""
    choices = results.get("architecture", {}).get("choices", {})
    rows = [
        [group, slot, option]
        for group, options in choices.items()
        for slot, option in enumerate(options)
    ]
    return table(["group", "slot", "option"], rows)


def latency(results: Results) -> dict[str, Any] | None:
    """What the found network takes by the latency table, and how good that table is."""
    cost, about = results.get("cost", {}).get("latency_ms"), results.get("latency")
    if cost is None or about is None:
        return None
    if "table" in about:
        return {"ms": f"{cost:.4g}", "table": about["table"]}
    return {
        "ms": f"{cost:.4g}",
        "table": None,
        "architectures": about["architectures"],
        "tau": f"{about['rank_correlation']:.3f}",
        "error": percent(about["mean_relative_error"]),
    }


def others(results: Results) -> Table | None:
    """Each training of a rival or of a random architecture."""
    kinds = results.get("rivals", {}) | {"random": results.get("random_baseline", {})}
    rows = [
        [
            name.replace("_", " "),
            percent(one["accuracy"]),
            thousands(one["params"]),
            thousands(one["madds"]),
            one["text"],
        ]
        for name, found in kinds.items()
        for one in found.get("architectures", [])
    ]
    return table(["", "test accuracy", "parameters", "multiply-adds", "architecture"], rows)


# --- how it was found


def instruments(results: Results) -> dict[str, Mapping[str, Any]]:
    """Name of each instrument -> its ``title``, its ``meaning``, and the ``prefixes`` of the names
    of its figures; perhaps a ``unit``.
    """
    return results.get("search", {}).get("instruments", {})


def guards(results: Results) -> list[dict[str, Any]]:
    """What the guards did: ``guard``, ``epoch``, ``what``, and the number of the ``supernet`` if it
    was said.
    """
    fired = results.get("search", {}).get("guards", [])
    return [{"supernet": None} | dict(one) for one in fired]


def measuring_time(results: Results) -> Table | None:
    """How long each instrument and guard took in the search."""
    parts, titles = results.get("search", {}).get("parts", {}), instruments(results)
    rows = [
        [titles[name]["title"] if name in titles else name, f"{part['seconds']:,.1f}"]
        for name, part in parts.items()
    ]
    return table(["instrument or guard", "seconds of the search"], rows)


def images_each(results: Results) -> int | None:
    """On how many images each architecture was judged, if all were judged on as many."""
    derive = results.get("derive", {})
    judgements = derive.get("judgements")
    if not judgements or judgements != derive.get("evaluated") or not derive.get("images"):
        return None
    return round(derive["images"] / judgements)


def interval_of(accuracy: float, images: int | None) -> tuple[float, float] | None:
    """The 95% interval of an accuracy that was measured on so many images (Wilson 1927)."""
    if images is None:
        return None
    z = NormalDist().inv_cdf(0.975)
    middle = (accuracy + z**2 / (2 * images)) / (1 + z**2 / images)
    spread = accuracy * (1 - accuracy) / images + z**2 / (4 * images**2)
    half = z / (1 + z**2 / images) * spread**0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def front(results: Results) -> Table | None:
    """The Pareto front among the architectures that were judged."""
    found = results.get("derive", {}).get("pareto")
    if not found:
        return None
    costs = [metric for metric in COSTS if metric in found[0]]
    rows = [
        [
            f"pareto/{number:02}.json",
            percent(one["accuracy"]),
            decimals(one["loss"]),
            *(thousands(one[c]) if c != "latency_ms" else f"{one[c]:.3g}" for c in costs),
            one["text"],
        ]
        for number, one in enumerate(found, start=1)
    ]
    named = [COSTS[metric] for metric in costs]
    return table(["file", "accuracy", "loss (nats)", *named, "architecture on the front"], rows)


def growth(results: Results) -> Table | None:
    """Every network that has grown: where it comes from, what was added, what it costs and what it
    gained.
    """
    models = results.get("growth", {}).get("models", [])
    rows = []
    for number, one in enumerate(models):
        parent = one["parent"]
        gained = "–" if parent is None else points(models[parent]["error"] - one["error"])
        chosen = one["text"] == results.get("architecture", {}).get("text")
        rows.append(
            [
                f"{number}{' (chosen)' if chosen else ''}",
                "a seed" if parent is None else str(parent),
                "; ".join(f"{place}: {names}" for place, names in one["added"].items())
                or one["text"],
                thousands(one["params"]),
                thousands(one["madds"]),
                percent(one["error"]),
                gained,
                f"{one['train_seconds'] + one['shortcut_seconds']:,.1f}",
            ]
        )
    columns = ["network", "parent", "what was added", "parameters", "multiply-adds"]
    return table([*columns, "validation error", "gained (points)", "seconds"], rows)


def points(share: float) -> str:
    """A difference of shares, in points of percent, with its sign."""
    return f"{100 * share:+.2f}".replace("-", "−")


def shortlist(results: Results) -> Table | None:
    """The searcher's best, trained from scratch to choose among them, and what became of each."""
    found = results.get("shortlist")
    if not found:
        return None
    rows = []
    for one in found["candidates"]:
        fate = "chosen" if one["text"] == found["best"] else "trained to the end"
        if one["ended"]:
            fate = f"ended early: at most {percent(one['upper_bound'])} to come"
        rows.append([percent(one["held_out_accuracy"]), one["epochs"], fate, one["text"]])
    return table(["accuracy on held-out training images", "epochs", "outcome", "candidate"], rows)


def trainings(rows: Rows) -> Table | None:
    """Every training of the found architecture, its rivals and the random ones, side by side."""
    lines = []
    titles = {"retrain": "found architecture"}
    titles |= {name: name.replace("_", " ") for name in RIVALS}
    for kind, title in (titles | {"random": "random architecture"}).items():
        each = stages(rows, kind)
        for number, stage in enumerate(each, start=1):
            last = {name: value for row in stage for name, value in row.items()}
            lines.append(
                [
                    f"{title}, {number} of {len(each)}",
                    f"{last['epoch']:g}" if "epoch" in last else "–",
                    decimals(last.get("loss")),
                    percent(last.get("accuracy")),
                    decimals(last.get("test_loss")),
                    percent(last.get("test_accuracy")),
                ]
            )
    columns = ["training", "epochs", "training loss (nats)", "training accuracy"]
    return table([*columns, "test loss (nats)", "test accuracy"], lines)


def decimals(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def ranking(correlations: Mapping[str, Any]) -> Table | None:
    """How well each predictor orders the architectures."""
    rows = [[COSTS.get(name, name), *cells] for name, *cells in rank_rows(correlations)]
    return table(RANK_HEADINGS, rows)


# --- what it took


def time(results: Results) -> Table | None:
    """Seconds, steps and memory of each part of the run."""
    spent: dict[str, Mapping[str, Any]] = {
        title: results[part]
        for part, title in STAGES.items()
        if results.get(part, {}).get("seconds") is not None
    }
    for name, rival in results.get("rivals", {}).items():
        spent[f"training the rival: {name.replace('_', ' ')}"] = rival
    before = results.get("search", {}).get("warm_start")
    while before:
        spent = {f"search before, {before['method']}": before} | spent
        before = before["warm_start"]
    if not spent:
        return None
    total = results.get("total_seconds") or sum(part["seconds"] for part in spent.values())
    rows = [
        [
            title,
            f"{part['seconds']:,.1f}",
            percent(part["seconds"] / total) if total else "–",
            thousands(part.get("steps")),
            memory(part.get("peak_memory_bytes")),
        ]
        for title, part in spent.items()
    ]
    rows.append(["total", f"{total:,.1f}", "", "", ""])
    return table(["part of the run", "seconds", "share", "steps", "peak memory"], rows)


def memory(used: int | None) -> str:
    return f"{used / 2**20:,.0f} MiB" if used else "–"


def checklist(results: Results) -> dict[str, list[Mapping[str, Any]]]:
    """The answers to the practices of the checklist: name of a group -> its rows."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in results.get("checklist", []):
        groups.setdefault(row["group"], []).append(row)
    return groups


def practices(results: Results) -> Table | None:
    """The same as one table."""
    names = ("group", "practice", "answer", "why", "command")
    rows = [[row[name] or "" for name in names] for row in results.get("checklist", [])]
    return table(names, rows)


def settings(config: Mapping[str, Any]) -> Table | None:
    return table(["setting", "value"], list(flat(config)))


def versions(results: Results) -> Table | None:
    return table(["part", "version"], list(flat(results.get("environment", {}))))
