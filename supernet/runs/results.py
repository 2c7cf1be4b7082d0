"""``results.json``: every figure of a run so far, computed from its state."""

from collections.abc import Iterator, Mapping
from typing import Any

from supernet.cost.rivals import RIVALS
from supernet.environment import environment
from supernet.evaluate.statistics import difference_and_interval, mean_and_interval
from supernet.runs.folder import SCHEMA, State
from supernet.runs.setup import SOURCE, Setup

SUMS = ("seconds", "steps")  # the figures of several supernets that are added up


def results(setup: Setup, state: State) -> dict[str, Any]:
    """Every figure so far, in the form of ``results.json``."""
    stages = {name: entry["result"] for name, entry in state.stages.items()}
    config = setup.config
    value: dict[str, Any] = {
        "schema": SCHEMA,
        "name": config.name,
        "seed": config.seed,
        "space": setup.space.name,
        "method": config.method,
        "data": config.data.name,
        "parent": state.parent,
    }
    if state.contents is not None:
        value["classes"] = state.contents[SOURCE]["classes"]
        value["contents"] = {name: known["content"] for name, known in state.contents.items()}
    if state.memory is not None:
        value["memory"] = {k: v for k, v in state.memory.items() if k != "key"}
    if "latency" in stages:
        value["latency"] = stages["latency"]
    searched = numbered(stages, "search")
    if searched and (setup.given is None or setup.init == "inherit"):
        value["search"] = together(searched)
    if "growth" in stages:
        parts = [one for name, one in stages.items() if name.startswith(("model/", "shortcuts/"))]
        value["growth"] = stages["growth"] | {"seconds": sum(one["seconds"] for one in parts)}
    value |= stages.get("derive", {})
    if (found := trained(stages, "retrain")) is not None:
        first: dict[str, Any] = numbered(stages, "retrain")[0]
        settings = {"epochs": config.retrain.epochs, "init": config.retrain.init}
        about = {name: first[name] for name in ("fidelity", "warm_start") if name in first}
        value["retrain"] = found | settings | about
    if (chance := trained(stages, "random")) is not None:
        value["random_baseline"] = chance
    if others := {name: rival for name in RIVALS if (rival := trained(stages, name)) is not None}:
        value["rivals"] = others
    if found is not None and chance is not None:
        difference, ends = difference_and_interval(found["accuracy"], chance["accuracy"])
        value["found_minus_random"] = {"mean": difference, "ci95": ends}
    if "rank" in stages:
        value["rank"] = stages["rank"]
    *before, value["environment"] = state.environments or [
        environment(setup.device, config.threads)  # of a run before there was this record
    ]
    if before:
        value["environments_before"] = before
    if state.reproduction is not None:
        value["reproduction"] = state.reproduction
    value["total_seconds"] = total_seconds(stages, value)
    return value


def numbered(stages: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """The results of the jobs ``kind/0``, ``kind/1``, ... that are finished, in this order."""
    names = (f"{kind}/{index}" for index in range(len(stages)))
    return [stages[name] for name in names if name in stages]


def together(searched: list[dict[str, Any]]) -> dict[str, Any]:
    """The supernets of a search as one: their seconds and steps add up, the peak is the highest."""
    first = {k: v for k, v in searched[0].items() if k != "keys"}
    parts = {
        name: {"seconds": sum(one["parts"][name]["seconds"] for one in searched)}
        for name in first["parts"]
    }
    return first | {
        **{name: sum(one[name] for one in searched) for name in SUMS},
        "peak_memory_bytes": max(one["peak_memory_bytes"] for one in searched),
        "parts": parts,
        "guards": [
            fired | ({"supernet": number} if len(searched) > 1 else {})
            for number, one in enumerate(searched)
            for fired in one["guards"]
        ],
        "supernets": len(searched),
    }


def search_of(state: State) -> dict[str, Any] | None:
    """The whole search of a run, with the key of its first supernet; ``None`` if it has none."""
    searched = numbered({name: one["result"] for name, one in state.stages.items()}, "search")
    if not searched:
        return None
    first = state.stages["search/0"]
    return together(searched) | {"key": first["key"], "keys": first["result"]["keys"]}


def trained(stages: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """The results of the trainings ``kind/0``, ``kind/1``, ... taken together."""
    runs = numbered(stages, kind)
    if not runs:
        return None
    accuracy = [run["accuracy"] for run in runs]
    mean, interval = mean_and_interval(accuracy)
    columns = [n for n in ("text", "params", "madds", "latency_ms", "accuracy") if n in runs[0]]
    return {
        "accuracy": accuracy,
        "mean": mean,
        "ci95": interval,
        "seconds": sum(run["seconds"] for run in runs),
        "architectures": [{name: run[name] for name in columns} for run in runs],
    }


def total_seconds(stages: Mapping[str, Any], value: Mapping[str, Any]) -> float:
    """The time of everything: all jobs, and the searches that this one started from.

    The seconds of the shortlist are those of its candidates, which are jobs and counted as such.
    """
    total = sum(result.get("seconds", 0.0) for result in stages.values())
    total += stages.get("derive", {}).get("derive", {}).get("seconds", 0.0)
    return total + sum(before["seconds"] for before in searches_before(value.get("search", {})))


def searches_before(search: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The searches that a search started from, the last first: each holds the one before it."""
    before = search.get("warm_start")
    while before:
        yield before
        before = before.get("warm_start")
