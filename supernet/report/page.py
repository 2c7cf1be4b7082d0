"""``report.html``: one page, complete in itself, made from what the run folder holds and nothing
else.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import cycle
from pathlib import Path
from string import Template
from typing import Any

import yaml

from supernet.files import read_json, write_text
from supernet.report import plots
from supernet.report.cell import COLOURS, draw_cell
from supernet.report.summary import (
    HEADINGS,
    RANK_HEADINGS,
    comparison,
    percent,
    rank_rows,
    start_of,
    thousands,
)
from supernet.track.jsonlines import read_rows

CELLS = {"normal": "Normal cell", "reduce": "Reduction cell"}


def write_report(folder: Path) -> Path:
    """Writes ``report.html`` in a run's folder and returns its path; a stage that was not run has
    no section.

    Raises:
        UserError: ``results.json`` or ``metrics.jsonl`` cannot be read, or the page cannot be
        written.
    """
    folder = Path(folder)
    results, rows = read_json(folder / "results.json"), read_rows(folder / "metrics.jsonl")
    settings = folder / ".hydra" / "config.yaml"
    config = yaml.safe_load(settings.read_text(encoding="utf-8")) if settings.exists() else {}
    path = folder / "report.html"
    write_text(path, page(results.get("name") or folder.resolve().name, results, rows, config))
    return path


def page(name: str, results: Mapping[str, Any], rows: plots.Rows, config: Mapping[str, Any]) -> str:
    """The page as HTML."""
    colours = option_colours(results, rows)
    sections = [
        ("Result", result(results)),
        ("Fidelity", fidelity(results)),
        ("Architecture", architecture(results, colours)),
        ("Accuracy against cost", accuracy_against_cost(results)),
        ("Search", search(results, rows, colours)),
        ("Collapse", collapse(results, rows)),
        ("Architectures judged with inherited weights", judged(results, rows, config)),
        ("Shortlist", shortlist(results)),
        ("Retraining", retraining(rows)),
        ("Rank correlation", ranking(results)),
        ("Time", time(results)),
        ("Settings", table(["setting", "value"], flat(config), fold="every setting of this run")),
        (
            "Versions",
            table(
                ["part", "version"],
                flat(results.get("environment", {})),
                fold="software and hardware",
            ),
        ),
    ]
    body = "\n".join(
        f"<section>\n<h2>{title}</h2>\n{content}\n</section>"
        for title, content in sections
        if content
    )
    facts = {
        k: results[k]
        for k in ("space", "method", "data", "seed", "parent")
        if results.get(k) is not None
    }
    line = " · ".join(f"{escape(key)} <b>{escape(str(value))}</b>" for key, value in facts.items())
    return PAGE.substitute(title=escape(name), facts=line, body=body)


# --- sections: each is HTML, or nothing where its stage was not run


def result(results: Mapping[str, Any]) -> str:
    rows = [[*vars(row).values()] for row in comparison(results)]
    html = table(list(vars(HEADINGS).values()), rows) if rows else ""
    if trained := results.get("retrain"):
        each = ", ".join(percent(value) for value in trained["accuracy"])
        html += note(
            f"Found architecture, trained from {start_of(trained)} for "
            f"{trained.get('epochs', '?')} epochs; each seed: {each}."
        )
    if derived := results.get("derive"):
        inherited = derived.get("inherited_accuracy")
        accuracy = (
            "" if inherited is None else f"; accuracy with inherited weights: {percent(inherited)}"
        )
        html += note(
            f"Searcher: {derived['searcher']}; architectures judged: "
            f"{thousands(derived.get('evaluated'))}{accuracy}."
        )
    return html


def fidelity(results: Mapping[str, Any]) -> str:
    """How cheap the judgement was: every setting that makes it cheaper, beside what the paper or
    the data have.
    """
    parts = {"search": "search", "retrain": "retraining"}
    found = {
        part: results[part]["fidelity"] for part in parts if results.get(part, {}).get("fidelity")
    }
    names = dict.fromkeys(name for settings in found.values() for name in settings)
    rows = [
        [name, *(cheapness(settings.get(name)) for settings in found.values())] for name in names
    ]
    html = table(["", *(parts[part] for part in found)], rows)
    return html and html + note("Each as: value of that of the paper, or of the data (setting).")


def cheapness(one: Mapping[str, Any] | None) -> str:
    """``10,000 of 50,000 (data.train_limit)``."""
    if one is None:
        return "–"
    value, full = (
        "×".join(map(thousands, x)) if isinstance(x, list) else thousands(x)
        for x in (one["value"], one["full"])
    )
    return f"{value} of {full} ({one['setting']})"


def shortlist(results: Mapping[str, Any]) -> str:
    """The searcher's best, trained from scratch to choose among them; what was ended early says so."""
    found = results.get("shortlist")
    if not found:
        return ""
    rows = []
    for one in found["candidates"]:
        fate = "chosen" if one["text"] == found["best"] else "trained to the end"
        if one["ended"]:
            fate = f"ended early: at most {percent(one['upper_bound'])} to come"
        rows.append([one["text"], str(one["epochs"]), percent(one["held_out_accuracy"]), fate])
    return table(["candidate", "epochs", "accuracy on held-out training images", "outcome"], rows)


def architecture(results: Mapping[str, Any], colours: Mapping[str, str]) -> str:
    found = results.get("architecture")
    if not found:
        return ""
    graphs = found.get("graph", {})
    html = "".join(
        f"<h3>{escape(CELLS.get(cell, 'Cell'))}</h3>\n{picture(draw_cell(edges, colours), f'cell-{cell}')}"
        for cell, edges in graphs.items()
    )
    return f"{html}\n<pre>{escape(found['text'])}</pre>\n{latency(results)}"


def latency(results: Mapping[str, Any]) -> str:
    """What the derived network takes by the latency table, and how far that table can be trusted."""
    cost, table = results.get("cost", {}).get("latency_ms"), results.get("latency")
    if cost is None or table is None:
        return ""
    if "table" in table:
        return note(f"Latency: {cost:.4g} ms by the table {table['table']}.")
    return note(
        f"Latency: {cost:.4g} ms by a table of measured operations. Against "
        f"{table['architectures']} whole networks, this has "
        f"a rank correlation (Kendall's tau) of {table['rank_correlation']:.3f} and a mean "
        "relative error of "
        f"{percent(table['mean_relative_error'])}."
    )


def accuracy_against_cost(results: Mapping[str, Any]) -> str:
    if not results.get("retrain") and not results.get("random_baseline"):
        return ""
    html = picture(plots.cost_scatter(results), "scatter")
    each = results.get("random_baseline", {}).get("architectures", [])
    lines = [
        [one["text"], thousands(one["params"]), thousands(one["madds"]), percent(one["accuracy"])]
        for one in each
    ]
    return html + table(
        ["random architecture", "parameters", "multiply-adds", "accuracy"],
        lines,
        fold="each random architecture",
    )


def search(results: Mapping[str, Any], rows: plots.Rows, colours: Mapping[str, str]) -> str:
    rows = [row for row in rows if row["stage"].startswith("search")]
    if not rows:
        return ""
    html = picture(plots.search_curves(rows), "search")
    groups = dict.fromkeys(
        name.split("/")[1] for row in rows for name in row if name.startswith("logits/")
    )
    choices = results.get("architecture", {}).get("choices", {})
    for group in groups:
        html += f"<h3>Shares of the options by the logits: {escape(group)}</h3>\n"
        html += picture(
            plots.logit_curves(rows, group, colours, choices.get(group)), f"logits-{group}"
        )
    if groups:
        html += note(
            "One panel a decision: the softmax of its logits over the epochs. Above it what was "
            "derived, drawn bold."
        )
    if (supernets := results.get("search", {}).get("supernets", 1)) > 1:
        html += note(
            f"{supernets} supernets, one after the other, each begun anew; derived by the mean of "
            "their logits."
        )
    return html


def collapse(results: Mapping[str, Any], rows: plots.Rows) -> str:
    """What the instruments saw, each with what it says, and what the guards did."""
    rows = [row for row in rows if row["stage"].startswith("search")]
    guards = results.get("search", {}).get("guards", [])
    found = plots.collapse_figures(rows)
    html = picture(plots.collapse_curves(rows, guards), "collapse") if found else ""
    html += table(
        ["instrument", "what to look for"], [[title, plots.COLLAPSE[title][1]] for title in found]
    )
    for fired in guards:
        html += note(f"Guard {fired['guard']}, epoch {fired['epoch']}: {fired['what']}.")
    parts = results.get("search", {}).get("parts", {})
    if spent := [f"{name} {part['seconds']:,.1f}" for name, part in parts.items()]:
        html += note(
            f"Of the search's {results['search']['seconds']:,.1f} seconds these took: "
            f"{', '.join(spent)}."
        )
    return html


def judged(results: Mapping[str, Any], rows: plots.Rows, config: Mapping[str, Any]) -> str:
    front = results.get("derive", {}).get("pareto")
    if not front:
        return ""
    cost = config.get("judge", {}).get("cost", "params")
    html = picture(
        plots.pareto([row for row in rows if row["stage"] == "derive"], front, cost), "pareto"
    )
    timed = ["latency_ms"] if "latency_ms" in front[0] else []
    lines = [
        [
            f"pareto/{number:02}.json",
            one["text"],
            thousands(one["params"]),
            thousands(one["madds"]),
            *(f"{one[metric]:.3g}" for metric in timed),
            percent(one["accuracy"]),
            f"{one['loss']:.4f}",
        ]
        for number, one in enumerate(front, start=1)
    ]
    costs = [plots.COSTS[metric] for metric in ("params", "madds", *timed)]
    return html + table(["file", "architecture on the front", *costs, "accuracy", "loss"], lines)


def retraining(rows: plots.Rows) -> str:
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["stage"].startswith(("retrain/", "random/")):
            stages.setdefault(row["stage"], []).append(row)
    return picture(plots.retrain_curves(stages), "retrain") if stages else ""


def ranking(results: Mapping[str, Any]) -> str:
    """What ``supernet rank`` found: a table and a picture for each truth."""
    ranked, html = results.get("rank"), ""
    for number, (truth, correlations) in enumerate(ranked["against"].items() if ranked else ()):
        supernets = [name for name in correlations if name.endswith(", recalibrated")]
        html += f"<h3>Against: {escape(truth)}</h3>\n"
        html += picture(plots.rank_scatter(ranked["points"], truth, supernets), f"rank-{number}")
        html += table(RANK_HEADINGS, rank_rows(correlations))
    if html:
        html += note(
            "Kendall's tau (b) with its 95% interval by the bootstrap over architectures, and "
            "Spearman's rho; the same among the "
            "tenth that is best in truth. A supernet that ranks no better than the number of "
            "parameters has not earned its keep."
        )
    return html


def time(results: Mapping[str, Any]) -> str:
    names = {
        "latency": "latency table",
        "search": "search",
        "derive": "derive",
        "shortlist": "shortlist",
        "retrain": "retrain",
        "random_baseline": "random architectures",
        "rank": "judging for the rank correlation",
    }
    spent = {
        names[key]: results[key] for key in names if results.get(key, {}).get("seconds") is not None
    }
    before = results.get("search", {}).get("warm_start")
    while before:
        spent = {f"search before, {before['method']}": before} | spent
        before = before["warm_start"]
    if not spent:
        return ""
    total = results.get("total_seconds") or sum(stage["seconds"] for stage in spent.values())
    lines = [
        [
            name,
            f"{stage['seconds']:,.1f}",
            percent(stage["seconds"] / total) if total else "–",
            thousands(stage.get("steps")),
            memory(stage),
        ]
        for name, stage in spent.items()
    ]
    lines.append(["total", f"{total:,.1f}", "", "", ""])
    return table(["stage", "seconds", "share", "steps", "peak memory"], lines)


# --- pieces


def option_colours(results: Mapping[str, Any], rows: plots.Rows) -> dict[str, str]:
    """A colour for each operation, the same in every picture: in the order of the logits, then of
    the graph.
    """
    logged = [name.split("/", 3)[3] for row in rows for name in row if name.startswith("logits/")]
    drawn = [
        edge[2]
        for edges in results.get("architecture", {}).get("graph", {}).values()
        for edge in edges
    ]
    return dict(zip(dict.fromkeys([*logged, *drawn]), cycle(COLOURS), strict=False))


def picture(figure: Any, name: str) -> str:
    return f"<figure>{plots.svg(figure, name)}</figure>\n"


def note(text: str) -> str:
    return f"<p class=note>{escape(text)}</p>\n"


def memory(stage: Mapping[str, Any]) -> str:
    used = stage.get("peak_memory_bytes")
    return f"{used / 2**20:,.0f} MiB" if used else "–"


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]], fold: str = "") -> str:
    """A table, or nothing without rows; ``fold`` is the line to click on to see it. Columns of
    figures stand to the right.
    """
    rows = [[str(value) for value in row] for row in rows]
    if not rows:
        return ""
    right = [
        all(row[i][:1].isdigit() or row[i] in ("–", "") for row in rows) and bool(headings[i])
        for i in range(len(headings))
    ]

    def line(cells: Sequence[str], tag: str) -> str:
        return (
            "<tr>"
            + "".join(
                f"<{tag}{' class=n' * r}>{escape(c)}</{tag}>"
                for c, r in zip(cells, right, strict=True)
            )
            + "</tr>"
        )

    inner = "\n".join(
        ["<table>", line(headings, "th"), *(line(row, "td") for row in rows), "</table>"]
    )
    return f"<details><summary>{fold}</summary>\n{inner}\n</details>" if fold else inner


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as (dotted name, value)."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix, value


PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { margin: 0 auto; padding: 1.5rem; max-width: 64rem; color: #22282d; background: #fff;
  font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-bottom: .2rem; border-bottom: 1px solid #d9dee2; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
header p, .note { color: #5b6770; margin: .4rem 0; }
header b { color: #22282d; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #e8ebee; vertical-align: top;
  overflow-wrap: anywhere; }
th { color: #5b6770; font-weight: 600; white-space: nowrap; }
td:first-child { min-width: 4rem; }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
figure { margin: .5rem 0; overflow-x: auto; }
svg { max-width: 100%; height: auto; }
pre { background: #f5f7f9; padding: .7rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
summary { cursor: pointer; color: #0b5a8f; margin: .4rem 0; }
</style>
</head>
<body>
<header>
<h1>$title</h1>
<p>$facts</p>
</header>
$body
</body>
</html>
""")
