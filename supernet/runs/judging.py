"""Judges architectures with inherited weights, and keeps the judgements over a stop."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from supernet.data import calibration_indices, evaluation_batches
from supernet.errors import UserError
from supernet.evaluate.accuracy import Judgement, inherited_accuracy, mean_judgement
from supernet.evaluate.untrained import IMAGES, INITIALISATIONS, SCORES
from supernet.files import write_json
from supernet.mixture import Architecture, Mixture
from supernet.randomness import Streams
from supernet.runs.setup import Setup
from supernet.shapes import Judged, read
from supernet.train.loop import Stopped
from supernet.train.search import SearchStage

if TYPE_CHECKING:
    from supernet.runs.work import Work

Known = dict[tuple[Architecture, float], Judgement]  # by architecture and share of the images


def batches(
    setup: Setup, indices: Tensor, batch_size: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The training images ``indices`` for judging: normalised, not augmented. Without a
    ``batch_size``, it is that of the configuration.
    """
    data, size = setup.data, batch_size or setup.config.judge.batch_size
    return evaluation_batches(
        data.train, indices, size, mean=data.mean, std=data.std, device=setup.device
    )


def judge(
    setup: Setup,
    supernet: nn.Module,
    judged: Architecture | Mixture,
    share: float = 1.0,
    recalibration_batches: int | None = None,
    workers: int = 1,
) -> Judgement:
    """Judges an architecture, or a mixture, with the weights of ``supernet``.

    The images are the first ``share`` of the architecture split, so that they are always the same.
    ``recalibration_batches`` replaces the value of the configuration if it is given. ``workers``
    threads judge; their number changes no bit.

    Raises:
        UserError: the loss is not finite.
    """
    settings, splits = setup.config.judge, setup.splits
    few = settings.recalibration_batches if recalibration_batches is None else recalibration_batches
    calibration = None
    if few:
        seen = batches(setup, *calibration_indices(splits.weights, settings.batch_size, few))
        calibration = (images for images, _ in seen)
    mixture = setup.space.path(judged) if isinstance(judged, Architecture) else judged
    images = splits.architecture[: max(1, round(share * len(splits.architecture)))]
    found = inherited_accuracy(
        supernet, mixture, batches(setup, images), setup.task, calibration, workers
    )
    return finite("search", found)


def judge_together(
    setup: Setup,
    stages: Sequence[SearchStage],
    architecture: Architecture,
    share: float = 1.0,
    workers: int = 1,
) -> Judgement:
    """The mean of what the trained supernets of several searches say about an architecture."""
    return mean_judgement(
        [judge(setup, one.trained, architecture, share, workers=workers) for one in stages]
    )


def untrained(work: "Work", names: Sequence[str]) -> Callable[[Architecture], dict[str, float]]:
    """A function that gives some of the scores :data:`~supernet.evaluate.untrained.SCORES` of an
    architecture: of each the median over :data:`~supernet.evaluate.untrained.INITIALISATIONS`. All
    networks share these, and the training images that each of them sees. The function raises
    :class:`~supernet.train.loop.Stopped` if the run was asked to stop.
    """
    setup, numbers = work.setup, range(INITIALISATIONS)
    streams = [Streams(work.config.seed, str(number)) for number in numbers]
    images = [some_images(setup, IMAGES * number) for number in numbers]

    def scored(architecture: Architecture) -> dict[str, float]:
        each: dict[str, list[float]] = {name: [] for name in names}
        for stream, seen in zip(streams, images, strict=True):
            work.stop.check()
            with stream.initialising("untrained"):
                network = setup.space.standalone(architecture, setup.task)
            for name in names:
                each[name].append(SCORES[name](network, seen))
        return {name: median(values) for name, values in each.items()}

    return scored


def some_images(setup: Setup, first: int) -> Tensor:
    """As many training images as a score of an untrained network reads, on the CPU. If there are
    too few from the ``first`` on, they begin anew.
    """
    split = setup.splits.weights
    few = split[torch.arange(first, first + IMAGES) % len(split)]
    return next(batches(setup, few, IMAGES))[0].cpu()


class Kept:
    """The judgements ``known`` that a file keeps over a stop, and the ``seconds`` that they took,
    in this session and in those before.
    """

    def __init__(self, work: "Work", key: str):
        self.work, self.path = work, work.folder / "checkpoints" / f"judgements-{key}.json"
        before: Judged = (
            read(self.path, Judged) if self.path.exists() else {"seconds": 0.0, "judged": []}
        )
        self.known: Known = {
            (Architecture.from_dict(entry), entry["share"]): Judgement(**entry["judgement"])
            for entry in before["judged"]
        }
        self.saved = time.monotonic()
        self.began = self.saved - before["seconds"]

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def save(self) -> None:
        judged = [
            architecture.to_dict() | {"share": share, "judgement": dataclasses.asdict(judgement)}
            for (architecture, share), judgement in self.known.items()
        ]
        write_json(self.path, {"seconds": self.seconds, "judged": judged})

    def about_to_judge(self) -> None:
        """To be called before each judgement: saves the file from time to time, and stops the run
        if it was asked to stop.
        """
        self.work.stop.check()
        if time.monotonic() - self.saved >= self.work.config.checkpoint.every_seconds:
            self.save()
            self.saved = time.monotonic()


@contextmanager
def kept_judgements(work: "Work", key: str) -> Iterator[Kept]:
    """The judgements that a file keeps. It is saved at the end, and if the run is asked to stop."""
    kept = Kept(work, key)
    try:
        yield kept
    except Stopped:  # in the middle of a judgement that takes long
        kept.save()
        raise
    kept.save()


def all_judged(
    work: "Work",
    key: str,
    architectures: Sequence[Architecture],
    judge_one: Callable[[Architecture], Judgement],
    update: Callable[[int, dict[str, float]], None],
) -> tuple[list[Judgement], float]:
    """Judges each of ``architectures``, once for each ``key``. It continues where it stopped.
    Returns the judgements and the seconds that they took.
    """
    with kept_judgements(work, key) as kept:
        for number, architecture in enumerate(architectures, start=1):
            if (architecture, 1.0) not in kept.known:
                kept.about_to_judge()
                kept.known[architecture, 1.0] = judge_one(architecture)
            update(number, shown(kept.known[architecture, 1.0]))
        seconds = kept.seconds
    return [kept.known[architecture, 1.0] for architecture in architectures], seconds


def shown(judgement: Judgement) -> dict[str, float]:
    """The figures of a judgement that are shown and logged."""
    value = {} if judgement.value is None else {"value": judgement.value}
    return {"accuracy": judgement.accuracy, "loss": judgement.loss} | value


def finite(stage: str, judgement: Judgement) -> Judgement:
    """Returns the judgement of what ``stage`` trained.

    Raises:
        UserError: its loss is not finite.
    """
    if not math.isfinite(judgement.loss):
        raise UserError(
            f"{stage}: what was trained has a loss of {judgement.loss}; lower the learning rate "
            "or clip gradients more"
        )
    return judgement


def tested(setup: Setup, network: nn.Module, name: str) -> Judgement:
    """Judges a trained network on the test images. It is called once for each network."""
    from supernet.evaluate.accuracy import evaluate

    data, size = setup.data, setup.config.judge.batch_size
    everything = torch.arange(len(data.test))
    found = evaluation_batches(
        data.test, everything, size, mean=data.mean, std=data.std, device=setup.device
    )
    return finite(name, evaluate(network.eval(), found, setup.task))


def costs_of(work: "Work", architecture: Architecture) -> dict[str, Any]:
    """Every metric of an architecture. Counts are whole numbers."""
    costs = work.budget.costs(architecture)
    return {k: int(v) if float(v).is_integer() else v for k, v in costs.items()}
