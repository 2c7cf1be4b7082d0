"""Runs a recorded run again, and says whether its results came out again.

:mod:`supernet.runs.conditions` says before whether the same bits are expected, and
:mod:`supernet.runs.compare` compares afterwards.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from supernet.errors import UserError
from supernet.run import Run, report, same_computation
from supernet.runs.compare import compared
from supernet.runs.conditions import Condition, different, expectation
from supernet.runs.folder import State, computed
from supernet.runs.memory import as_planned
from supernet.runs.search import searches
from supernet.runs.setup import CHANGE_NOTHING, Setup
from supernet.runs.training import random_trainings, rival_trainings
from supernet.runs.work import Work

# A line of ``reproduce`` may have these settings, because no result depends on them. The name of
# the method is one of them, but who gives it also chooses its parts.
MAY_BE_GIVEN = CHANGE_NOTHING - {"method"} | {"hydra"}

# Step of a run -> the kinds of jobs that show that the run has come to it, the last step first.
STEPS = {
    "run": {"export"},
    "retrain": {"retrain", "random", "largest", "whole", "uniform", "hand_made"},
    "derive": {"derive", "judge", "candidate"},
    "search": {"search", "growth", "model", "shortcuts"},
    "latency": {"latency"},
}


@dataclass(frozen=True)
class Recorded:
    """A finished run: its state, the steps that repeat it, and its conditions that are different
    here.
    """

    state: State
    steps: list[str]
    conditions: list[Condition]

    @property
    def expected(self) -> str:
        return expectation(self.conditions)


def recorded(setup: Setup, folder: Path, given: Sequence[str] = ()) -> Recorded:
    """The run in ``folder``, which ``setup`` computes again. ``given`` are the sections of settings
    that were given beside those of the folder.

    Raises:
        UserError: the run is not finished, has other settings, or cannot be repeated by itself; or
            a file is missing or damaged.
    """
    state = State.read(folder)
    kinds = {name.partition("/")[0] for name in state.stages}
    steps = [next((step for step, its in STEPS.items() if its & kinds), "")]
    steps += ["rank"] * ("rank" in kinds)
    if not steps[0]:
        raise UserError(f"{folder}: nothing was computed there yet; supernet run from={folder}")
    same = same_computation(setup, folder)
    if not same and not MAY_BE_GIVEN.issuperset(given):
        raise UserError(
            f"reproduce repeats what is in {folder}: leave out the settings that it was not "
            "computed with"
        )
    first = state.stages.get("search/0", {"result": {}})["result"]
    if first.get("warm_start") is not None:
        raise UserError(
            f"{folder}: its search began from the weights of {state.parent}, so it cannot be "
            "repeated by itself; reproduce that run"
        )
    if missing := unfinished(Work(as_planned(setup, state.memory), state), steps):
        raise UserError(
            f"{folder}: the run is not finished ({', '.join(missing)}); first: "
            f"supernet {steps[-1]} from={folder}"
        )
    conditions = different(setup, state)
    if not same:  # a later version may have settings that there were not
        conditions.append(Condition("settings", "of another version", "of this version", True))
    return Recorded(state, steps, conditions)


def unfinished(work: Work, steps: list[str]) -> list[str]:
    """The names of the jobs that these steps need and that are not finished."""
    done, setup, step = work.state.stages, work.setup, steps[0]
    searched = step != "latency" and (setup.given is None or setup.init == "inherit")
    needed = [job.name for job in searches(setup)] if searched and not setup.grows else []
    if step in ("derive", "retrain", "run"):
        needed.append("derive")
    if step in ("retrain", "run"):
        jobs = [*rival_trainings(work), *random_trainings(work)]
        needed += [f"retrain/{index}" for index in range(work.config.retrain.seeds)]
        needed += [job.name for job in jobs]
    return [name for name in [*needed, *steps[1:]] if name not in done]


def require_own(folder: Path) -> None:
    """Raises a UserError if ``folder`` holds results that are not those of a reproduction."""
    if State.read(folder).reproduction is None and computed(folder):
        raise UserError(
            f"hydra.run.dir={folder}: holds another run; choose a new folder, or leave it out"
        )


def again(run: Run, original: Recorded, perform: Callable[[str], None]) -> dict[str, Any]:
    """Repeats the ``original`` in the folder of ``run``, and compares them. ``perform`` does a
    step. What it returns is also recorded.

    Raises:
        UserError: a job failed, or a file is damaged.
        Stopped: the run was asked to stop.
    """
    state = run.state
    state.reproduction = about(original)
    state.write()
    for step in original.steps:
        perform(step)
    state.reproduction |= compared(original.state, state)
    state.write()
    run.report()
    return state.reproduction


def rejudge(setup: Setup, folder: Path, found: dict[str, Any]) -> None:
    """Replaces what a reproduction in ``folder`` has found."""
    state = State.read(folder)
    state.reproduction = found
    state.write()
    report(setup, folder)


def begin(original: Recorded, folder: Path) -> None:
    """Marks ``folder`` as that of a searcher whose simulation is repeated.

    Raises:
        UserError: it holds something else.
    """
    folder.mkdir(exist_ok=True)
    require_own(folder)
    state = State.read(folder)
    state.reproduction = about(original)
    state.write()


def end(original: Recorded, folder: Path) -> dict[str, Any]:
    """Compares the simulation in ``folder`` with the ``original``, and records what it finds."""
    state = State.read(folder)
    state.reproduction = about(original) | compared(original.state, state)
    state.write()
    return state.reproduction


def about(original: Recorded) -> dict[str, Any]:
    """What is repeated, and what was known before."""
    return {
        "of": str(original.state.folder),
        "expected": original.expected,
        "conditions": [asdict(one) for one in original.conditions],
    }
