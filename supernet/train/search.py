"""The search stage: trains the shared weights of one supernet, and the logits if the method learns
them.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from supernet.cost.budget import Budget
from supernet.data import (
    Augment,
    Batches,
    ImageData,
    Splits,
    calibration_indices,
    evaluation_batches,
)
from supernet.device import autocast
from supernet.errors import UserError
from supernet.guards.guard import Guard
from supernet.instruments.instrument import Batch, Instrument, Snapshot
from supernet.learners.learner import Bilevel, Learner
from supernet.mixture import Choice, Logits, Mixture, detached
from supernet.modifiers.modifier import Modified, Modifier
from supernet.ops.fast.convolution import FastGradients
from supernet.randomness import Streams
from supernet.samplers.sampler import Sampler
from supernet.spaces.capabilities import Itemised, capable
from supernet.spaces.space import Space, set_recompute
from supernet.train.phases import (
    require_fit,
    require_one_phase,
)
from supernet.train.settings import SearchSettings
from supernet.train.watch import Watch
from supernet.train.weights import SharedWeights


class SearchStage:
    """Trains the weights of one supernet, and the logits or the policy that the learner learns.

    In each step the learner first updates the logits (or its policy) on a batch of the architecture
    split. Then the optimiser updates the weights on a batch of the weight split. The loss of the
    weights is the mean of the losses of the mixtures that the sampler returns for this step.
    ``modifiers`` change these mixtures. Without a ``budget`` every architecture is allowed.

    A search has one or more phases (:mod:`supernet.train.phases`), each with a supernet of another
    size. ``start`` is the state of the supernet to begin with, from an earlier search on the same
    space by any method. ``watch`` holds the instruments and guards; it is used only if the learner
    learns logits. All random numbers come from ``streams``. If a run trains several supernets, each
    has streams with a scope of its own.

    Raises:
        UserError: the settings, the space, the learner and the guards do not fit together.
    """

    name = title = "search"  # the title is what people read

    def __init__(
        self,
        space: Space,
        data: ImageData,
        splits: Splits,
        sampler: Sampler,
        learner: Learner,
        settings: SearchSettings,
        *,
        augment: Augment | None = None,
        streams: Streams | None = None,
        device: torch.device | str = "cpu",
        precision: str = "float32",
        budget: Budget | None = None,
        modifiers: Sequence[Modifier] = (),
        watch: Watch | None = None,
        start: Mapping[str, Tensor] | None = None,
        key: str = "",
    ):
        self.space, self.data, self.splits = space, data, splits
        self.learner, self.settings, self.key = learner, settings, key
        self.device, self.streams = torch.device(device), streams or Streams(0)
        self.budget = budget or Budget(space, data.task)
        self.watch = watch if watch is not None and learner.moves == "logits" else Watch()
        self.sampler = Modified(sampler, modifiers) if modifiers else sampler
        self.sampler.begin(self.budget, self.streams, self.device)
        shapes = {group.name: group.shape for group in space.groups} | self.sampler.tables()
        self.logits: Logits = {
            name: torch.zeros(shape, device=self.device, requires_grad=True)
            for name, shape in shapes.items()
        }
        self.begin_learner = partial(learner.begin, self.logits, sampler)
        self.weight_batches, self.architecture_batches = (
            Batches(
                data.train,
                images,
                settings.batch_size,
                mean=data.mean,
                std=data.std,
                augment=augment,
                order=self.streams.host(f"order/{name}"),
                noise=self.streams.tensor(f"augment/{name}", self.device),
                device=self.device,
            )
            for name, images in (("weights", splits.weights), ("architecture", splits.architecture))
        )
        self.steps_per_epoch = self.weight_batches.steps_per_epoch
        self.planned = settings.epochs * self.steps_per_epoch
        self.steps = self.planned  # a guard may lower it, to end the search early
        self.done = 0
        self.weights = SharedWeights(settings, data.task, self.device, precision)
        self.phases, self.phase = settings.phases, -1
        self.starts = [*(phase.first_step(self.planned) for phase in self.phases), math.inf]
        require_search(settings, space, learner, self.watch.guards)
        if start is not None:
            require_one_phase(self.phases, "a start from the weights of another search")
        self.begin_next_phase(start)

    def begin_next_phase(self, start: Mapping[str, Tensor] | None = None) -> None:
        """Makes the supernet of the next phase.

        In a fresh phase the weights (or those of ``start``), the logits and the optimisers are new.
        In a widened phase the weights come from the current supernet, and the rest goes on.
        """
        self.phase += 1
        phase = self.phases[self.phase]
        with self.streams.initialising(f"supernet/{self.phase}" if self.phase else "supernet"):
            resized = phase.resized(self.space)
            supernet = resized.supernet(self.data.task)
        if start is not None:
            load_start(supernet, start)
        supernet.to(self.device).to(memory_format=torch.channels_last)
        self.fast_gradients = FastGradients(supernet)
        set_recompute(supernet, self.settings.recompute)
        if phase.fresh:
            self.weights.begin(supernet, phase.rate_steps(self.planned), self.steps_per_epoch)
            noise = self.streams.tensor("logits")
            with torch.no_grad():
                for table in self.logits.values():
                    table.copy_(1e-3 * torch.randn(table.shape, generator=noise))
            self.begin_learner()
        else:
            itemised = capable(self.space, Itemised, "search.widths", "leave it out")
            operations = itemised.candidates(self.supernet)
            self.weights.widen(supernet, operations, self.streams.tensor("widening"))
        self.watch.begin(self.space, self.supernet)

    def step(self, index: int) -> dict[str, Tensor]:
        progress, self.done = index / self.planned, index + 1
        training = next(self.weight_batches)
        self.sampler.advance(self.detached_logits, progress)
        while index >= self.starts[self.phase + 1]:
            self.begin_next_phase()
        with self.fast_gradients:
            return self.learn(progress, training)

    def learn(self, progress: float, training: Batch) -> dict[str, Tensor]:
        """One step of the logits and of the weights. Returns their figures for the log."""
        figures: dict[str, Tensor] = {}
        mixtures: list[Mixture] = []
        validation = None
        if not self.supernet.training:  # the call visits a thousand modules
            self.supernet.train()
        if self.learner.learns and not self.learner.rests(progress):
            validation = next(self.architecture_batches)
            figures |= self.move_logits(progress, training, validation)
        if not self.settings.freeze_weights:
            mixtures = self.sampler.mixtures(
                self.logits if self.learner.joint else self.detached_logits,
                progress,
                lambda mixture: self.weights.judged(mixture, training),
            )
            if not self.learner.joint:
                mixtures = [detached(mixture) for mixture in mixtures]
            figures |= self.weights.backward(mixtures, training, self.sampler.distils)
            if self.learner.joint:
                figures |= self.learner.follow(self.logits)
        self.watch.step(
            None if validation is None else self.learner.followed,
            self.weights.gradients(mixtures[0], validation) if mixtures and validation else None,
        )
        if mixtures:
            self.weights.step()
        return figures

    def move_logits(self, progress: float, training: Batch, validation: Batch) -> dict[str, Tensor]:
        """Lets the learner update the logits or its policy, on the ``validation`` batch.

        Returns the learner's figures for the log.
        """
        # the learner may relax the logits several times in a step: each time with the same noise
        draw = int(self.streams.host("relaxation").integers(2**63))
        before = {name: table.clone() for name, table in self.detached_logits.items()}
        problem = Bilevel(
            self.supernet,
            self.logits,
            lambda logits: self.sampler.relaxation(
                logits, progress, torch.Generator().manual_seed(draw)
            ),
            self.weights.loss,
            self.weights.optimizer,
            training,
            validation,
            lambda logits: self.budget.excess(
                {n: Choice.dense(table) for n, table in self.sampler.probabilities(logits).items()}
            ),
            lambda logits: self.sampler.penalty(logits, progress),
        )
        with autocast(self.device, self.weights.precision):
            figures = self.learner.step(problem)
        self.sampler.settle(self.logits, before)
        return figures

    @property
    def supernet(self) -> nn.Module:
        return self.weights.supernet

    @property
    def trained(self) -> nn.Module:
        """The supernet that judges: the average of the weights, if there is one."""
        return self.supernet if self.weights.average is None else self.weights.average.module

    @property
    def detached_logits(self) -> Logits:
        return {name: table.detach() for name, table in self.logits.items()}

    def scores(self) -> Logits:
        """The score of each option, on the CPU. A derivation maximises the sum of the scores."""
        scores = self.sampler.scores(self.detached_logits)
        return {name: table.cpu() for name, table in scores.items()}

    @property
    def parts(self) -> dict[str, float]:
        """Name of each instrument and guard -> the seconds that it has taken."""
        return self.watch.seconds

    def end_of_epoch(self) -> dict[str, float]:
        """Returns the figures of the logits, the instruments and the guards.

        Guards act here: they may replace the logits and end the search. If the learner does not
        learn logits, there are no figures and nothing happens.
        """
        if self.learner.moves != "logits":
            return {}
        figures = figures_of(self.space, self.detached_logits, self.sampler.tables())
        if self.watch.watchers:
            with self.fast_gradients:
                measured, actions = self.watch.end_of_epoch(snapshot_of(self))
            figures |= measured
            for fired in actions:
                with torch.no_grad():
                    for name, table in (fired.logits or {}).items():
                        self.logits[name].copy_(table)
                if fired.stops:
                    self.steps = self.done
        return figures

    def state_dict(self) -> dict[str, Any]:
        return {
            "phase": self.phase,
            **self.weights.state_dict(),
            "logits": self.detached_logits,
            **{name: getattr(self, name).state_dict() for name in STATEFUL},
            "steps": self.steps,
            "done": self.done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        while self.phase < state["phase"]:
            self.begin_next_phase()
        self.weights.load_state_dict(state)
        with torch.no_grad():
            for name, table in self.logits.items():
                table.copy_(state["logits"][name])
        for name in STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        if not 0 <= state["done"] <= state["steps"] <= self.planned:
            raise ValueError(f"{state['done']} of {state['steps']} steps, planned {self.planned}")
        self.steps, self.done = state["steps"], state["done"]


# The parts that a search consists of: group -> the class of its options.
PARTS: dict[str, type] = {
    "sampler": Sampler,
    "learner": Learner,
    "modifier": Modifier,
    "guard": Guard,
    "instrument": Instrument,
}
# attributes of the stage whose own ``state_dict`` is part of the stage's
STATEFUL = ("sampler", "learner", "weight_batches", "architecture_batches", "streams", "watch")


def load_start(supernet: nn.Module, start: Mapping[str, Tensor]) -> None:
    """Loads the weights that a search starts from.

    Raises:
        UserError: they belong to another supernet.
    """
    try:
        supernet.load_state_dict(start)
    except RuntimeError as error:
        raise UserError(
            "the weights that the search starts from do not fit its supernet: the checkpoint of "
            "the run that it goes on from is damaged; restore it, or start without from="
        ) from error


def require_search(
    settings: SearchSettings, space: Space, learner: Learner, guards: Mapping[str, Guard]
) -> None:
    """Raises a UserError if the settings do not fit the space, the learner or the guards."""
    require_fit(settings.phases, space)
    if guards:
        require_one_phase(settings.phases, f"guard=[{','.join(guards)}]")
    if settings.supernets > 1 and learner.moves == "policy":
        raise UserError(
            f"search.supernets={settings.supernets}: the logits or the judgements of several "
            "supernets are averaged, but this learner learns a policy; set search.supernets=1"
        )


def snapshot_of(search: SearchStage) -> Snapshot:
    """The state of the search that instruments and guards read at the end of an epoch."""
    progress = min(search.done, search.planned - 1) / search.planned
    data, few = search.data, search.watch.settings.images
    size, splits = search.settings.batch_size, search.splits
    validation, calibration = (
        list(
            evaluation_batches(
                data.train,
                indices,
                batch_size,
                mean=data.mean,
                std=data.std,
                device=search.device,
            )
        )
        for indices, batch_size in (
            (splits.architecture[:few], size),
            calibration_indices(splits.weights[:few], size, few),
        )
    )
    return Snapshot(
        search.space,
        search.budget,
        search.supernet,
        search.detached_logits,
        search.scores(),
        lambda logits: search.sampler.mean(logits, progress),
        search.weights.loss,
        validation,
        [images for images, _ in calibration],
        search.done // search.steps_per_epoch,
        search.streams.restarted().tensor("eigenvalue"),
    )


def figures_of(space: Space, logits: Logits, tables: Mapping[str, Any]) -> dict[str, float]:
    """The figures that are logged of the logits.

    These are every logit of the space's groups, the entropy of the softmax of each group (in nats,
    the mean over its slots), and the softmax of the sampler's further ``tables``.
    """
    on_host = {name: table.cpu().double() for name, table in logits.items()}
    figures = {}
    for group in space.groups:
        table = on_host[group.name]
        entropy = torch.special.entr(torch.softmax(table, -1)).sum(-1).mean()
        figures[f"entropy/{group.name}"] = float(entropy)
        for slot, row in enumerate(table.tolist()):
            for option, value in zip(group.options, row, strict=True):
                figures[f"logits/{group.name}/{slot}/{option}"] = value
    for name in tables:
        for row in torch.softmax(on_host[name], -1).tolist():
            figures |= {f"share/{name}/{position}": value for position, value in enumerate(row)}
    return figures


def mean_scores(each: Sequence[Logits]) -> Logits:
    """The mean of the scores of several supernets, from which one architecture is derived."""
    return {name: torch.stack([scores[name] for scores in each]).mean(dim=0) for name in each[0]}
