"""Searchers on a table of published accuracies: what each finds after how many evaluations.

An evaluation of an architecture is a look into the table, so that hundreds of searches take
seconds. A searcher sees the column ``study.ranked_by``; what it has found is judged by the column
``study.target``. Regret is the best figure of that column minus that of what was found.

The folder of a simulation has a subfolder for each searcher, with the state of its finished job.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from supernet.checklist.practices import add_checklist
from supernet.config import Config, class_of, truth
from supernet.cost.budget import Budget
from supernet.environment import environment
from supernet.errors import UserError
from supernet.evaluate.accuracy import Judgement
from supernet.evaluate.published import Published, read_published
from supernet.evaluate.statistics import difference_and_interval, mean_and_interval
from supernet.files import write_json
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
from supernet.searchers.logits import ByLogits
from supernet.searchers.searcher import Searcher, search
from supernet.track.console import Progress
from supernet.train.loop import StopRequest

Row = dict[str, Any]

ROUNDING = 1e-9  # sums of shares are not exact
PLACES = 100  # of a curve, at most, that have an interval: more cannot be seen
STAGE = "simulation"  # the name of the result in the state of a searcher's folder


@dataclass(frozen=True, eq=False)
class Simulation(Job):
    """All searches of one searcher."""

    name: str  # of the searcher
    config: Config

    def inputs(self, work: Work) -> Row:
        """All searchers have the same settings but for their own."""
        setup = work.setup
        table = {"table": setup.contents["study.table"]["content"]}
        return (
            truth(asdict(self.config.study))
            | table
            | setup.of("space", "data", "budget")
            | {"searcher": self.config.searcher}
        )

    def compute(self, work: Work) -> Row:
        """For each search: the two curves of :func:`simulated`, and how many evaluations it has
        spent.
        """
        setup = Setup(self.config)
        published, budget = table_of(setup), counted_budget(setup)
        study, found = self.config.study, []
        with work.progress.stage(self.name, study.simulations) as update:
            for seed in range(study.simulations):
                found.append(simulated(setup, budget, published, seed))
                update(seed + 1, {})
                work.stop.check()
        curves, costs, spent = map(list, zip(*found, strict=True))
        return {"curves": curves, "costs": costs, "spent": spent}


def simulated(
    setup: Setup, budget: Budget, published: Published, seed: int
) -> tuple[list[float | None], list[float], float]:
    """One search: the published figure, from 0 to 1, of the best architecture that it has found
    within one evaluation, within two, and so on to its last one; what all evaluations so far have
    cost; and how many it has spent in all.

    A judgement on a share of the validation images is that share of an evaluation. It differs from
    the figure by chance, as the accuracy on that share of 10,000 images does. Before the first
    whole evaluation nothing is found (``None``). An architecture that is proposed again costs
    nothing.
    """
    study, space, searcher = setup.config.study, setup.space, setup.fresh("searcher")
    streams = Streams(seed, f"simulation/{option(searcher)}")
    noise = streams.host("noise")
    seen, truth = (published.columns[name] for name in (study.ranked_by, study.target))
    prices = np.ones(len(seen)) if study.cost is None else published.columns[study.cost]
    spent = cost = 0.0
    best: tuple[float, float] | None = None  # the figure that is seen, and the truth
    curve: list[float | None] = []
    paid: list[float] = []

    def fill(evaluations: float) -> None:
        while len(curve) + ROUNDING < evaluations:
            curve.append(None if best is None else best[1])
            paid.append(cost)

    def judge(architecture: Architecture, share: float) -> Judgement:
        nonlocal spent, cost, best
        fill(spent + share - 1)  # what was found before counts for all evaluations that are full
        row = published.rows[space.encode(architecture)]
        accuracy = float(seen[row]) / 100
        if share < 1:
            error = np.sqrt(accuracy * (1 - accuracy) / (share * 10_000))
            accuracy = float(np.clip(accuracy + error * noise.standard_normal(), 0, 1))
        elif best is None or accuracy > best[0]:
            best = accuracy, float(truth[row]) / 100
        spent += share
        cost += share * float(prices[row])
        return Judgement(accuracy, 1 - accuracy, 10_000)

    searcher.begin(budget, {}, streams.host("searcher"))
    search(searcher, judge)
    fill(spent)
    return curve, paid, spent


def require_judgements_alone(name: str, node: Mapping[str, Any]) -> None:
    """Raises a UserError if the searcher of that ``name`` needs more than judgements of
    architectures. ``node`` is its option.
    """
    kind = class_of(node, "searcher")
    if issubclass(kind, ByLogits) or (issubclass(kind, Searcher) and kind.needs_scores):
        raise UserError(f"study.searchers: {name} reads what a supernet has learnt; leave it out")


def table_of(setup: Setup) -> Published:
    """The table of the study.

    Raises:
        UserError: it cannot be read, lacks a column, has accuracies that are no percentages, or is
            that of another space.
    """
    study = setup.config.study
    assert study.table is not None
    columns = [study.target, study.ranked_by, *([study.cost] if study.cost else [])]
    published = read_published("study.table", Path(study.table), *columns)
    for column in (study.target, study.ranked_by):
        published.require_percent(column, f"study.table={study.table}")
    first = setup.space.encode(setup.space.random(np.random.default_rng(0)))
    published.require(first, f"study.table={study.table}", setup.space.name)
    return published


def jobs_of(cells: Mapping[str, Config]) -> list[Simulation]:
    return [Simulation(name, config) for name, config in cells.items()]


def goes_on(cells: Mapping[str, Config], folder: Path) -> bool:
    """Whether what ``folder`` holds of each searcher was simulated with the same settings.

    Raises:
        UserError: the table does not belong to the space.
    """
    setup = Setup(next(iter(cells.values())))
    table_of(setup)
    return computes_the_same(Work(setup, State(folder)), jobs_of(cells), states_in(folder, cells))


def states_in(folder: Path, names: Iterable[str]) -> dict[str, State]:
    """The state of each searcher in the folder of a simulation."""
    return {name: State.read(folder / name) for name in names}


def computes_the_same(work: Work, jobs: Sequence[Job], states: Mapping[str, State]) -> bool:
    return all(states[job.name].plan in (None, work.key(job)) for job in jobs)


def run(
    cells: Mapping[str, Config],
    folder: Path,
    executor: Executor,
    progress: Progress,
    stop: StopRequest,
) -> None:
    """Simulates each searcher, and writes the comparison to ``results.json`` and ``report.html``.

    The searches of a searcher are kept in the subfolder of its name, and not repeated.

    Raises:
        UserError: the table does not belong to the space, or the folder holds searches with other
            settings.
    """
    setup = Setup(next(iter(cells.values())))
    published, study, budget = table_of(setup), setup.config.study, counted_budget(setup)
    work, jobs = Work(setup, State(folder), progress, stop), jobs_of(cells)
    states = states_in(folder, cells)
    if not computes_the_same(work, jobs, states):
        raise UserError(
            f"hydra.run.dir={folder}: holds searches with other settings; choose a new folder, or "
            "leave it out"
        )
    if budget.limits:
        published = published.among(lambda text: budget.allows(setup.space.decode(text)))
    optimum = float(published.columns[study.target].max()) / 100
    here = environment(setup.device, setup.config.threads)

    def keep(job: Job, result: Row) -> None:
        state, key = states[job.name], work.key(job)
        state.plan, state.contents, state.environments = key, setup.contents, [here]
        state.stages = {STAGE: {"key": key, "result": result}}
        state.folder.mkdir(exist_ok=True)
        state.write()

    missing = [job for job in jobs if not states[job.name].stages]
    executor.run(work, missing, keep)
    found = {name: state.stages[STAGE]["result"] for name, state in states.items()}
    rows_ = [
        row(name, found[name], found.get("random"), optimum) | {"settings": config.searcher}
        for name, config in cells.items()
    ]
    each = [one for state in states.values() for one in state.environments]
    *before, last = [one for number, one in enumerate(each) if one not in each[:number]]
    about = {
        "table": study.table,
        "content": setup.contents["study.table"]["content"],
        "target": study.target,
        "ranked_by": study.ranked_by,
        "cost": study.cost,
        "optimum": optimum,
        "simulations": study.simulations,
        "environment": last,
        "environments_before": before,
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
    """The regret of one searcher after each evaluation; and how much less it is than that of random
    search, after as many evaluations as every search of both has spent.
    """
    regrets, costs = optimum - together(found["curves"]), together(found["costs"])
    spent, final = found["spent"], regrets[:, -1].tolist()
    mean, interval = mean_and_interval(final)
    against = None if chance is None or chance is found else minus(found, chance)
    known: np.ndarray = np.all(np.isfinite(regrets), axis=0)
    return {
        "searcher": name,
        "evaluations": {"least": min(spent), "mean": float(np.mean(spent)), "most": max(spent)},
        "regret": mean,
        "ci95": interval,
        "median": float(np.median(final)),
        "optimum_found": float(np.mean(np.array(final) <= 1e-9)),
        "minus_random": against,
        "cost": float(costs[:, -1].mean()),
        "cost_curve": costs.mean(axis=0).tolist(),
        "curve": [
            float(one) if there else None
            for one, there in zip(regrets.mean(axis=0), known, strict=True)
        ],
        "curve_ci95": band(regrets[:, known], len(known)),
    }


def together(curves: Sequence[Sequence[float | None]]) -> np.ndarray:
    """The curves of all searches [searches, evaluations], up to the last evaluation of any. What a
    search has found stays when it has ended. Before it has found anything, it is NaN.
    """
    most = max(map(len, curves))
    return np.array([[*one, *one[-1:] * (most - len(one))] for one in map(list, curves)], float)


def minus(found: Row, chance: Row) -> Row | None:
    """The mean regret minus that of random search, ``after`` as many evaluations as every search of
    both has spent; ``None`` if one has found nothing by then.
    """
    both = [one["curves"] for one in (found, chance)]
    after = min(len(curve) for curves in both for curve in curves)
    ours, theirs = ([curve[after - 1] for curve in curves] for curves in both)
    if None in ours or None in theirs:
        return None
    less, ends = difference_and_interval(theirs, ours)  # the best of the table cancels
    return {"after": after, "difference": less, "ci95": ends}


def band(regrets: np.ndarray, last: int) -> Row | None:
    """The 95% interval of the mean regret, from ``low`` to ``high``, ``after`` so many evaluations,
    which are evenly spread. ``regrets`` is [simulations, evaluations], up to the ``last`` one.
    """
    count = regrets.shape[1]
    places = np.unique(np.linspace(1, count, min(count, PLACES)).round().astype(int))
    ends = [mean_and_interval(regrets[:, place - 1].tolist())[1] for place in places]
    if ends[-1] is None:
        return None
    low, high = zip(*ends, strict=True)
    return {"after": (places + last - count).tolist(), "low": low, "high": high}
