"""A study: several methods with several seeds under one recipe, compared in one table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from supernet.config import Config, StudySettings
from supernet.errors import UserError
from supernet.evaluate.published import Published, read_published
from supernet.evaluate.statistics import mean_and_interval
from supernet.files import write_json
from supernet.mixture import Architecture
from supernet.randomness import Streams
from supernet.run import Run
from supernet.state import remove_leftovers
from supernet.track.console import Progress
from supernet.train.loop import StopRequest

Row = dict[str, Any]

SEARCHES = 1000  # random searches in a published table


def run(
    jobs: dict[str, Config],
    folder: Path,
    progress: Progress,
    stop: StopRequest,
    parent: Path | None = None,
) -> None:
    """Runs each job in the subfolder of its name (what is finished costs nothing); ``results.json``
    gets the comparison.

    ``parent`` is the folder of another study, from whose runs of the same names these reuse what
    still holds. With a published table each job ends with its derivation.
    """
    remove_leftovers(folder)
    settings = next(iter(jobs.values())).study
    published = None
    if settings.published is not None:
        columns = (settings.target, settings.ranked_by)
        published = read_published("study.published", Path(settings.published), *columns)
    results, found, largest = [], [], ""
    for name, job in jobs.items():
        progress.message(f"study: {name}")
        before = parent / name if parent and (parent / name / "state.json").exists() else None
        with Run(job, folder / name, parent=before, progress=progress, stop=stop) as one:
            if published:
                largest = in_table(
                    one, one.budget.largest("params"), published, settings
                )  # fails at once if not of this space
                found.append(looked_up(one, published, settings))
            else:
                one.run()
            results.append(one.results())
    if published:
        comparison = rows_of(found, results) + rivals(published, settings, largest)
        optimum = float(published.columns[settings.target].max()) / 100
        comparison = [row | {"regret": optimum - row["mean"]} for row in comparison]
    else:
        comparison = compare(results)
    write_json(
        folder / "results.json", {"schema": 1, "study": comparison, "runs": results, "found": found}
    )
    progress.message(table(comparison))
    progress.message(f"folder: {folder}")


def compare(results: list[Row]) -> list[Row]:
    """A row a method, the random architectures of all its runs as the last: mean accuracy over
    seeds, and the whole cost.
    """
    rows = rows_of([{"accuracy": result["retrain"]["mean"]} for result in results], results)
    by_seed = {
        result["seed"]: result for result in results if "random_baseline" in result
    }  # every method has the same
    chance = [
        accuracy
        for result in by_seed.values()
        for accuracy in result["random_baseline"]["accuracy"]
    ]
    return [*rows, row("random architectures", chance)] if chance else rows


def row(name: str, accuracies: list[float], seconds: float = 0.0) -> Row:
    mean, interval = mean_and_interval(accuracies)
    spread = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None
    return {
        "method": name,
        "runs": len(accuracies),
        "mean": mean,
        "ci95": interval,
        "sd": spread,
        "search_seconds": seconds,
    }


def rows_of(found: list[Row], results: list[Row]) -> list[Row]:
    """A row a method, with the mean of what is known of its architectures."""
    rows = []
    for method in dict.fromkeys(result["method"] for result in results):
        mine = [
            (one, result)
            for one, result in zip(found, results, strict=True)
            if result["method"] == method
        ]
        seconds = sum(
            result["search"]["seconds"] + result["derive"]["seconds"] for _, result in mine
        )
        shares = [one["parameter_free"] for one, _ in mine if "parameter_free" in one]
        rows.append(row(method, [one["accuracy"] for one, _ in mine], seconds))
        rows[-1] |= {"parameter_free": float(np.mean(shares))} if shares else {}
    return rows


def in_table(
    one: Run, architecture: Architecture, published: Published, settings: StudySettings
) -> str:
    """The text of an architecture, which is one of the table.

    Raises:
        UserError: it is not.
    """
    text = one.space.encode(architecture)
    if text not in published.rows:
        raise UserError(
            f"study.published={settings.published}: has no {text}; it must hold every "
            f"architecture of the space {one.space.name}"
        )
    return text


def looked_up(one: Run, published: Published, settings: StudySettings) -> Row:
    """What the run derives, and its published accuracy."""
    architecture = one.derive()
    text = in_table(one, architecture, published, settings)
    return {
        "method": one.config.method,
        "seed": one.config.seed,
        "text": text,
        "accuracy": published.of([text], settings.target)[0] / 100,
        "parameter_free": one.space.share(
            architecture, {group.name: group.parameter_free for group in one.space.groups}
        ),
    }


def rivals(published: Published, settings: StudySettings, largest: str) -> list[Row]:
    """What a search must beat, from the same table: random search, the architecture of the most
    parameters, and the median.
    """
    accuracies = published.columns[settings.target]
    rng = Streams(0).host("rivals")
    found = published.random_search(
        settings.draws, settings.ranked_by, settings.target, SEARCHES, rng
    )
    return [
        row(
            f"random search, best of {settings.draws} by {settings.ranked_by}",
            [float(f) / 100 for f in found],
        ),
        row(
            "most parameters",
            [accuracy / 100 for accuracy in published.of([largest], settings.target)],
        ),
        row("median architecture", [float(np.median(accuracies)) / 100]),
    ]


def table(rows: list[Row]) -> Table:
    looked_up = "regret" in rows[0]
    result = Table(
        "method",
        "runs",
        "published accuracy" if looked_up else "accuracy from scratch",
        "95% interval",
    )
    for name in (["sd", "regret", "parameter-free"] if looked_up else []) + ["search seconds"]:
        result.add_column(name)
    for one in rows:
        cells = [
            one["method"],
            str(one["runs"]),
            f"{one['mean']:.2%}",
            dash(one["ci95"], lambda ci: "{:.2%} to {:.2%}".format(*ci)),
        ]
        cells += (
            [dash(one.get(name), "{:.2%}".format) for name in ("sd", "regret", "parameter_free")]
            if looked_up
            else []
        )
        result.add_row(*cells, f"{one['search_seconds']:.1f}")
    return result


def dash(value: Any, shown: Callable[[Any], str]) -> str:
    return "–" if value is None else shown(value)
