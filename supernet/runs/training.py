"""The job that trains and tests a network of one architecture."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from supernet.cost.count import count
from supernet.cost.rivals import rival, within
from supernet.errors import UserError
from supernet.mixture import Architecture
from supernet.randomness import Streams
from supernet.runs.fidelity import fidelity
from supernet.runs.folder import State
from supernet.runs.job import Job
from supernet.runs.judging import tested
from supernet.runs.search import Search, searches, trained_supernet
from supernet.runs.setup import Setup
from supernet.spaces.space import Form
from supernet.train.checkpoint import Checkpoints
from supernet.train.retrain import RetrainStage
from supernet.train.settings import RetrainSettings

if TYPE_CHECKING:
    from supernet.runs.work import Work


# So many trainings of a run have seeds of their own. Number 999 is that of the candidates, so that
# no retraining has it and none is favoured.
NUMBERED = 999


@dataclass(frozen=True)
class Train(Job):
    """Trains ``architecture``, as number ``index`` of its ``kind``, and tests it once.

    Its random numbers depend only on the run's seed and on ``index``. Therefore a derived
    architecture and a random one with the same index get the same numbers. ``init`` says where the
    weights start: "scratch", "inherit" (the weights of the supernet), or "warm" (the weights of
    another run).
    """

    kind: str  # retrain, random, rank, or the name of a rival
    index: int
    architecture: Architecture
    init: str = "scratch"

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.kind}/{self.index}"

    smaller = "retrain.batch_size or a size under space.evaluation"

    def needs(self, work: "Work") -> list[Search]:
        return searches(work.setup)[-1:] if self.init == "inherit" else []

    def inputs(self, work: "Work") -> dict[str, Any]:
        start = {"inherit": searches(work.setup), "warm": work.state.warm_start}.get(self.init)
        settings = training_settings(work.setup)
        return settings | {"architecture": self.architecture.to_dict(), "start": start}

    def compute(self, work: "Work") -> dict[str, Any]:
        stage, about = stage_of(work, self), {"fidelity": fidelity(work.setup, "retrain")}
        if self.init == "warm":
            start = warm_start(work, self.index)
            about["warm_start"] = took_over(work, start, stage, self.architecture)
        with work.rows(self.name) as rows:
            cost = work.train(stage, rows)
            network = stage.trained()
            judgement = tested(work.setup, network, self.name)  # the one time for this network
            found = {"test_accuracy": judgement.accuracy, "test_loss": judgement.loss}
            rows.log(self.name, stage.steps, found)
        return {
            **dataclasses.asdict(cost),
            "accuracy": judgement.accuracy,
            "loss": judgement.loss,
            "text": work.space.encode(self.architecture),
            **dataclasses.asdict(count(network, work.setup.task)),
            **{name: table.of(self.architecture) for name, table in work.budget.measured.items()},
            **about,
        }


def training_settings(setup: Setup) -> dict[str, Any]:
    """Everything that decides how an architecture is trained from scratch."""
    settings = setup.of("space", "data", "retrain", "seed", "precision")
    recipe = {
        k: v for k, v in settings["retrain"].items() if k not in ("seeds", "init", "warm_start")
    }
    return settings | {"retrain": recipe}


def retrainings(work: "Work", architecture: Architecture) -> list[Train]:
    """The jobs that train the derived architecture, one for each seed."""
    init, seeds = work.setup.init, range(work.config.retrain.seeds)
    return [Train("retrain", index, architecture, init) for index in seeds]


def random_trainings(work: "Work") -> list[Train]:
    """The jobs that train random architectures within the budget, for comparison."""
    rng = Streams(work.config.seed).host("random_architectures")
    wanted = work.config.baseline.architectures
    if work.config.distinct:
        drawn = work.different(rng, wanted)
    else:
        drawn = [work.budget.random(rng) for _ in range(wanted)]
    return [Train("random", index, architecture) for index, architecture in enumerate(drawn)]


def rival_trainings(work: "Work") -> list[Train]:
    """The jobs that train the rivals (:mod:`supernet.cost.rivals`), as the derived architecture
    is trained, with the same seeds.
    """
    return [
        Train(name, index, rival(name, work.budget), work.setup.init)
        for name in within(work.config.baseline.rivals, work.budget)
        for index in range(work.config.retrain.seeds)
    ]


# --- the stages


def fresh_network(
    setup: Setup, architecture: Architecture, streams: Streams, form: Form = "evaluation"
) -> nn.Module:
    """A plain network of the architecture, with initial weights from ``streams``."""
    with streams.initialising("network"):
        return setup.space.standalone(architecture, setup.task, form)


def training_streams(seed: int, index: int) -> Streams:
    """The random numbers of training number ``index`` of a run with ``seed``. No other training has
    the same, neither of this run nor of one with another seed.

    The first trainings have seeds of their own, as always. From :data:`NUMBERED` on, such a number
    would be that of the candidates, or of the run with the next seed.
    """
    if index < NUMBERED:
        return Streams(seed * 1000 + index)
    return Streams(seed, f"training/{index}")


def stage_of(work: "Work", job: Train) -> RetrainStage:
    """The fresh stage that trains the network of a job, with the weights that it starts from."""
    setup, streams = work.setup, training_streams(work.config.seed, job.index)
    if job.init == "inherit":
        network = setup.space.inherit(trained_supernet(work).trained, job.architecture)
    else:
        network = fresh_network(setup, job.architecture, streams)
    if job.init == "warm":
        start = warm_start(work, job.index)
        shared = setup.space.taken_over(start["weights"], start["of"], network, job.architecture)
        network.load_state_dict(shared, strict=False)
    return retrain_stage(setup, job.name, network, setup.images, streams, work.key(job))


def retrain_stage(
    setup: Setup,
    name: str,
    network: nn.Module,
    images: Tensor,
    streams: Streams,
    key: str = "",
    kind: type[RetrainStage] = RetrainStage,
    settings: RetrainSettings | None = None,
    **more: Any,
) -> RetrainStage:
    """The training of ``network`` on the training ``images``, by the configured recipe or by other
    ``settings``.
    """
    return kind(
        name,
        network,
        setup.data,
        images,
        settings or setup.config.retrain,
        augment=setup.augment,
        streams=streams,
        device=setup.device,
        precision=setup.config.precision,
        key=key,
        **more,
    )


def trained_network(work: "Work", job: Train) -> nn.Module:
    """The network that a finished job has trained.

    Raises:
        UserError: its checkpoint does not exist any more.
    """
    stage = stage_of(work, job)
    saved = work.checkpoints.load(stage.name, stage.key)
    if saved is None:
        raise UserError(
            f"{work.checkpoints.path(stage.name)} is missing: the trained network was there; "
            f"restore it, or train it again: supernet retrain from={work.folder}"
        )
    work.checkpoints.restore(stage, saved)
    return stage.trained().eval()


# --- warm starts


def finished_retrainings(folder: Path) -> list[dict[str, Any]]:
    """The finished retrainings of the derived network in the folder of a run, in the order of the
    seeds. Each has its key.

    Raises:
        UserError: there are none.
    """
    stages = State.read(folder).stages
    found = [stages[f"retrain/{i}"] for i in range(len(stages)) if f"retrain/{i}" in stages]
    if not found:
        raise UserError(
            f"retrain.warm_start={folder}: holds no retrained network; give the folder of a run "
            "whose retraining is done"
        )
    return found


def warm_start(work: "Work", index: int) -> dict[str, Any]:
    """The weights that retraining number ``index`` starts from, and their architecture (``of``).

    Raises:
        UserError: the network, which was there when the run began, does not exist any more.
    """
    assert work.state.warm_start is not None and work.config.retrain.warm_start is not None
    keys, folder = work.state.warm_start, Path(work.config.retrain.warm_start)
    name, key = f"retrain/{index % len(keys)}", keys[index % len(keys)]
    saved, done = None, State.read(folder).result(name, key)
    if done is not None:
        saved = Checkpoints(folder / "checkpoints").load(name, key)
    if saved is None or done is None:
        raise UserError(
            f"retrain.warm_start={folder}: the network {name} that was there when this run began "
            f"is gone; restore it, or train it again: supernet retrain from={folder}"
        )
    weights = Checkpoints(folder / "checkpoints").weights(name, saved, "average", "network")
    return {"from": str(folder), "weights": weights, "of": work.space.decode(done["text"])}


def took_over(
    work: "Work", start: dict[str, Any], stage: RetrainStage, architecture: Architecture
) -> dict[str, Any]:
    """How many of the network's weights come from ``start``, for the record and the log."""
    sizes = {name: weight.numel() for name, weight in stage.network.named_parameters()}
    network = stage.network
    shared = work.space.taken_over(start["weights"], start["of"], network, architecture)
    taken, total = sum(sizes[name] for name in shared if name in sizes), sum(sizes.values())
    work.progress.message(
        f"{stage.name}: {taken:,} of {total:,} weights are taken over from {start['from']}"
    )
    return {"from": start["from"], "weights": taken, "of": total}
