"""The shape of every file that a run folder holds, and the one way to read such a file.

A file of the right name can be damaged, edited, or someone else's. So each file has a shape here,
and a reader gets the content only if it has this shape. Everything else is one line that says which
entry of which file is wrong. No reader needs checks of its own.

A shape says what the readers of the file rely on. In a part that can grow (the results of jobs),
further entries are allowed.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal, NotRequired

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    with_config,
)
from typing_extensions import TypedDict

from supernet.errors import UserError
from supernet.files import parsed, read_json

CLOSED = ConfigDict(strict=True, extra="forbid")  # no other entries
OPEN = ConfigDict(strict=True, extra="allow")

Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Amount = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]  # seconds, for example
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Text = Annotated[str, Field(strict=True)]
Name = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9_.\-]+$")]
Interval = Annotated[list[Real], Field(min_length=2, max_length=2)] | None
Edge = Annotated[list[Text], Field(min_length=3, max_length=3)]  # source, target, operation


def inside(path: str) -> str:
    """The path, if it leads to a file inside the folder of the run on every system."""
    for kind in (PurePosixPath(path), PureWindowsPath(path)):
        if not path or kind.is_absolute() or kind.drive or kind.root or ".." in kind.parts:
            raise ValueError("must be a path inside the folder of the run")
    return path


Inside = Annotated[str, Field(strict=True), AfterValidator(inside)]

# --- .hydra

Overrides = list[Text]  # overrides.yaml
Places = Annotated[list[Text], Field(min_length=1)]  # folders.yaml
RecordFile = Literal["config.yaml", "folders.yaml", "overrides.yaml"]
NextRecord = dict[RecordFile, Text | None]  # next.json: name -> what the file will hold


@with_config(OPEN)
class Judging(TypedDict, total=False):
    cost: Text


@with_config(OPEN)
class Settings(TypedDict, total=False):
    """``config.yaml``. The report shows it, and the checklist reads it; nothing is built from
    it.
    """

    judge: Judging
    checklist: dict[Text, Text | None]


# --- what jobs compute


@with_config(OPEN)
class Part(TypedDict):
    seconds: Amount


@with_config(OPEN)
class Size(TypedDict):
    """A setting that makes a run cheaper: its value, and that of the paper or the data."""

    setting: Text
    value: Real | list[Real] | None
    full: Real | list[Real] | None


@with_config(OPEN)
class Fired(TypedDict):
    guard: Text
    epoch: Count
    what: Text


@with_config(OPEN)
class Instrument(TypedDict):
    title: Text
    meaning: Text
    prefixes: list[Text]


@with_config(OPEN)
class SearchKeys(TypedDict):
    start: Text | None
    weights: Text
    method: Text


@with_config(OPEN)
class Searched(TypedDict):
    """One supernet, or all of a search taken together."""

    seconds: Amount
    steps: Count
    peak_memory_bytes: Count
    parts: dict[Text, Part]
    guards: list[Fired]
    instruments: dict[Text, Instrument]
    epochs: Count
    method: Text
    warm_start: "Searched | None"
    fidelity: dict[Text, Size]


class Search(Searched):
    keys: SearchKeys


class Origin(Search):
    """The search of the parent run."""

    key: Text


@with_config(OPEN)
class OnFront(TypedDict):
    """An architecture on the Pareto front. Further entries are further costs."""

    text: Text
    accuracy: Share
    loss: Real
    params: Real
    madds: Real
    latency_ms: NotRequired[Real]


def alike(rows: list[OnFront]) -> list[OnFront]:
    """The rows, if all have the same entries."""
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError("all rows must have the same entries")
    return rows


@with_config(OPEN)
class Found(TypedDict):
    """What the searcher did."""

    searcher: Text
    inherited_accuracy: Share | None
    evaluated: Count
    judgements: Count
    images: Count
    seconds: Amount
    pareto: NotRequired[Annotated[list[OnFront], AfterValidator(alike)]]


@with_config(OPEN)
class Judge(TypedDict):
    best: Annotated[list[Text], Field(min_length=1)]
    found: Found


@with_config(OPEN)
class Candidate(TypedDict):
    text: Text
    epochs: Count
    ended: Annotated[bool, Field(strict=True)]
    held_out_accuracy: Share
    upper_bound: Real | None


class TrainedCandidate(Candidate):
    seconds: Amount
    curve: Annotated[list[Share], Field(min_length=1)]


@with_config(OPEN)
class Architecture(TypedDict):
    """``architecture.json``."""

    space: Text
    choices: dict[Text, list[Text]]
    text: Text
    graph: NotRequired[dict[Text, list[Edge]]]


@with_config(OPEN)
class Costs(TypedDict):
    params: Count
    madds: Count
    latency_ms: NotRequired[Real]


@with_config(OPEN)
class Shortlist(TypedDict):
    best: Text
    seconds: Amount
    candidates: list[Candidate]


@with_config(OPEN)
class Derived(TypedDict):
    architecture: Architecture
    cost: Costs
    derive: Found
    shortlist: NotRequired[Shortlist]


@with_config(OPEN)
class WarmStart(TypedDict):
    weights: Count
    of: Count


class Trained(Costs):
    seconds: Amount
    steps: Count
    peak_memory_bytes: Count
    accuracy: Share
    loss: Real
    text: Text
    fidelity: NotRequired[dict[Text, Size]]
    warm_start: NotRequired[WarmStart]


@with_config(OPEN)
class MeasuredLatency(TypedDict):
    rank_correlation: Real | None
    mean_relative_error: Real
    architectures: Count
    seconds: Amount


@with_config(OPEN)
class GivenLatency(TypedDict):
    table: Text
    seconds: Amount


@with_config(OPEN)
class Exported(TypedDict):
    folder: Inside


@with_config(OPEN)
class Correlation(TypedDict):
    architectures: Count
    tau: Real | None
    tau_ci95: Interval
    rho: Real | None
    rho_ci95: Interval


@with_config(OPEN)
class OfPairs(TypedDict):
    pairs: Count
    tau: Real | None
    tau_ci95: Interval


@with_config(OPEN)
class Group(TypedDict):
    all: Correlation
    best_tenth: Correlation
    equal_params: NotRequired[OfPairs]


@with_config(OPEN)
class RankedSupernet(TypedDict):
    name: Text
    folder: Text
    seconds: Amount


@with_config(OPEN)
class Ranked(TypedDict):
    architectures: Count
    supernets: list[RankedSupernet]
    against: dict[Text, Annotated[dict[Text, Group], Field(min_length=1)]]
    points: list[dict[Text, Text | Real | None]]
    seconds: Amount


@with_config(OPEN)
class Grown(Costs):
    """A network that has grown: the number of its ``parent``, and what was added at each place."""

    text: Text
    parent: Count | None
    steps_of_growth: Count
    error: Share
    loss: Real


class GrownModel(Grown):
    seconds: Amount
    steps: Count
    peak_memory_bytes: Count


@with_config(OPEN)
class Shortcuts(TypedDict):
    text: Text
    seconds: Amount
    omega: NotRequired[dict[Text, dict[Text, Real]]]


class GrownRow(Grown):
    added: dict[Text, Text]
    train_seconds: Amount
    shortcut_seconds: Amount


@with_config(OPEN)
class Growth(TypedDict):
    models: Annotated[list[GrownRow], Field(min_length=1)]
    hull: list[Count]


@with_config(OPEN)
class Processor(TypedDict):
    name: Text


@with_config(OPEN)
class Environment(TypedDict, total=False):
    """The versions and the hardware of a process."""

    processor: Processor
    git_commit: Text | None
    git_changes: bool | None


@with_config(CLOSED)
class Simulated(TypedDict):
    """The searches of one searcher on a table."""

    curves: Annotated[list[list[Share | None]], Field(min_length=1)]
    costs: list[list[Real]]
    spent: list[Amount]


# --- state.json

RIVALS = ("largest", "whole", "uniform", "hand_made")  # those of supernet/cost/rivals.py
RESULTS: dict[str, Any] = {  # the kind of a job (``retrain`` of ``retrain/0``) -> its result
    "latency": GivenLatency | MeasuredLatency,
    "search/": Search,
    "judge": Judge,
    "model/": GrownModel,
    "shortcuts/": Shortcuts,
    "growth": Growth,
    "candidate/": TrainedCandidate,
    "derive": Derived,
    "retrain/": Trained,
    "random/": Trained,
    **{f"{rival}/": Trained for rival in RIVALS},
    "rank/": Trained,
    "rank": Ranked,
    "export": Exported,
    "simulation": Simulated,
}


@with_config(CLOSED)
class EqualCost(TypedDict):
    """How many architectures a rival at equal cost tries, and by the seconds of which runs."""

    candidates: Count
    of: list[Text]


Candidates = dict[Text, EqualCost]  # candidates.json of a study: rival -> what it may try


@with_config(CLOSED)
class Stage(TypedDict):
    key: Text
    result: dict[str, Any]


@with_config(OPEN)
class Memory(TypedDict):
    key: Text
    asked: Count
    batch_size: Count
    recompute: Annotated[bool, Field(strict=True)]


def with_results(stages: dict[str, Stage]) -> dict[str, Stage]:
    """The stages, if the result of each has the shape of its kind."""
    for name, stage in stages.items():
        kind, slash, number = name.partition("/")
        if kind + slash not in RESULTS or (slash and not number.isdecimal()):
            raise ValueError(f"{name!r} is not a job of this version")
        try:
            adapter(RESULTS[kind + slash]).validate_python(stage["result"])
        except ValidationError as error:
            raise ValueError(f"{name}: {first_of(error)}") from error
    return stages


@with_config(CLOSED)
class Content(TypedDict):
    setting: Any  # the value of the setting
    content: Text  # a checksum of what it names
    classes: NotRequired[list[Text]]


def with_source(contents: dict[str, Content]) -> dict[str, Content]:
    """The contents, if the data set and its classes are among them."""
    if "classes" not in contents.get("data.source", {}):
        raise ValueError("data.source and its classes must be there")
    return contents


@with_config(OPEN)
class Reproduction(TypedDict):
    """What ``supernet reproduce`` found: before the run (``expected``), and when it has ended."""

    of: Text
    expected: Text
    verdict: NotRequired[Text]
    said: NotRequired[Text]


@with_config(CLOSED)
class RunState(TypedDict):
    schema: Count
    stages: NotRequired[Annotated[dict[Text, Stage], AfterValidator(with_results)]]
    plan: NotRequired[Text | None]
    parent: NotRequired[Text | None]
    origin: NotRequired[Origin | None]
    warm_start: NotRequired[list[Text] | None]
    memory: NotRequired[Memory | None]
    contents: NotRequired[Annotated[dict[Text, Content], AfterValidator(with_source)] | None]
    environments: NotRequired[list[dict[Text, Any]]]
    reproduction: NotRequired[Reproduction | None]


@with_config(OPEN)
class Results(TypedDict):
    """``results.json``, as far as anything is computed from it."""

    environment: NotRequired[dict[Text, Any]]


# --- results.json, as the checklist reads it


@with_config(OPEN)
class Timed(TypedDict, total=False):
    seconds: Amount


class TimedSearch(Timed, total=False):
    epochs: Count
    instruments: dict[Text, Any]


class TimedGrowth(Timed, total=False):
    models: list[Any]


class TimedDerive(Timed, total=False):
    judgements: Count


class Trainings(Timed, total=False):
    accuracy: list[Share]
    ci95: Interval
    epochs: Count
    init: Text


@with_config(OPEN)
class Difference(TypedDict):
    mean: Real
    ci95: Interval


@with_config(OPEN)
class Ranking(TypedDict):
    architectures: Count
    against: dict[Text, Any]


@with_config(OPEN)
class RunResults(TypedDict, total=False):
    seed: Count
    space: Text
    method: Text
    data: Text
    contents: dict[Text, Text]
    search: TimedSearch
    growth: TimedGrowth
    derive: TimedDerive
    retrain: Trainings
    random_baseline: Trainings
    rivals: dict[Text, Trainings]
    found_minus_random: Difference
    rank: Ranking
    environment: Environment
    environments_before: list[Environment]
    total_seconds: Amount


class RunOfStudy(RunResults):
    folder: Inside
    entry: NotRequired[Text]
    rival: NotRequired[bool]
    base: NotRequired[Text | None]


@with_config(OPEN)
class StudyRow(TypedDict):
    method: Text


@with_config(OPEN)
class Evaluations(TypedDict):
    """How many evaluations the searches of a searcher have spent."""

    least: Amount
    most: Amount


@with_config(OPEN)
class FromRandom(TypedDict):
    difference: Real
    ci95: Interval
    after: Annotated[Count, Field(ge=1)]


@with_config(OPEN)
class SimulationRow(TypedDict):
    searcher: Text
    curve: NotRequired[list[Real | None]]
    cost: NotRequired[Real]
    evaluations: NotRequired[Evaluations]
    minus_random: NotRequired[FromRandom | None]


class FolderResults(RunResults, total=False):
    """``results.json`` of a run, of a study, or of a simulation."""

    study: list[StudyRow]
    runs: list[RunOfStudy]
    found: list[Any]
    simulation: list[SimulationRow]
    simulations: Count
    table: Text
    content: Text


# --- results.json of a simulation, as its page shows it


@with_config(OPEN)
class Band(TypedDict):
    after: Annotated[list[Annotated[Count, Field(ge=1)]], Field(min_length=1)]
    low: list[Real]
    high: list[Real]


@with_config(OPEN)
class SearcherResults(TypedDict):
    searcher: Text
    regret: Real
    ci95: Interval
    minus_random: FromRandom | None
    optimum_found: Share
    cost: Real
    evaluations: Evaluations
    curve: Annotated[list[Real | None], Field(min_length=1)]
    cost_curve: list[Real]
    curve_ci95: Band | None


def drawable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, if the two curves of a searcher are as long, and its band lies along them."""
    for row in rows:
        curve, band = row["curve"], row["curve_ci95"]
        if len(row["cost_curve"]) != len(curve):
            raise ValueError("cost_curve must be as long as curve")
        begins = next((place for place, one in enumerate(curve) if one is not None), len(curve))
        if None in curve[begins:] or begins == len(curve):
            raise ValueError("curve must end with figures")
        if band is None:
            continue
        places = len(band["after"])
        along = begins < min(band["after"]) and max(band["after"]) <= len(curve)
        if {len(band["low"]), len(band["high"])} != {places} or not along:
            raise ValueError("curve_ci95 must lie along the curve")
    return rows


@with_config(OPEN)
class SimulationResults(TypedDict):
    simulation: Annotated[list[SearcherResults], AfterValidator(drawable)]
    simulations: Count
    table: Text
    target: Text
    ranked_by: Text
    cost: Text | None
    optimum: Share


# --- rows, judgements, the tracker, checkpoints


def is_row(row: Any) -> Any:
    """The row, if its stage is text, its step a number of steps, and the rest figures."""
    if not isinstance(row, dict):
        raise ValueError("must be a row, as {...}")
    if not isinstance(row.get("stage"), str):
        raise ValueError("stage must be text")
    step = row.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < 2**63:
        raise ValueError("step must be a whole number of at least 0")
    for name, value in row.items():
        if name != "stage" and isinstance(value, str | bool):
            raise ValueError(f"{name} must be a number")
        if name.startswith("logits/"):
            parts = name.split("/", 3)
            if len(parts) != 4 or not parts[2].isdecimal():
                raise ValueError(f"{name} must be logits/GROUP/SLOT/OPTION")
    return row


Row = Annotated[dict[Text, Text | Real | None], BeforeValidator(is_row)]


@with_config(CLOSED)
class Judgement(TypedDict):
    accuracy: Share
    loss: Real
    images: Count
    value: Share | None


@with_config(OPEN)
class JudgedOne(TypedDict):
    space: Text
    choices: dict[Text, list[Text]]
    share: Share
    judgement: Judgement


@with_config(CLOSED)
class Judged(TypedDict):
    seconds: Amount
    judged: list[JudgedOne]


@with_config(CLOSED)
class Artifact(TypedDict):
    kind: Name
    paths: list[Inside]


@with_config(CLOSED)
class TextTable(TypedDict):
    """A table that a tracker was given."""

    columns: list[Text]
    rows: list[list[Text]]


@with_config(CLOSED)
class WandBJob(TypedDict):
    """``wandb/job.json``."""

    id: Annotated[str, Field(strict=True, pattern=r"^[0-9a-z]+$")]
    artifacts: NotRequired[dict[Name, Artifact]]
    summary: NotRequired[dict[Text, Any]]
    tables: NotRequired[dict[Text, TextTable]]


def is_number(value: Any) -> Any:
    """The value, if it is one number: a plain one, or a tensor with one element."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain and (not hasattr(value, "numel") or value.numel() != 1):
        raise ValueError("must be one number")
    return value


def counted(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint, if each sum has a count."""
    if content["sums"].keys() != content["counts"].keys():
        raise ValueError("sums and counts must have the same names")
    return content


@with_config(OPEN)
class CheckpointContent(TypedDict):
    """A checkpoint, as :func:`supernet.train.loop.run_stage` writes it."""

    version: Count
    stage: Text
    key: Text
    step: Count
    sums: dict[Text, Annotated[Any, AfterValidator(is_number)]]
    counts: dict[Text, Annotated[int, Field(strict=True, ge=1)]]
    seconds: Amount
    peak_memory_bytes: Count
    parts: dict[Text, Amount]
    state: dict[Text, Any]
    tracker: dict[Text, Any]


Checkpoint = Annotated[CheckpointContent, AfterValidator(counted)]


@with_config(OPEN)
class LogPlace(TypedDict):
    """How far a file of rows was written when a checkpoint was."""

    bytes: Count


# --- exports


class Bundle(TypedDict):
    """``bundle.json``."""

    schema: Count
    files: dict[Inside, Text]
    no_network_py: NotRequired[Text]  # the reason, if there is no network.py


@with_config(OPEN)
class ExportedArchitecture(TypedDict):
    """What ``export/architecture.json`` says of the inputs that the network expects: images
    (channels, height, width) or a text (length).
    """

    input_shape: Annotated[list[Count], Field(min_length=1, max_length=3)]
    classes: Count
    mean: list[Real]
    std: list[Real]


# --- reading


@cache
def adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def first_of(error: ValidationError) -> str:
    """The first thing that is wrong: where, and what."""
    first = error.errors(include_url=False, include_input=False)[0]
    where, said = ".".join(str(part) for part in first["loc"]), first["msg"]
    said = said.removeprefix("Value error, ")
    return f"{where}: {said}" if where else said


def checked(value: Any, shape: Any, where: Any, advice: str = "restore it or remove it") -> Any:
    """The value, unchanged, if it has the ``shape``.

    Raises:
        UserError: it does not. ``where`` says where the value is from.
    """
    try:
        adapter(shape).validate_python(value, strict=True)
    except (ValidationError, RecursionError) as error:
        said = first_of(error) if isinstance(error, ValidationError) else "it is nested too deeply"
        raise UserError(f"{where} is damaged ({' '.join(said.split())}); {advice}") from error
    return value


def read(path: Path, shape: Any) -> Any:
    """The content of a JSON or YAML file, if it has the ``shape``.

    Raises:
        UserError: there is no such file, or it cannot be parsed, or its content has another shape.
    """
    is_yaml = path.suffix == ".yaml"
    value = parsed(path, from_yaml, "YAML") if is_yaml else read_json(path)
    return checked(value, shape, path)


class Plain(yaml.SafeLoader):  # type: ignore[misc]
    """Reads plain values only: no tags that make objects, and no aliases, with which a file of some
    lines can stand for gigabytes or contain itself.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)


def from_yaml(text: str) -> Any:
    """The value that a YAML text stands for.

    Raises:
        ValueError: it is not YAML, or has tags or aliases.
    """
    try:
        return yaml.load(text, Plain)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of nested settings as (dotted name, value)."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix, value
