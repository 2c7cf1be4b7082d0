"""Searchers on a table of published accuracies: what each finds after how many evaluations.

An evaluation of an architecture is a look into the table, so that hundreds of searches take
seconds. A searcher sees the column ``study.ranked_by``; what it has found is judged by the column
``study.target``. Regret is the best figure of that column minus that of what was found.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from supernet.checklist.practices import add_checklist
from supernet.config import Config
from supernet.cost.budget import Budget
from supernet.environment import environment
from supernet.errors import UserError
from supernet.evaluate.accuracy import Judgement
from supernet.evaluate.published import Published, read_published
from supernet.evaluate.statistics import difference_and_interval, mean_and_interval
from supernet.files import content_of, write_json
from supernet.mixture import Architecture
from supernet.randomness import Streams
from supernet.report import regret
from supernet.report.console import console_table
from supernet.runs.executor import Executor
from supernet.runs.folder import State
from supernet.runs.job import Job
from supernet.runs.setup import Setup, option
from supernet.runs.tables import track
from supernet.runs.work import Work, counted_budget
from supernet.searchers.searcher import search
from supernet.track.console import Progress
from supernet.train.loop import StopRequest

Row = dict[str, Any]

PLACES = 100  # of a curve, at most, that have an interval: more cannot be seen


@dataclass(frozen=True, eq=False)
class Simulation(Job):
    """All searches of one searcher."""

    name: str  # of the searcher
    config: Config

    def inputs(self, work: Work) -> Row:
        return {}

    def compute(self, work: Work) -> Row:
        setup = Setup(self.config)
        published, budget = table_of(setup), counted_budget(setup)
        study, curves, costs = self.config.study, [], []
        with work.progress.stage(self.name, study.simulations) as update:
            for seed in range(study.simulations):
                curve, paid = simulated(setup, budget, published, seed)
                curves.append(curve)
                costs.append(paid)
                update(seed + 1, {})
                work.stop.check()
        return {"curves": curves, "costs": costs}


def simulated(
    setup: Setup, budget: Budget, published: Published, seed: int
) -> tuple[list[float], list[float]]:
    """One search: the published figure, from 0 to 1, of the best architecture so far after each
    evaluation, and what all evaluations so far have cost.

    A judgement on a share of the validation images is as much of an evaluation. It differs from the
    figure by chance, as the accuracy on that share of 10,000 images does.
    """
    study, space, searcher = setup.config.study, setup.space, setup.fresh("searcher")
    if searcher.needs_scores:
        raise UserError(
            f"study.searchers: {option(searcher)} reads what a supernet has learnt; leave it out"
        )
    streams = Streams(seed, f"simulation/{option(searcher)}")
    noise = streams.host("noise")
    seen, truth = (published.columns[name] for name in (study.ranked_by, study.target))
    prices = np.ones(len(seen)) if study.cost is None else published.columns[study.cost]
    spent = cost = 0.0
    best: tuple[float, float] | None = None  # the figure that is seen, and the truth
    curve: list[float] = []
    paid: list[float] = []

    def judge(architecture: Architecture, share: float) -> Judgement:
        nonlocal spent, cost, best
        row = published.rows[space.encode(architecture)]
        accuracy = float(seen[row]) / 100
        if share < 1:
            error = np.sqrt(accuracy * (1 - accuracy) / (share * 10_000))
            accuracy = float(np.clip(accuracy + error * noise.standard_normal(), 0, 1))
        elif best is None or accuracy > best[0]:
            best = accuracy, float(truth[row]) / 100
        spent += share
        cost += share * float(prices[row])
        while best is not None and len(curve) < min(int(spent + 1e-9), study.draws):
            curve.append(best[1])
            paid.append(cost)
        return Judgement(accuracy, 1 - accuracy, 10_000)

    searcher.begin(budget, {}, streams.host("searcher"))
    search(searcher, judge)
    assert best is not None
    left = study.draws - len(curve)
    return curve + [best[1]] * left, paid + [cost] * left


def table_of(setup: Setup) -> Published:
    """The table of the study.

    Raises:
        UserError: it cannot be read, lacks a column, or is that of another space.
    """
    study = setup.config.study
    assert study.table is not None
    columns = [study.target, study.ranked_by, *([study.cost] if study.cost else [])]
    published = read_published("study.table", Path(study.table), *columns)
    first = setup.space.encode(setup.space.random(np.random.default_rng(0)))
    published.require(first, f"study.table={study.table}", setup.space.name)
    return published


def run(
    cells: dict[str, Config],
    folder: Path,
    executor: Executor,
    progress: Progress,
    stop: StopRequest,
) -> None:
    """Simulates each searcher, and writes the comparison to ``results.json`` and ``report.html``.

    Raises:
        UserError: the table does not belong to the space, or a searcher needs a supernet.
    """
    setup = Setup(next(iter(cells.values())))
    published, study, budget = table_of(setup), setup.config.study, counted_budget(setup)
    if budget.limits:
        published = published.among(lambda text: budget.allows(setup.space.decode(text)))
    optimum, found = float(published.columns[study.target].max()) / 100, dict[str, Row]()
    jobs = [Simulation(name, config) for name, config in cells.items()]
    work = Work(setup, State(folder), progress, stop)
    executor.run(work, jobs, lambda job, one: found.update({job.name: one}))
    rows_ = [
        row(name, found[name], found.get("random"), optimum) | {"settings": config.searcher}
        for name, config in cells.items()
    ]
    about = {
        "table": study.table,
        "content": content_of(str(study.table)),
        "target": study.target,
        "ranked_by": study.ranked_by,
        "cost": study.cost,
        "optimum": optimum,
        "simulations": study.simulations,
        "environment": environment(setup.device, setup.config.threads),
    }
    write_json(folder / "results.json", {"schema": 1, "simulation": rows_, **about})
    add_checklist(folder)
    table = regret.found(rows_)
    track({"searchers on a table": table}, setup, folder)
    progress.message(console_table(table))
    progress.message(f"report: {page_of(folder)}")
    progress.message(f"folder: {folder}")


def page_of(folder: Path) -> Path:
    """Writes ``report.html`` from the files in ``folder``."""
    from supernet.report.simulation import write_simulation  # matplotlib takes a second to import

    return write_simulation(folder)


def row(name: str, found: Row, chance: Row | None, optimum: float) -> Row:
    """The regret of one searcher after each evaluation, and how much less it is than that of random
    search at the end.
    """
    regrets, costs = optimum - np.array(found["curves"]), np.mean(found["costs"], axis=0)
    final = regrets[:, -1].tolist()
    mean, interval = mean_and_interval(final)
    against = None
    if chance is not None and chance is not found:
        others = (optimum - np.array(chance["curves"])[:, -1]).tolist()
        less, ends = difference_and_interval(final, others)
        against = {"difference": less, "ci95": ends}
    return {
        "searcher": name,
        "regret": mean,
        "ci95": interval,
        "median": float(np.median(final)),
        "optimum_found": float(np.mean(np.array(final) <= 1e-9)),
        "minus_random": against,
        "cost": float(costs[-1]),
        "cost_curve": costs.tolist(),
        "curve": regrets.mean(axis=0).tolist(),
        "curve_ci95": band(regrets),
    }


def band(regrets: np.ndarray) -> Row | None:
    """The 95% interval of the mean regret, from ``low`` to ``high``, ``after`` so many evaluations,
    which are evenly spread. ``regrets`` is [simulations, evaluations].
    """
    draws = regrets.shape[1]
    after = np.unique(np.linspace(1, draws, min(draws, PLACES)).round().astype(int))
    ends = [mean_and_interval(regrets[:, place - 1].tolist())[1] for place in after]
    if ends[-1] is None:
        return None
    low, high = zip(*ends, strict=True)
    return {"after": after.tolist(), "low": low, "high": high}
