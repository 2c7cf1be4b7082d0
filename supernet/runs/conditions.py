"""Would a recorded run have the same bits here? Its conditions, compared with those of here.

The *conditions* of a run are what the bits of its results depend on besides its settings: versions,
processor, number of threads, code, data.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from supernet.environment import environment
from supernet.runs.contents import changed
from supernet.runs.folder import State
from supernet.runs.setup import Setup
from supernet.shapes import Results, flat, read

NOT_RECORDED = "not recorded"
NONE = "not set"

# What is recorded for people. The checksum of the code says more than its version and its commit,
# the system more than the name of the platform; the other packages compute no figures.
FOR_PEOPLE = {
    *("supernet", "git_commit", "git_changes", "platform"),
    *("hydra-core", "wandb", "onnx", "onnxruntime"),
}
LISTS = {"processor.features"}  # words, of which those are shown that only one side has


@dataclass(frozen=True)
class Condition:
    """A condition that is not the same here, or that is not recorded. ``decides`` says whether the
    bits may depend on it.
    """

    name: str
    recorded: str
    here: str
    decides: bool

    def __str__(self) -> str:
        return f"{self.name} ({self.recorded}, here {self.here})"


def different(setup: Setup, state: State) -> list[Condition]:
    """The conditions of the run of ``state`` that are different here, or that are not recorded.

    Raises:
        UserError: the data, or the record of the run, cannot be read.
    """
    here = environment(setup.device, setup.config.threads)
    found = [*of_environments(recorded_environments(state), here), *of_contents(setup, state)]
    if setup.device.type != "cpu":
        order = "sums in no fixed order"
        found.append(Condition(f"device={setup.device.type}", order, order, True))
    if setup.config.budget.measures and setup.config.budget.latency_table is None:
        found.append(Condition("latencies", "measured", "measured anew", True))
    return found


def recorded_environments(state: State) -> list[dict[str, Any]]:
    """The environments of a run. A run before they stood in its state has one in its results.

    Raises:
        UserError: the results cannot be read.
    """
    if state.environments:
        return state.environments
    return [read(state.folder / "results.json", Results).get("environment", {})]


def of_environments(recorded: list[dict[str, Any]], here: Mapping[str, Any]) -> Iterator[Condition]:
    """The entries of environments that differ. A run that went on elsewhere has several."""
    now, before = texts(here), [texts(one) for one in recorded]
    for name in dict.fromkeys([*now, *(name for one in before for name in one)]):
        group = name.partition(".")[0]
        values = {
            one.get(name, NONE if group in whole else NOT_RECORDED)
            for one, whole in zip(before, recorded, strict=True)
        }
        ours = now.get(name, NONE)
        if values == {ours}:
            continue
        theirs = sorted(values)
        if name in LISTS and NOT_RECORDED not in values:
            words = [set(text.split()) for text in theirs]
            ours, theirs = (
                only(set(ours.split()), set.intersection(*words)),
                [only(set.union(*words), set(ours.split()))],
            )
        # the commit stands for the code where no checksum of it is recorded
        commit = name == "git_commit" and any("code" not in one for one in recorded)
        decides = name not in FOR_PEOPLE or commit
        yield Condition(name, " and ".join(theirs), ours, decides)


def only(words: set[str], without: set[str]) -> str:
    """The words that the others lack."""
    return f"also {' '.join(sorted(words - without))}" if words - without else "no others"


def of_contents(setup: Setup, state: State) -> Iterator[Condition]:
    """The data set, and the files that settings name, if they hold something else than before."""
    before, now = state.contents or {}, setup.contents
    for name in changed(before, now):
        theirs, ours = (known[name]["content"][:16] for known in (before, now))
        yield Condition(name, theirs, ours, decides=True)


def texts(environment: Mapping[str, Any]) -> dict[str, str]:
    """The entries of an environment: dotted name -> text. A part without entries has none."""
    return {
        name: NONE if value is None else str(value)
        for name, value in flat(environment)
        if not isinstance(value, Mapping)
    }


def expectation(conditions: list[Condition]) -> str:
    """Whether the bits are expected to be the same, in one sentence."""
    deciding = [one for one in conditions if one.decides]
    unknown = ", ".join(one.name for one in deciding if one.recorded == NOT_RECORDED)
    if known := [str(one) for one in deciding if one.recorded != NOT_RECORDED]:
        return f"the bits may differ: {'; '.join(known)}" + (
            f"; not recorded: {unknown}" if unknown else ""
        )
    if unknown:
        return f"the bits may differ: not recorded: {unknown}; nothing that is recorded differs"
    return "the same bits are expected"
