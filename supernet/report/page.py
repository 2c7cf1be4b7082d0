"""``report.html``: one page, complete in itself, made from what the run folder holds and nothing
else.

The words of the page stand in ``report.html.jinja``. Its numbers and tables come from
``values.py``, its drawings from ``pictures.py``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from supernet.files import read_json, write_text
from supernet.report import pictures, reproduction, series, values
from supernet.report.folder import settings_of
from supernet.report.summary import percent, thousands, verdict
from supernet.report.values import Results
from supernet.track.jsonlines import read_rows


def write_report(folder: Path) -> Path:
    """Writes ``report.html`` in a run's folder and returns its path; a stage that was not run has
    no section.

    Raises:
        UserError: ``results.json`` or ``metrics.jsonl`` cannot be read, or the page cannot be
        written.
    """
    folder = Path(folder)
    results, rows = read_json(folder / "results.json"), read_rows(folder / "metrics.jsonl")
    name, path = results.get("name") or folder.resolve().name, folder / "report.html"
    write_text(path, page(name, results, rows, settings_of(folder)))
    return path


def page(name: str, results: Results, rows: series.Rows, config: Mapping[str, Any]) -> str:
    """The page as HTML. Every text is escaped, but for the drawings."""
    return template("report.html.jinja").render(
        title=name,
        facts=values.facts(results),
        reproduced=reproduced(results),
        found=found(results, rows),
        search=search(results, rows),
        growth={"table": values.growth(results), "picture": pictures.growth(results)},
        judged=judged(results, rows, config),
        shortlist=values.shortlist(results),
        trainings={
            "curves": pictures.training_curves(rows),
            "table": values.trainings(rows),
        },
        rankings=rankings(results),
        time=values.time(results),
        checklist=values.checklist(results),
        settings=values.settings(config),
        versions=values.versions(results),
    )


def reproduced(results: Results) -> dict[str, Any] | None:
    """What this run repeats, and whether the results came out again."""
    if (known := results.get("reproduction")) is None:
        return None
    return {
        "of": known["of"],
        "expected": known["expected"],
        "lines": reproduction.verdict_lines(known),
        "conditions": values.table(
            list(reproduction.HEADINGS), reproduction.condition_rows(known["conditions"])
        ),
    }


def template(name: str) -> Template:
    """The template of a page, in this folder."""
    environment = Environment(
        loader=PackageLoader("supernet", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "thousands": thousands}
    return environment.get_template(name)


def found(results: Results, rows: series.Rows) -> dict[str, Any]:
    """The architecture that was found: what it is, what it costs, how accurate it is."""
    return {
        "compared": values.compared(results),
        "verdict": verdict(results),
        "trained": values.trained(results),
        "derived": values.derived(results),
        "fidelity": values.fidelity(results),
        "text": results.get("architecture", {}).get("text"),
        "graphs": pictures.graphs(results, pictures.option_styles(results, rows)),
        "decisions": values.decisions(results),
        "latency": values.latency(results),
        "scatter": pictures.cost_scatter(results),
        "others": values.others(results),
    }


def search(results: Results, rows: series.Rows) -> dict[str, Any]:
    """How the supernets were trained, and what instruments and guards said."""
    supernets = series.stages(rows, "search")
    styles = pictures.option_styles(results, rows)
    choices = results.get("architecture", {}).get("choices", {})
    groups = series.options(row for stage in supernets for row in stage)
    return {
        "supernets": results.get("search", {}).get("supernets") or len(supernets),
        "logged": len(supernets),
        "curves": pictures.search_curves(results, supernets),
        "shares": {
            group: pictures.share_curves(supernets, group, styles, choices.get(group, ()))
            for group in groups
        },
        "collapse": pictures.instrument_curves(results, supernets),
        "guards": values.guards(results),
        "measuring": values.measuring_time(results),
    }


def judged(results: Results, rows: series.Rows, config: Mapping[str, Any]) -> dict[str, Any]:
    """The architectures that were judged with inherited weights, if there were several."""
    cost = config.get("judge", {}).get("cost", "params")
    return {
        "picture": pictures.pareto(results, rows, cost),
        "table": values.front(results),
        "images": values.images_each(results),
    }


def rankings(results: Results) -> list[dict[str, Any]]:
    """What ``supernet rank`` found for each truth: how well each predictor orders architectures."""
    ranked = results.get("rank") or {"against": {}}
    return [
        {
            "truth": truth,
            "pictures": pictures.rank_scatters(ranked, truth, number),
            "table": values.ranking(correlations),
        }
        for number, (truth, correlations) in enumerate(ranked["against"].items())
    ]
