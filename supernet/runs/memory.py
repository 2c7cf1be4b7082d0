"""Before a run begins: does its search fit into memory, and what is changed if it does not?"""

from typing import Any

from supernet.cost.memory import MemoryPlan, overrides, planned
from supernet.device import available_memory_bytes
from supernet.runs.folder import State
from supernet.runs.search import method_key
from supernet.runs.setup import Setup
from supernet.track.console import Progress


def memory_plan(setup: Setup) -> MemoryPlan:
    """The plan of the search's memory, predicted by trials of some seconds.

    Jobs that run at once share the memory.

    Raises:
        UserError: a trial failed.
    """
    available = available_memory_bytes(setup.device) // setup.workers
    return planned(setup.settings, len(setup.splits.weights), available)


def fitted(
    setup: Setup, state: State, parent: State | None, progress: Progress
) -> tuple[Setup, dict[str, Any] | None]:
    """The setup whose search fits, and a record of it.

    A search is not planned again if the parent has done it, or if the parent began it with a batch
    that was chosen for the same search.

    Raises:
        UserError: the search does not fit, and the settings do not allow a change, or no change
            helps.
    """
    searches = setup.given is None and setup.config.search.supernets > 0
    if setup.config.memory not in ("refuse", "fit") or not searches:
        return setup, None
    asked, before = setup.config.search.batch_size, parent and parent.memory
    if before and before["asked"] == asked:
        same = as_planned(setup, before)
        if before["key"] == method_key(same):
            return same, before
    if state.origin and state.origin["keys"]["method"] == method_key(setup):
        return setup, None
    plan = memory_plan(setup)
    progress.message(f"memory: {plan}")
    if setup.config.memory == "fit" and plan.remedy:
        setup = setup.replaced(**plan.remedy)
        progress.message(
            f"memory=fit: the search takes {overrides(plan.remedy)}; its other settings stay"
        )
    else:
        plan.require_fit()
    return setup, record_of(asked, setup, plan)


def as_planned(setup: Setup, memory: dict[str, Any] | None) -> Setup:
    """The setup, with the batch that was chosen for it when the run began."""
    config = setup.config
    if memory is None or config.memory != "fit" or memory["asked"] != config.search.batch_size:
        return setup
    recompute = memory["recompute"] or config.search.recompute
    return setup.replaced(batch_size=memory["batch_size"], recompute=recompute)


def record_of(asked: int, setup: Setup, plan: MemoryPlan) -> dict[str, Any]:
    """The entry of the plan in ``results.json``."""
    chosen = setup.config.search
    found = {
        "key": method_key(setup),  # of the search that the plan is for
        "asked": asked,
        "batch_size": chosen.batch_size,
        "recompute": chosen.recompute,
        "predicted_bytes": plan.peak,
        "available_bytes": plan.available,
        "largest_batch_size": plan.largest,
    }
    if plan.recomputed is not None:
        again = plan.recomputed
        found["recomputed"] = {
            "predicted_bytes": again.peak,
            "largest_batch_size": again.largest,
        }
    return found
