"""A study: several methods with several seeds under one recipe, compared in one table."""

from pathlib import Path
from typing import Any

from rich.table import Table

from supernet.config import Config
from supernet.evaluate.statistics import mean_and_interval
from supernet.files import write_json
from supernet.run import Run
from supernet.state import remove_leftovers
from supernet.track.console import Progress
from supernet.train.loop import StopRequest


def run(jobs: dict[str, Config], folder: Path, progress: Progress, stop: StopRequest, parent: Path | None = None) -> None:
    """Runs each job in the subfolder of its name (what is finished costs nothing); ``results.json`` gets the comparison.

    ``parent`` is the folder of another study, from whose runs of the same names these reuse what still holds.
    """
    remove_leftovers(folder)
    results = []
    for name, job in jobs.items():
        progress.message(f"study: {name}")
        before = parent / name if parent and (parent / name / "state.json").exists() else None
        with Run(job, folder / name, parent=before, progress=progress, stop=stop) as one:
            one.run()
            results.append(one.results())
    comparison = compare(results)
    write_json(folder / "results.json", {"schema": 1, "study": comparison, "runs": results})
    progress.message(table(comparison))
    progress.message(f"folder: {folder}")


def compare(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a method, the random architectures of all its runs as the last: mean accuracy over seeds, and the whole cost."""
    rows = []
    for method in dict.fromkeys(result["method"] for result in results):
        runs = [result for result in results if result["method"] == method]
        mean, interval = mean_and_interval([result["retrain"]["mean"] for result in runs])
        seconds = sum(result["search"]["seconds"] + result["derive"]["seconds"] for result in runs)
        rows.append({"method": method, "runs": len(runs), "mean": mean, "ci95": interval, "search_seconds": seconds})
    by_seed = {result["seed"]: result for result in results if "random_baseline" in result}  # every method has the same
    chance = [accuracy for result in by_seed.values() for accuracy in result["random_baseline"]["accuracy"]]
    if chance:
        mean, interval = mean_and_interval(chance)
        rows.append({"method": "random architectures", "runs": len(chance), "mean": mean, "ci95": interval, "search_seconds": 0.0})
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    result = Table("method", "runs", "accuracy from scratch", "95% interval", "search seconds")
    for row in rows:
        interval = "–" if row["ci95"] is None else "{:.2%} to {:.2%}".format(*row["ci95"])
        result.add_row(row["method"], str(row["runs"]), f"{row['mean']:.2%}", interval, f"{row['search_seconds']:.1f}")
    return result
