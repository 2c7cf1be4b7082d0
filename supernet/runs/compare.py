"""Two runs of the same settings, compared: figure by figure, weight by weight, and by their means.

Seconds, memory and measured latencies are never compared.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from supernet.evaluate.statistics import FEWEST, mean_and_interval
from supernet.runs.folder import State
from supernet.track.jsonlines import read_rows
from supernet.train.checkpoint import Checkpoints

SAME = "the same bits"
WITHIN = "within the interval of the seeds"
DIFFERS = "differs"

# Entries of results that are no figures of the computation, or that are measured.
LEFT_OUT = {"peak_memory_bytes", "parts", "keys", "fidelity", "instruments", "folder", "latency_ms"}
UNCOMPARED = {"latency", "export"}  # jobs that measure, or that write what was computed before

Figures = dict[str, Any]  # where it stands -> a number, a text or a checksum


def compared(recorded: State, here: State) -> dict[str, Any]:
    """The verdict on a run that repeats the ``recorded`` one, with what it stands on.

    Raises:
        UserError: a file of one of them is damaged.
    """
    before, now = figures(recorded), figures(here)
    gone = [name for name in recorded.stages if name not in here.stages]
    both = [name for name in before if name in now]
    differing = [name for name in both if before[name] != now[name]]
    accuracies = [accuracies_of(state) for state in (recorded, here)]
    found: dict[str, Any] = {
        "figures": len(both),
        "different": len(differing),
        "first_difference": None,
        "not_repeated": gone,
        "architectures": [text_of(state) for state in (recorded, here)],
        "accuracies": [summary(one) for one in accuracies],
    }
    if differing:
        first = differing[0]
        found["first_difference"] = {
            "where": first,
            "recorded": before[first],
            "here": now[first],
        }
    if not differing and not gone:
        verdict, why = SAME, ""
    else:
        verdict, why = by_interval(*accuracies)
    return found | {"verdict": verdict, "why": why}


def by_interval(recorded: list[float], here: list[float]) -> tuple[str, str]:
    """The verdict by the accuracies of all seeds, and why: each mean must lie within the 95%
    interval of the other seeds. Fewer than three seeds have no interval.
    """
    if not (recorded and here):
        return DIFFERS, "there are no accuracies of seeds to compare"
    (mean, ends), (other, others) = mean_and_interval(recorded), mean_and_interval(here)
    if ends is None or others is None:
        return DIFFERS, "fewer than three seeds have no interval"
    within = ends[0] <= other <= ends[1] and others[0] <= mean <= others[1]
    return (WITHIN, "") if within else (DIFFERS, "a mean is outside the interval of the others")


def judged_by_study(
    found: Mapping[str, dict[str, Any]], entries: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """What was ``found`` in each run of a study, by its name. Where the bits of a run differ, all
    runs of its entry judge it, if they are enough for an interval: they differ in their seeds.
    ``entries`` has what is the same for these.
    """
    judged = {}
    for name, one in found.items():
        alike = [other for key, other in found.items() if entries[key] == entries[name]]
        if one["verdict"] != SAME and len(alike) >= FEWEST:
            verdict, why = by_seeds_of_study(alike)
            one = one | {"verdict": verdict, "why": why}
        judged[name] = one
    return judged


def by_seeds_of_study(found: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The verdict on runs of a study that differ in their seeds, and why: by the mean accuracy of
    each, recorded and here. ``found`` are the comparisons of the runs.
    """
    pairs = [one["accuracies"] for one in found if all(one["accuracies"])]
    if not pairs:
        return by_interval([], [])
    recorded, here = ([each["mean"] for each in side] for side in zip(*pairs, strict=True))
    verdict, why = by_interval(recorded, here)
    return verdict, why or f"of {len(pairs)} runs of the study"


def summary(accuracies: list[float]) -> dict[str, Any] | None:
    """The accuracies of all seeds with their mean and its interval, as in ``results.json``."""
    if not accuracies:
        return None
    mean, interval = mean_and_interval(accuracies)
    return {"accuracy": accuracies, "mean": mean, "ci95": interval}


def accuracies_of(state: State) -> list[float]:
    """The test accuracies of the derived network, one for each seed."""
    names = (f"retrain/{index}" for index in range(len(state.stages)))
    return [state.stages[name]["result"]["accuracy"] for name in names if name in state.stages]


def text_of(state: State) -> str | None:
    """The derived architecture in the notation of its space."""
    derived = state.stages.get("derive")
    return derived["result"]["architecture"]["text"] if derived else None


# --- figures


def figures(state: State) -> Figures:
    """Every figure of a run that its settings decide: what was logged, in this order, what its jobs
    found, and a checksum of each checkpoint that is still there.
    """
    found: Figures = {}
    for row in read_rows(state.folder / "metrics.jsonl"):
        place = f"{row['stage']}, step {row['step']}"
        found |= {f"{place}, {name}": row[name] for name in row if name not in ("stage", "step")}
    found = {name: value for name, value in found.items() if not name.endswith("latency_ms")}
    checkpoints = Checkpoints(state.folder / "checkpoints")
    for name, stage in state.stages.items():
        if name not in UNCOMPARED:
            found |= {f"{name}, {at}": value for at, value in numbers(stage["result"])}
        if (saved := checkpoints.load(name, stage["key"])) is not None:
            found[f"{name}, weights"] = checksum(saved["state"])
    return found


def numbers(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers and texts in the result of a job, each with its place."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in LEFT_OUT and not name.endswith("seconds"):
                yield from numbers(inner, f"{at}.{name}" if at else name)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from numbers(inner, f"{at}[{index}]")
    else:
        yield at, value


def checksum(state: Any) -> str:
    """A checksum of all tensors in a nested state, with their names."""
    content = hashlib.sha256()
    for name, tensor in tensors(state):
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        content.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()[:16]


def tensors(value: Any, at: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in a nested value, each with its place."""
    if isinstance(value, torch.Tensor):
        yield at, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from tensors(inner, f"{at}/{name}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from tensors(inner, f"{at}/{index}")
