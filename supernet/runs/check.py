"""``supernet check``: tries one step of the search and one of a retraining. It writes nothing."""

import time
from collections.abc import Iterator

from supernet.cost.count import count
from supernet.cost.memory import overrides, planned_retraining
from supernet.cost.table import CostTable
from supernet.device import available_memory_bytes, describe, reproducible
from supernet.errors import UserError
from supernet.randomness import Streams
from supernet.runs.latency import made
from supernet.runs.memory import memory_plan
from supernet.runs.preflight import faults, warnings_of
from supernet.runs.profile import profile
from supernet.runs.search import require_room_for_search, search_stage, searches
from supernet.runs.setup import Setup
from supernet.runs.training import fresh_network, retrain_stage
from supernet.runs.work import budget_of
from supernet.track.console import Progress


def check(setup: Setup) -> Iterator[str]:
    """Returns lines that say how large everything is.

    Raises:
        UserError: something is wrong with the configuration, or the search does not fit.
    """
    with reproducible(setup.config.threads):
        yield from checked(setup)


def checked(setup: Setup) -> Iterator[str]:
    yield from warnings_of(setup)
    data, splits = setup.data, setup.splits
    tables: dict[str, CostTable] = {}
    if setup.config.budget.measures:
        tables["latency_ms"] = made(setup, Progress(quiet=True))[0]
    wrong = list(faults(setup))
    yield from (f"wrong: {fault}" for fault in wrong)
    if wrong:
        raise UserError(f"space {setup.space.name}: {wrong[0]}")
    budget = budget_of(setup, tables)
    require_room_for_search(setup)
    stage = search_stage(setup, budget)
    weights = sum(parameter.numel() for parameter in stage.supernet.parameters())
    steps = stage.steps * len(searches(setup))
    yield (
        f"data: {len(data.train)} training and {len(data.test)} test images of shape "
        f"{setup.task.input_shape}"
    )
    yield (
        f"splits: {len(splits.weights)} images for the weights, {len(splits.architecture)} for "
        "the architecture"
    )
    yield from profile(setup, budget)
    yield f"supernet: {setup.space.name}, {weights:,} weights; {steps} steps of the search"
    fits = True
    if setup.config.memory != "ignore":
        plan = memory_plan(setup)
        yield f"memory: {plan}"
        if setup.config.memory == "fit" and plan.remedy:
            yield f"memory=fit: the search would take {overrides(plan.remedy)}"
            setup = setup.replaced(**plan.remedy)
            stage = search_stage(setup, budget)
        else:
            plan.require_fit()
        available = available_memory_bytes(setup.device) // setup.workers
        retraining = planned_retraining(setup.settings, len(setup.images), available)
        what = "it" if setup.given else "the largest network"
        yield f"memory of retraining {what}: {retraining}"
        fits = retraining.fits
    started = time.perf_counter()
    stage.step(0)
    took = time.perf_counter() - started
    yield f"one search step: {took:.2f} s (the first; later ones are faster)"
    streams = Streams(setup.config.seed)
    architecture = setup.space.random(streams.host("check"))
    network = fresh_network(setup, architecture, streams)
    training = retrain_stage(setup, "check", network, setup.images, streams)
    if fits:
        training.step(0)
    cost = count(training.network, setup.task)
    yield (
        f"a random network: {cost.params:,} parameters, {cost.madds:,} multiply-adds; "
        f"{training.steps} steps of retraining"
    )
    verdict = "all is well" if fits else "all is well but the memory of the retraining"
    yield f"device: {describe(setup.device)}; {verdict}"
