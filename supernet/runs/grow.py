"""The jobs of growth (Petridish, Hu et al., NeurIPS 2019): seeds, candidates beside a parent, and
children.

A child comes from two jobs: :class:`Shortcuts` trains its parent with candidates beside it and
chooses what is added; :class:`Model` trains the child. Parents are chosen in rounds: all that are
chosen in one round grow at the same time, and the next round begins when they have ended. So the
result does not depend on which of them ends first, or on how many processes there are. (In the
paper, workers take parents, parents with candidates, and children from three queues, as soon as
they have nothing to do.)
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from supernet.cost.budget import Budget
from supernet.cost.count import count
from supernet.errors import UserError
from supernet.evaluate.accuracy import evaluate
from supernet.evaluate.hull import lower_hull, parents_of
from supernet.mixture import Architecture
from supernet.randomness import Streams
from supernet.runs.job import Job
from supernet.runs.judging import batches, finite
from supernet.runs.search import METHOD
from supernet.runs.setup import Setup
from supernet.spaces.growing.space import GrowingSpace
from supernet.train.checkpoint import Checkpoints
from supernet.train.retrain import RetrainStage
from supernet.train.search import SearchStage
from supernet.train.settings import RetrainSettings

if TYPE_CHECKING:
    from supernet.runs.work import Work

Perform = Callable[[Sequence[Job]], list[Any]]
DRAWS = 1000  # of shortcuts by chance, until they are others than those of all children before
SMALLER = "search.batch_size or a size under space.search"


@dataclass(frozen=True)
class Model(Job):
    """Trains network ``number``: a seed, or the child that ``comes_of`` a parent."""

    number: int
    text: str
    comes_of: "Shortcuts | None" = None

    smaller = SMALLER

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"model/{self.number}"

    def inputs(self, work: "Work") -> dict[str, Any]:
        return settings_of(work) | {"text": self.text, "comes_of": self.comes_of}

    def needs(self, work: "Work") -> list[Job]:
        growth = work.config.growth
        if self.comes_of is None or not growth.warm_start:
            return []
        return [self.comes_of.parent if growth.by_chance else self.comes_of]

    def compute(self, work: "Work") -> dict[str, Any]:
        setup, space = work.setup, growing(work.setup)
        architecture = space.decode(self.text)
        stage = model_stage(work, self)
        cost = work.train(stage)
        judgement = finite(
            self.name,
            evaluate(stage.trained().eval(), batches(setup, setup.splits.architecture), setup.task),
        )
        before = self.comes_of
        return dataclasses.asdict(cost) | {
            "text": self.text,
            "parent": None if before is None else before.parent.number,
            "steps_of_growth": space.steps_of(architecture),
            **dataclasses.asdict(count(stage.network, setup.task)),
            "error": 1 - judgement.accuracy,
            "loss": judgement.loss,
        }


@dataclass(frozen=True)
class Shortcuts(Job):
    """Chooses what is added to ``parent``, for network ``child``: it trains the candidates beside
    the parent, and keeps the best, or draws some by chance.

    ``others`` are the children of the same parent so far. If the best ones make one of these, the
    weakest that is kept gives way to the next best.
    """

    child: int
    parent: Model
    others: tuple[str, ...] = ()

    smaller = SMALLER

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"shortcuts/{self.child}"

    def inputs(self, work: "Work") -> dict[str, Any]:
        return settings_of(work) | {"parent": self.parent, "others": list(self.others)}

    def needs(self, work: "Work") -> list[Job]:
        return [] if work.config.growth.by_chance else [self.parent]

    def compute(self, work: "Work") -> dict[str, Any]:
        space, parent = growing(work.setup), growing(work.setup).decode(self.parent.text)
        if work.config.growth.by_chance:
            rng = Streams(work.config.seed, self.name).host("shortcuts")
            drawn = (space.encode(space.step_by_chance(parent, rng)) for _ in range(DRAWS))
            text = next((text for text in drawn if text not in self.others), None)
            if text is None:
                raise UserError(f"{self.name}: {self.parent.text} has no further child")
            return {"text": text, "seconds": 0.0}
        stage = shortcuts_stage(work, self)
        if not work.checkpoints.path(self.name).exists():
            stage.supernet.load_state_dict(weights_of(work, self.parent), strict=False)
        cost = work.train(stage)
        space = cast(GrowingSpace, stage.space)
        found = space.child(stage.scores(), self.others)
        omega = {name: table[0].tolist() for name, table in stage.detached_logits.items()}
        options = {group.name: group.options for group in space.groups}
        return dataclasses.asdict(cost) | {
            "text": space.encode(found),
            "omega": {
                place: dict(zip(options[place], row, strict=True)) for place, row in omega.items()
            },
        }


@dataclass(frozen=True)
class Growth(Job):
    """All networks of a growth, and which of them are on the lower convex hull."""

    models: tuple[Model, ...]

    name = "growth"

    def inputs(self, work: "Work") -> dict[str, Any]:
        return {"models": self.models}

    def compute(self, work: "Work") -> dict[str, Any]:
        columns = ("text", "parent", "steps_of_growth", "params", "madds", "error", "loss")
        rows = []
        for model in self.models:
            found, step = work.result(model), model.comes_of
            beside = 0.0 if step is None else work.result(step)["seconds"]
            row = {name: found[name] for name in columns}
            row["added"] = added(work, model)
            rows.append(row | {"train_seconds": found["seconds"], "shortcut_seconds": beside})
        return {"models": rows, "hull": lower_hull([(one["madds"], one["error"]) for one in rows])}


def added(work: "Work", model: Model) -> dict[str, str]:
    """What the last step of growth has added at each place; nothing if the network is a seed."""
    if model.comes_of is None:
        return {}
    space = work.space
    rows, before = (dict(space.decode(m.text).choices) for m in (model, model.comes_of.parent))
    return {place: steps[-1] for place, steps in rows.items() if len(steps) > len(before[place])}


def grow(work: "Work", perform: Perform) -> Growth:
    """Grows networks until there are ``growth.models`` of them, or none can grow."""
    settings, space = work.config.growth, growing(work.setup)
    models = [
        Model(number, space.encode(space.seed(name)))
        for number, name in enumerate(space.seed_names[: settings.models])
    ]
    results, chosen, turn = perform(models), [0] * len(models), 0
    while len(models) < settings.models:
        limit = settings.madds or float("inf")
        able = [
            number
            for number, one in enumerate(results)
            if one["steps_of_growth"] < space.steps and one["madds"] <= limit
        ]
        rng = Streams(work.config.seed, "growth").host(f"parents/{turn}")
        points = [(one["madds"], one["error"]) for one in results]
        wanted = min(settings.parents, settings.models - len(models))
        parents = parents_of(points, chosen, able, wanted, settings.margin, rng)
        if not parents:
            break
        steps = [
            Shortcuts(
                len(models) + index,
                models[parent],
                tuple(m.text for m in models if m.comes_of and m.comes_of.parent == models[parent]),
            )
            for index, parent in enumerate(parents)
        ]
        found = perform(steps)
        children = [
            Model(step.child, one["text"], step) for step, one in zip(steps, found, strict=True)
        ]
        results += perform(children)
        models += children
        chosen = [n + (i in parents) for i, n in enumerate(chosen)] + [0] * len(children)
        turn += 1
    growth = Growth(tuple(models))
    perform([growth])
    return growth


def best_of(work: "Work", growth: Growth) -> dict[str, Any]:
    """The network of least error within the budget.

    Raises:
        UserError: none is within it.
    """
    space, rows = work.space, work.result(growth)["models"]
    within = [one for one in rows if work.budget.allows(space.decode(one["text"]))]
    if not within:
        raise UserError(
            f"budget: none of the {len(rows)} networks that have grown is within the limits; "
            "raise them, or begin with a smaller seed (space.seeds, space.evaluation)"
        )
    best: dict[str, Any] = min(within, key=lambda one: (one["error"], one["madds"]))
    return best


# --- the stages


def growing(setup: Setup) -> GrowingSpace:
    assert isinstance(setup.space, GrowingSpace)
    return setup.space


def settings_of(work: "Work") -> dict[str, Any]:
    """Everything that a training of growth depends on."""
    settings = work.setup.of(*METHOD, "space", "data", "seed", "growth")
    recipe = {k: v for k, v in settings["growth"].items() if k not in ("models", "parents")}
    return settings | {"growth": recipe}


def model_stage(work: "Work", job: Model) -> RetrainStage:
    """The training of a network, on the images that the weights learn from."""
    setup, space, growth = work.setup, growing(work.setup), work.config.growth
    streams, architecture = Streams(work.config.seed, job.name), space.decode(job.text)
    epochs = growth.seed_epochs if job.comes_of is None else growth.epochs
    if job.comes_of is not None and growth.warm_start:
        network = warm_child(work, job.comes_of, architecture)
    else:
        with streams.initialising("network"):
            network = space.standalone(architecture, setup.task, "search")
    if job.comes_of is not None and growth.by_chance:
        epochs += work.config.search.epochs
    names = [f.name for f in dataclasses.fields(RetrainSettings)]
    recipe = {k: v for k, v in vars(work.config.search).items() if k in names}
    settings = RetrainSettings(
        **recipe | {"epochs": epochs, "drop_path": growth.drop_path, "auxiliary_weight": 0.0}
    )
    return RetrainStage(
        job.name,
        network,
        setup.data,
        setup.splits.weights,
        settings,
        augment=setup.search_augment,
        streams=streams,
        device=setup.device,
        precision=work.config.precision,
        key=work.key(job),
    )


def warm_child(work: "Work", step: Shortcuts, architecture: Architecture) -> Any:
    """The child with the weights of its parent, and of the candidates that it keeps."""
    streams = Streams(work.config.seed, step.name)
    with streams.initialising("child"):
        if work.config.growth.by_chance:
            space = growing(work.setup)
            network = space.standalone(architecture, work.setup.task, "search")
            parent = weights_of(work, step.parent)
            known = {name: parent.get(name, own) for name, own in network.state_dict().items()}
            network.load_state_dict(known)
            return network
        stage = shortcuts_stage(work, step)
        saved = work.checkpoints.load(step.name, work.key(step))
        if saved is None:
            raise missing(work, step)
        work.checkpoints.restore(stage, saved)
        return stage.space.inherit(stage.supernet, architecture)


def shortcuts_stage(work: "Work", job: Shortcuts) -> SearchStage:
    """The training of the candidates beside their parent, with fresh weights of both."""
    setup, streams = work.setup, Streams(work.config.seed, job.name)
    space = growing(setup).of_parent(growing(setup).decode(job.parent.text))
    stage = SearchStage(
        space,
        setup.data,
        setup.splits,
        setup.fresh("sampler"),
        setup.fresh("learner"),
        work.config.search,
        augment=setup.search_augment,
        streams=streams,
        device=setup.device,
        precision=work.config.precision,
        budget=Budget(space, setup.task),
        key=work.key(job),
    )
    stage.name = stage.title = job.name
    return stage


def weights_of(work: "Work", job: Model) -> dict[str, Any]:
    """The weights of a network that a finished job has trained."""
    saved = work.checkpoints.load(job.name, work.key(job))
    if saved is None:
        raise missing(work, job)
    checkpoints: Checkpoints = work.checkpoints
    return checkpoints.weights(job.name, saved, "network")


def missing(work: "Work", job: Job) -> UserError:
    return UserError(
        f"{work.checkpoints.path(job.name)} is missing: the weights were there; restore it, or "
        f"start again in another folder"
    )
