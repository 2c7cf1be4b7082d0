"""All settings, as typed dataclasses. The YAML files in ``conf/`` give their values.

A *part* is an object that is chosen by name: a space, sampler, learner, modifier, guard,
instrument, searcher, tracker, data source, or a phase of a schedule. A *node* is a mapping that
describes a part. Its key ``_target_`` is the dotted name of a dataclass, and its other keys are the
settings of that class. :func:`build` checks the settings and makes the part. A setting may itself
be a node, or a list or mapping that contains nodes.
"""

import dataclasses
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, cast

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from supernet.bounds import (
    MOST,
    BatchSize,
    Bounded,
    Bounds,
    CountOrZero,
    Images,
    NotNegative,
    Part,
    Pixels,
    Seed,
)
from supernet.cost.memory import require_mode
from supernet.cost.settings import BudgetSettings
from supernet.errors import UserError, require, require_different, unknown
from supernet.evaluate.settings import RankSettings
from supernet.files import JSON_PATH, PATH, absolute
from supernet.train.settings import (
    GrowthSettings,
    MeasureSettings,
    RetrainSettings,
    SearchSettings,
    ShortlistSettings,
)

REFERENCE = re.compile(r"(\\*)\$\{")  # of OmegaConf, and the backslashes before it

# Groups of which several options can be chosen at once.
SEVERAL = ("modifier", "guard", "instrument")

Named = tuple[str, Any]  # the full name of a setting, and its value


@dataclass
class DataSettings(Bounded):
    """A data set and how it is used. Both augmentations are nodes of ``supernet.data.Augment``."""

    where = "data"

    name: str = MISSING
    source: Any = MISSING
    augment: Any = MISSING  # for retraining
    search_augment: Any = MISSING  # for the search
    # what is learnt, if it is not the classes: a node of a supernet.task.Task; its loss and metric
    task: Any = None
    # the share of the training images on which the logits learn and architectures are judged; the
    # weights learn on the other images
    architecture_share: Part = 0.5
    train_limit: Images | None = None  # how many training images are used; None: all
    # images are averaged down until their shorter side has this many pixels; None: not at all
    image_size: Pixels | None = None


@dataclass
class JudgeSettings(Bounded):
    """How architectures are judged with the supernet's weights."""

    where = "judge"

    batch_size: BatchSize = 256
    # the number of batches of the weight split on which BatchNorm is recalibrated; 0: BatchNorm
    # keeps the statistics of training
    recalibration_batches: Annotated[int, Bounds(least=0, most=10_000)] = 4
    # the cost in the Pareto front of accuracy and cost: params, madds, or latency_ms (needs a
    # latency table)
    cost: str = "params"
    # what the searcher maximises: the "accuracy", minus the "loss", or a "vote" of minus the loss
    # and of two scores of networks that are not trained (supernet/runs/value.py)
    by: str = "accuracy"
    # the random architectures that give a vote its scale
    reference: Annotated[int, Bounds(least=4, most=MOST)] = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.by not in ("accuracy", "loss", "vote"):
            raise UserError(f"judge.by={self.by!r}: choose accuracy, loss or vote")


@dataclass
class BaselineSettings(Bounded):
    """What the derived architecture is compared with.

    ``architectures`` random ones are trained by the same recipe, with one seed each. ``rivals``
    (:mod:`supernet.cost.rivals`) are trained as the derived one is, with the same seeds.
    """

    where = "baseline"

    architectures: CountOrZero = 3
    rivals: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_different("baseline.rivals", self.rivals)


@dataclass
class CheckpointSettings(Bounded):
    """How often a training writes a checkpoint."""

    where = "checkpoint"

    every_seconds: NotNegative = 60.0


@dataclass
class StudySettings(Bounded):
    """What ``supernet study`` compares: every method with every seed on every space and data set,
    or searchers on a table.

    Without ``spaces`` or ``data`` it is the chosen one. Unless ``rivals`` is off, random search
    from scratch at equal cost, plain and with early stopping, and a network made by hand are
    compared as well (:mod:`supernet.study.cells`). With ``shares`` each method also searches for
    these shares of its epochs, which shows what it finds in less time. ``ablate`` names tricks of
    the recipe (:mod:`supernet.tricks`): what each method found is also trained without each
    of them.

    ``published`` is an npz file of published accuracies. It holds the architectures as ``arch``, in
    the notation of the space, and accuracies in percent in the column ``target``. With this file no
    network is retrained: the accuracy of each derived architecture is read from the table. The
    comparison is then with a random search, which draws ``draws`` architectures and takes the one
    that is best in the column ``ranked_by``. Under a budget, only what is within it counts.

    ``table`` is such a file on which ``searchers`` are simulated (:mod:`supernet.simulation`), with
    ``simulations`` seeds and ``draws`` evaluations each. Nothing is trained.
    """

    where = "study"

    methods: list[str] = field(default_factory=lambda: ["darts", "spos"])
    seeds: list[Seed] = field(default_factory=lambda: [0, 1, 2])
    spaces: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    rivals: bool = True
    shares: list[Part] = field(default_factory=list)
    ablate: list[str] = field(default_factory=list)
    published: str | None = field(default=None, metadata=PATH)
    target: str = "test_200"
    ranked_by: str = "test_12"
    draws: Annotated[int, Bounds(least=1, most=10_000)] = 100
    table: str | None = field(default=None, metadata=PATH)
    searchers: list[str] = field(
        default_factory=lambda: [
            *("random", "evolution", "local_search", "successive_halving", "reinforce", "tpe"),
        ]
    )
    simulations: Annotated[int, Bounds(least=2, most=10_000)] = 200
    # the column that says what an evaluation costs; None: each costs 1
    cost: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("methods", "seeds", "spaces", "data", "shares", "ablate", "searchers"):
            require_different(f"study.{name}", getattr(self, name))


# The setting of a study that names its table -> all settings that decide what is read from it.
TRUTHS = {
    "table": ("table", "target", "ranked_by", "draws", "simulations", "cost"),
    "published": ("published", "target", "ranked_by", "draws"),
}


def truth(study: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings of a ``study`` that say where its accuracies come from; none if they
    come from trainings.
    """
    kind = next((name for name in TRUTHS if study[name] is not None), None)
    return {} if kind is None else {name: study[name] for name in TRUTHS[kind]}


@dataclass
class ChecklistSettings:
    """What no folder can know of an experiment, said by whoever did it, for the checklist
    (:mod:`supernet.checklist`).
    """

    code: str | None = None  # where the code can be had, if it is not a commit of supernet
    tuning: str | None = None  # which hyperparameters were tuned, how, and what that took


@dataclass
class Config(Bounded):
    """The settings of a whole run."""

    name: str = MISSING
    seed: Seed = 0
    device: str = "auto"
    precision: str = "float32"  # or bf16: autocast of the forward passes
    # What happens if the search does not fit into memory. ignore: nothing, and nothing is tried;
    # check: the command `supernet check` says so; refuse: a run does not start; fit: a run
    # recomputes activations or takes a smaller batch
    memory: str = "ignore"
    threads: int | None = None  # of the CPU, for each job; None: torch decides
    jobs: Any = "auto"  # how many jobs run at once; auto: as many as there are cores for
    # an architecture in the notation of the space, or the path of an architecture.json; with it
    # the run skips search and derivation
    architecture: str | None = field(default=None, metadata=JSON_PATH)
    # architectures that compute the same function (Space.canonical) count as one: the searcher
    # judges one of them, and random ones differ in what they compute
    distinct: bool = False
    method: str = MISSING
    data: DataSettings = field(default_factory=DataSettings)
    space: Any = MISSING
    sampler: Any = MISSING
    learner: Any = MISSING
    # name -> node, in the order in which the modifiers are applied
    modifier: dict[str, Any] = field(default_factory=dict)
    guard: dict[str, Any] = field(default_factory=dict)  # name -> node
    instrument: dict[str, Any] = field(default_factory=dict)  # name -> node
    measure: MeasureSettings = field(default_factory=MeasureSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    growth: GrowthSettings = field(default_factory=GrowthSettings)
    searcher: Any = MISSING
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    shortlist: ShortlistSettings = field(default_factory=ShortlistSettings)
    retrain: RetrainSettings = field(default_factory=RetrainSettings)
    baseline: BaselineSettings = field(default_factory=BaselineSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    study: StudySettings = field(default_factory=StudySettings)
    rank: RankSettings = field(default_factory=RankSettings)
    checklist: ChecklistSettings = field(default_factory=ChecklistSettings)
    tracker: Any = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.strip():
            raise UserError("name: is empty; give the run a name, or leave it out")
        if self.name in (".", "..") or any(letter in self.name for letter in "/\\\0"):
            raise UserError(f"name={self.name}: must be the name of a folder, without / or \\")
        require_mode(self.memory)
        self.budget.require_cost("judge.cost", self.judge.cost)
        if self.threads is not None:
            require("threads", self.threads, least=1)
        require_jobs(self.jobs)
        if self.precision not in ("float32", "bf16"):
            raise UserError(f"precision: {unknown(self.precision, ['float32', 'bf16'])}")


def require_jobs(value: Any) -> None:
    """Raises a UserError unless ``value``, the setting ``jobs``, is "auto" or a whole number of at
    least 1.
    """
    if value == "auto":
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"jobs={value}: must be auto or a whole number")
    require("jobs", value, least=1)


def typed(kind: type, settings: Any, where: str) -> Any:
    """Makes an instance of the dataclass ``kind`` from plain ``settings``, nested dataclasses
    included. The type of every value is checked.

    Raises:
        UserError: a key is unknown or missing, or its value has the wrong type. The message names
            it as ``where.key``.
    """
    with naming(where):
        return OmegaConf.to_object(checked(kind, escaped(settings), where))


def escaped(value: Any) -> Any:
    """The value, with ``${`` in its texts written so that OmegaConf reads no reference there.

    All references are resolved before settings come here. What is left is a part of a text, such as
    the name of a folder.
    """
    if isinstance(value, str):
        return REFERENCE.sub(lambda found: 2 * found[1] + "\\${", value)
    if isinstance(value, Mapping):
        return {key: escaped(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [escaped(one) for one in value]
    return value


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Turns an error of OmegaConf into a UserError that gives the full name of the setting.

    ``where`` is the full name of the settings that the block works with.
    """
    try:
        yield
    except OmegaConfBaseException as error:
        raise UserError(f"{below(where, error.full_key)}: {str(error).splitlines()[0]}") from error


def checked(kind: type, settings: Any, where: str) -> DictConfig:
    """The ``settings``, with the types and the defaults of the dataclass ``kind``. No instance of
    ``kind`` is made yet.

    Raises:
        UserError: a key is unknown, or its value has the wrong type.
    """
    check_keys(kind, settings, where)
    with naming(where):
        merged = OmegaConf.merge(OmegaConf.structured(kind), settings)
    assert isinstance(merged, DictConfig)
    return merged


def check_keys(kind: type, settings: Any, where: str) -> None:
    """Raises a UserError if ``settings`` has a key for which the dataclass ``kind`` has no field.

    Nested settings are checked as well.
    """
    fields = {f.name: f.type for f in dataclasses.fields(kind)}
    if not isinstance(settings, Mapping):
        raise UserError(f"{where}={settings}: expected settings of its own ({', '.join(fields)})")
    for key, value in settings.items():
        if key not in fields:
            raise UserError(f"{below(where, key)}: {unknown(str(key), list(fields))}")
        inner = fields[key]
        if inner is bool and isinstance(value, int | float) and not isinstance(value, bool):
            require_switch(below(where, key), str(value))
        if isinstance(inner, type) and dataclasses.is_dataclass(inner) and value != MISSING:
            check_keys(inner, value, below(where, key))


def require_switch(key: str, text: str) -> None:
    """Raises a UserError unless ``text`` says true or false. For OmegaConf, every number does."""
    if text.lower() not in ("true", "false", "yes", "no", "on", "off", "y", "n", "1", "0"):
        raise UserError(f"{key}={text}: must be true or false")


def below(where: str, key: Any) -> str:
    """The full name of the setting ``key`` of the node ``where``. ``where`` is "" at the top."""
    return f"{where}.{key}" if where else str(key)


def build(node: Any, where: str, kind: type = object) -> Any:
    """Makes the part that ``node`` describes, and the parts that its settings describe.

    ``where`` is the full name of the setting that holds the node, such as ``sampler``. The part
    must be of the class ``kind``.

    Raises:
        UserError: there is no such class, it is of another kind, or a setting is wrong. The message
            names the setting.
    """
    with naming(where):
        return OmegaConf.to_object(settings_of(escaped(node), where, kind))


def settings_of(node: Any, where: str, kind: type = object) -> DictConfig:
    """The settings of a ``node``, typed by the dataclass that its ``_target_`` names. It must be a
    subclass of ``kind``.

    Raises:
        UserError: there is no such class, it is of another kind, or a setting is wrong.
    """
    if not isinstance(node, Mapping):
        raise UserError(
            f"{where}={node}: expected a node with a _target_, as in the files of "
            f"conf/{where.replace('.', '/')}"
        )
    found = class_of(node, where)
    if not issubclass(found, kind):
        raise UserError(
            f"{where}._target_={node['_target_']}: is no {kind.__name__}; give another class, or "
            f"derive yours from {kind.__module__}.{kind.__name__}"
        )
    given = {
        key: with_parts(value, below(where, key))
        for key, value in node.items()
        if key != "_target_"
    }
    return checked(found, given, where)


def class_of(node: Mapping[str, Any], where: str) -> type:
    """The dataclass that the ``_target_`` of a node names.

    Raises:
        UserError: there is no such dataclass.
    """
    module, _, name = str(node.get("_target_", "")).rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
        dataclasses.fields(kind)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(
            f"{where}._target_={node.get('_target_')}: no such dataclass; give the full dotted "
            "name of a class with settings"
        ) from error
    return kind


def with_parts(value: Any, where: str) -> Any:
    """The setting ``value``, with every node in it replaced by its typed settings."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            return settings_of(value, where)
        return {key: with_parts(one, below(where, key)) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [with_parts(one, f"{where}[{index}]") for index, one in enumerate(value)]
    return value


def with_named_phases(sampler: Any, option: Callable[[str], Any]) -> Any:
    """The node ``sampler``, with the names in its ``phases`` replaced by nodes.

    A pair [NAME, share] of ``phases`` becomes [node, share], where ``option(NAME)`` is the node.
    """

    def phase(pair: Any) -> Any:
        by_name = isinstance(pair, list | tuple) and pair and isinstance(pair[0], str)
        return [option(pair[0]), *pair[1:]] if by_name else pair

    if not isinstance(sampler, Mapping) or not isinstance(sampler.get("phases"), list | tuple):
        return sampler
    return {**sampler, "phases": [phase(pair) for pair in sampler["phases"]]}


# --- settings that are paths


def paths(settings: Mapping[str, Any], kind: type = Config, where: str = "") -> Iterator[Named]:
    """Yields the full name and the value of every setting that is a path, or a list of paths.

    A field of a dataclass is one if it has the metadata :data:`supernet.files.PATH`, or the type
    ``Path``. ``settings`` are plain values of the dataclass ``kind``, with nodes for parts. Parts
    in lists are not looked at.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name, value in settings.items():
        full = below(where, name)
        if name in fields and is_path(fields[name], value):
            yield full, value
        elif isinstance(value, Mapping):
            yield from paths_inside(value, fields.get(name), full)


def paths_inside(value: Mapping[str, Any], field: Any, where: str) -> Iterator[Named]:
    """The same for a mapping: a node, nested settings, or a mapping of such."""
    if "_target_" in value:
        yield from paths(value, class_of(value, where), where)
    elif field is not None and dataclasses.is_dataclass(field.type):
        yield from paths(value, cast(type, field.type), where)
    else:
        for name, inner in value.items():
            if isinstance(inner, Mapping):
                yield from paths_inside(inner, None, below(where, name))


def is_path(field: Any, value: Any) -> bool:
    """Whether a field of a dataclass holds a path or a list of paths, and ``value`` is given."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    if not values or not all(isinstance(one, str) and one != MISSING for one in values):
        return False
    if field.type in (Path, Path | None):
        return True
    form = field.metadata.get("path")
    return form is not None and all(re.search(form, one) for one in values)


def with_absolute_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with an absolute path wherever a setting is a path.

    Raises:
        UserError: a path cannot be made absolute, or a node names no class.
    """
    found = dict(settings)
    for name, value in paths(settings):
        if isinstance(value, str):
            found = with_setting(found, name, absolute(value, name))
        else:
            found = with_setting(found, name, [absolute(one, name) for one in value])
    return found


def with_setting(settings: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The settings with another ``value`` for the setting of that full name."""
    head, _, rest = name.partition(".")
    return {**settings, head: with_setting(settings[head], rest, value) if rest else value}
