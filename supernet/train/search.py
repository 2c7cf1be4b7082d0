"""The search stage: train the shared weights, and the logits if the method has any to learn."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F

from supernet.cost.budget import Budget
from supernet.data import Augment, Batches, ImageData, Splits, evaluation_batches
from supernet.device import autocast
from supernet.errors import UserError, require, require_stages
from supernet.guards.guard import Gradients, Guard
from supernet.instruments.instrument import Batch, Snapshot
from supernet.instruments.readings import InstrumentSettings, load_states
from supernet.learners.learner import Bilevel, Learner, statistics_kept, trained_parts
from supernet.mixture import Choice, Logits, Mixture, detached
from supernet.modifiers.modifier import Modified, Modifier
from supernet.randomness import Streams
from supernet.samplers.sampler import Sampler
from supernet.spaces.capabilities import Itemised, Resizable, capable
from supernet.spaces.space import Space, set_recompute
from supernet.train.schedule import SGDSettings, cosine
from supernet.train.widening import widen


@dataclass
class SearchSettings(SGDSettings):
    """How the supernet is trained; the defaults are DARTS's (section 3.1.1). An epoch is one pass
    over the weight split.
    """

    epochs: int = 50
    batch_size: int = 64
    lr_min: float = 0.001
    freeze_weights: bool = (
        False  # learn the logits alone, on the weights that the search starts from
    )
    # Pairs [share of the search, share of the cells]: at each the supernet starts anew with so many
    # cells (P-DARTS, section 3.2).
    depths: list[Any] = field(default_factory=list)
    # Pairs [share of the search, K]: from each on operations read one of K parts of the channels
    # (DrNAS, section 3.3).
    widths: list[Any] = field(default_factory=list)
    # of mixtures: make cheap activations again in backward, to the same bits, and keep them no
    # longer
    recompute: bool = False
    # so many, one after the other, of ``epochs`` each; the derivation is from the mean of their
    # logits
    supernets: int = 1

    def __post_init__(self):
        self.check("search")
        require("search.supernets", self.supernets, least=1)
        require_stages("search.depths", self.depths)
        if self.depths and (
            self.depths[0][0] != 0
            or self.depths[-1][1] != 1
            or not all(0 < share <= 1 for _, share in self.depths)
        ):
            raise UserError(
                f"search.depths={self.depths}: must begin at 0 and end with all cells, as in "
                "[[0,0.5],[0.5,1]]"
            )
        if self.depths and self.freeze_weights:
            raise UserError(
                "search.depths: weights that start anew cannot be frozen; leave out "
                "search.freeze_weights"
            )
        if self.supernets > 1 and (self.depths or self.freeze_weights):
            other = "search.depths" if self.depths else "search.freeze_weights"
            raise UserError(
                f"search.supernets={self.supernets}: does not go with {other}; leave that out or "
                "set search.supernets=1"
            )
        self.check_widths()

    def check_widths(self) -> None:
        require_stages("search.widths", self.widths)
        parts = [k for _, k in self.widths]
        whole = all(k >= 1 and float(k).is_integer() for k in parts)
        if self.widths and not (
            self.widths[0][0] == 0 and whole and parts == sorted(set(parts), reverse=True)
        ):
            raise UserError(
                f"search.widths={self.widths}: must begin at 0, with whole, falling K, as in "
                "[[0,4],[0.5,2]]"
            )
        others = {
            "depths": self.depths,
            "supernets": self.supernets > 1,
            "freeze_weights": self.freeze_weights,
        }
        for other, set_too in others.items():
            if self.widths and set_too:
                raise UserError(
                    f"search.widths={self.widths}: does not go with search.{other}; leave that "
                    "out or set search.widths=[]"
                )


class SearchStage:
    """One step: the learner moves the logits on a batch of the architecture split, then the weights
    move on one of the weights'.

    The weights' loss is the mean over the sampler's mixtures; without a ``budget`` all
    architectures are within. ``start`` gives the weights to begin with, from an earlier search with
    whatever method on the same space. :meth:`grow` begins each of the settings' ``depths``, of
    which there is one, with all cells, unless they name others. :meth:`widen` goes on with each
    later one of the ``widths``. Of several ``supernets`` each is a search of its own, with its own
    first weights and order of images; what differs from one to the next is noise, which their mean
    logits have less of. ``instruments`` measure a search that moves logits and change nothing;
    ``guards`` act on it, and ``say`` what they do, which is kept in :attr:`fired`.
    """

    name = "search"

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
        seed: int = 0,
        device: torch.device | str = "cpu",
        precision: str = "float32",
        budget: Budget | None = None,
        modifiers: Sequence[Modifier] = (),
        instruments: InstrumentSettings | None = None,
        guards: Mapping[str, Guard] | None = None,
        say: Callable[[str], None] = lambda line: None,
        start: dict[str, Tensor] | None = None,
        key: str = "",
    ):
        self.space, self.learner, self.settings = space, learner, settings
        self.sampler = Modified(sampler, modifiers) if modifiers else sampler
        self.device, self.precision, self.key = torch.device(device), precision, key
        self.streams = Streams(seed)
        self.budget = budget or Budget(space, data.task)
        self.sampler.begin(self.budget, self.streams, self.device)
        self.logits: Logits = {
            name: torch.zeros(shape, device=self.device, requires_grad=True)
            for name, shape in (
                {group.name: group.shape for group in space.groups} | self.sampler.tables()
            ).items()
        }
        self._fresh_supernet = lambda cells=1.0, partial_channels=None: resized(
            space, cells, partial_channels
        ).supernet(data.task)
        self._begin_learner = partial(learner.begin, self.logits, sampler)

        def batches(split: str, indices: Tensor) -> Batches:
            return Batches(
                data.train,
                indices,
                settings.batch_size,
                mean=data.mean,
                std=data.std,
                augment=augment,
                order=self.streams.host(f"order/{split}"),
                noise=self.streams.tensor(f"augment/{split}", self.device),
                device=self.device,
            )

        self.data, self.splits, self.say = data, splits, say
        self.measuring = instruments or InstrumentSettings(use=[])
        self.instruments = self.measuring.built() if learner.moves == "logits" else {}
        self.guards = dict(guards or {})
        changes = {
            "depths": (settings.depths, []),
            "widths": (settings.widths, []),
            "supernets": (settings.supernets > 1, 1),
        }
        for name, (changed, unchanged) in changes.items():
            if changed and self.guards:
                raise UserError(
                    f"search.{name}: guards watch one supernet to its end; leave out guard= or "
                    f"set search.{name}={unchanged}"
                )
        if settings.supernets > 1 and learner.moves != "logits":
            raise UserError(
                "search.supernets: there is a mean of logits alone, and this method learns none; "
                "set it to 1"
            )
        self.parts = {
            name: 0.0 for name in (*self.instruments, *self.guards)
        }  # seconds that each has taken
        self.fired: list[dict[str, Any]] = []  # what guards did: guard, epoch, what
        self.seen: Batch | None = None  # the images that the logits learnt from in this step
        self.weight_batches = batches("weights", splits.weights)
        self.architecture_batches = batches("architecture", splits.architecture)
        self.steps_per_epoch = self.weight_batches.steps_per_epoch
        self.planned = settings.supernets * settings.epochs * self.steps_per_epoch
        self.steps = self.planned  # a guard may end it before
        self.done = 0
        self.ended: list[Logits] = []  # those of the supernets before this one
        self.depths, self.depth = (
            settings.depths or [[k / settings.supernets, 1.0] for k in range(settings.supernets)],
            0,
        )
        self.widths, self.width = widths_of(space, settings.widths), 1
        self.grow(start)

    def grow(self, start: dict[str, Tensor] | None = None) -> None:
        """Begins the next of the depths, with fresh weights (or those of ``start``), fresh logits
        and fresh optimisers.
        """
        settings = self.settings
        begins = [math.ceil(share * self.planned - 1e-9) for share, _ in self.depths] + [
            self.planned
        ]
        with self.streams.initialising(f"supernet/{self.depth}" if self.depth else "supernet"):
            self.supernet = self._fresh_supernet(self.depths[self.depth][1], self.widths[0][1])
        if start is not None:
            self.supernet.load_state_dict(start)
        self.supernet.to(self.device, memory_format=torch.channels_last)
        set_recompute(self.supernet, settings.recompute)
        for part in (*self.instruments.values(), *self.guards.values()):
            part.begin(self.space, self.supernet)
        self.optimizer = optim.SGD(
            self.supernet.parameters(),
            settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        steps = begins[self.depth + 1] - begins[self.depth]
        self.schedule = cosine(
            self.optimizer,
            steps,
            settings.lr_min,
            round(settings.warmup_epochs * self.steps_per_epoch),
        )
        with torch.no_grad():
            for table in self.logits.values():
                table.copy_(
                    1e-3 * torch.randn(table.shape, generator=self.streams.tensor("logits"))
                )
        self._begin_learner()
        self.depth += 1

    def widen(self) -> None:
        """Goes on with the next of the widths: operations read more channels, and keep what they
        have learnt, as do the logits.
        """
        old = self.supernet
        with self.streams.initialising(
            "wider"
        ):  # nothing is left of these weights, but torch draws them
            self.supernet = self._fresh_supernet(partial_channels=self.widths[self.width][1])
        self.supernet.to(self.device, memory_format=torch.channels_last)
        set_recompute(self.supernet, self.settings.recompute)
        itemised = capable(
            self.space, Itemised, "search.widths", "leave this out: search.widths=[]"
        )
        widen(
            old,
            self.supernet,
            itemised.candidates(old),
            self.optimizer,
            self.streams.tensor("widening"),
        )
        for part in self.instruments.values():
            part.begin(self.space, self.supernet)
        self.width += 1

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The cross-entropy; labels [B] are smoothed, a teacher's probabilities [B, classes] are
        soft as they are.
        """
        smoothing = 0.0 if labels.is_floating_point() else self.settings.label_smoothing
        return F.cross_entropy(outputs, labels, label_smoothing=smoothing)

    def step(self, index: int) -> dict[str, Tensor]:
        progress, self.done = self.progress(index), index + 1
        images, labels = next(self.weight_batches)
        figures, self.seen = {}, None
        begins = (
            self.depth < len(self.depths)
            and index / self.planned + 1e-9 >= self.depths[self.depth][0]
        )
        if begins and self.settings.supernets > 1:
            self.ended.append({name: table.clone() for name, table in self.detached_logits.items()})
            self.sampler.begin(self.budget, self.streams, self.device)
        self.sampler.advance(self.detached_logits, progress)
        if begins:
            self.grow()
        while self.width < len(self.widths) and (
            progress + 1e-9 >= self.widths[self.width][0] or self.done == self.planned
        ):
            self.widen()  # the last step, at the latest, is as wide as the space says
        self.supernet.train()
        if self.learner.learns and not self.learner.rests(progress):
            figures |= self.learn(progress, images, labels)
        if self.settings.freeze_weights:
            self.watch([])
            return figures
        logits = self.detached_logits
        mixtures = self.sampler.mixtures(
            logits, progress, lambda mixture: self.judged(mixture, images, labels)
        )
        targets = labels
        for mixture in mixtures:
            with autocast(self.device, self.precision):
                outputs = self.supernet(images, detached(mixture))
                loss = self.loss(outputs, targets) / len(mixtures)
            loss.backward()
            if self.sampler.distils and targets is labels:
                targets = outputs.detach().softmax(dim=1)
            right = (outputs.detach().argmax(dim=1) == labels).float().mean() / len(mixtures)
            figures["loss"] = figures.get("loss", 0) + loss.detach()
            figures["accuracy"] = figures.get("accuracy", 0) + right
        self.watch(mixtures)
        if self.settings.clip:
            nn.utils.clip_grad_norm_(trained_parts(self.supernet).parameters, self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        return figures

    def progress(self, index: int) -> float:
        """The share that is over, before a step, of the search, or of that of one of several
        supernets.
        """
        each = self.planned // self.settings.supernets
        return index % each / each

    def learn(self, progress: float, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Moves the logits, or what else the learner moves, before the weights move on ``images``
        and ``labels``.
        """
        self.seen = next(self.architecture_batches)
        draw = int(
            self.streams.host("relaxation").integers(2**63)
        )  # what is random in the relaxation is one draw a step
        before = {name: table.clone() for name, table in self.detached_logits.items()}
        problem = Bilevel(
            self.supernet,
            self.logits,
            lambda logits: self.sampler.relaxation(
                logits, progress, torch.Generator().manual_seed(draw)
            ),
            self.loss,
            self.optimizer,
            (images, labels),
            self.seen,
            lambda logits: self.budget.excess(
                {n: Choice.dense(table) for n, table in self.sampler.probabilities(logits).items()}
            ),
            lambda logits: self.sampler.penalty(logits, progress),
        )
        with autocast(self.device, self.precision):
            figures = self.learner.step(problem)
        self.sampler.settle(self.logits, before)
        return figures

    @property
    def detached_logits(self) -> Logits:
        return {name: table.detach() for name, table in self.logits.items()}

    def judged(self, mixture: Mixture, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of a mixture on the images of a step, which leaves no trace: neither gradients
        nor BatchNorm statistics.

        It is differentiable in weights of the mixture that ask for it.
        """
        asked = any(
            choice.weights is not None and choice.weights.requires_grad
            for choice in mixture.values()
        )
        with (
            torch.set_grad_enabled(asked),
            autocast(self.device, self.precision),
            statistics_kept(self.supernet),
        ):
            return self.loss(self.supernet(images, mixture), labels)

    def watch(self, mixtures: Sequence[Mixture]) -> None:
        """Shows instruments and guards the gradients of a step."""
        gradient = self.learner.followed if self.seen is not None else None
        for name, instrument in self.instruments.items():
            with self.timed(name):
                instrument.step(gradient)
        validation = (
            self.validation_gradients(mixtures[0]) if mixtures and self.seen is not None else None
        )
        for name, guard in self.guards.items():
            with self.timed(name):
                guard.step(validation)

    def validation_gradients(self, mixture: Mixture) -> Gradients:
        """Computes the gradients of weights on the images that the logits have just learnt from."""
        images, labels = self.seen

        def gradients(weights: Sequence[nn.Parameter]) -> Sequence[Tensor | None]:
            with autocast(self.device, self.precision), statistics_kept(self.supernet):
                loss = self.loss(self.supernet(images, detached(mixture)), labels)
            return torch.autograd.grad(loss, list(weights), allow_unused=True)

        return gradients

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.parts[name] += time.perf_counter() - started

    def snapshot(self) -> Snapshot:
        """The search as instruments and guards see it."""
        progress = self.progress(min(self.done, self.planned - 1))

        def batches(indices: Tensor) -> list[Batch]:
            few = indices[: self.measuring.images]
            return list(
                evaluation_batches(
                    self.data.train,
                    few,
                    self.settings.batch_size,
                    mean=self.data.mean,
                    std=self.data.std,
                    device=self.device,
                )
            )

        return Snapshot(
            self.space,
            self.budget,
            self.supernet,
            self.detached_logits,
            self.scores(),
            lambda logits: self.sampler.mean(logits, progress),
            self.loss,
            batches(self.splits.architecture),
            [images for images, _ in batches(self.splits.weights)],
            self.done // self.steps_per_epoch,
            Streams(self.streams.seed).tensor("eigenvalue"),
        )

    def end_of_epoch(self) -> dict[str, float]:
        """The logits, if they move, slot by slot, and the mean entropy (nats) of each group's
        softmax; what instruments say.

        Guards act here: they may move the logits and end the search.
        """
        if self.learner.moves != "logits":
            return {}
        figures = {}
        for group in self.space.groups:
            table = self.logits[group.name].detach().cpu().double()
            figures[f"entropy/{group.name}"] = float(
                torch.special.entr(torch.softmax(table, -1)).sum(-1).mean()
            )
            for slot, row in enumerate(table.tolist()):
                figures |= {
                    f"logits/{group.name}/{slot}/{o}": v
                    for o, v in zip(group.options, row, strict=True)
                }
        for name in self.sampler.tables():
            for row in torch.softmax(self.logits[name].detach().cpu().double(), -1).tolist():
                figures |= {f"share/{name}/{position}": value for position, value in enumerate(row)}
        if self.instruments or self.guards:
            figures |= self.measured()
        return figures

    def measured(self) -> dict[str, float]:
        """What instruments and guards say at the end of an epoch, when guards act."""
        snapshot, figures = self.snapshot(), {}
        for name, instrument in self.instruments.items():
            if self.measuring.due(instrument, snapshot.epoch):
                with self.timed(name):
                    figures |= instrument.read(snapshot)
        for name, guard in self.guards.items():
            with self.timed(name):
                fired = guard.end_of_epoch(snapshot)
            figures |= guard.figures
            if fired is not None:
                self.fired.append({"guard": name, "epoch": snapshot.epoch, "what": fired.what})
                self.say(f"guard {name}, epoch {snapshot.epoch}: {fired.what}")
                with torch.no_grad():
                    for group, table in (fired.logits or {}).items():
                        self.logits[group].copy_(table)
                if fired.stops:
                    self.steps = self.done
        return figures

    def scores(self) -> Logits:
        """What a derivation from the logits maximises, on the CPU: the mean of those of all
        supernets that there were so far.
        """
        each = [self.sampler.scores(logits) for logits in (*self.ended, self.detached_logits)]
        return {
            name: torch.stack([scores[name] for scores in each]).mean(dim=0).cpu()
            for name in each[0]
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "depth": self.depth,
            "width": self.width,
            "ended": list(self.ended),
            "supernet": self.supernet.state_dict(),
            "logits": {name: table.detach() for name, table in self.logits.items()},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "sampler": self.sampler.state_dict(),
            "learner": self.learner.state_dict(),
            "weight_batches": self.weight_batches.state_dict(),
            "architecture_batches": self.architecture_batches.state_dict(),
            "streams": self.streams.state_dict(),
            "instruments": {
                name: instrument.state_dict() for name, instrument in self.instruments.items()
            },
            "guards": {name: guard.state_dict() for name, guard in self.guards.items()},
            "fired": list(self.fired),
            "steps": self.steps,
            "done": self.done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        while self.depth < state["depth"]:
            self.grow()
        while self.width < state["width"]:
            self.widen()
        self.supernet.load_state_dict(state["supernet"])
        with torch.no_grad():
            for name, table in self.logits.items():
                table.copy_(state["logits"][name])
        for name in (
            "optimizer",
            "schedule",
            "sampler",
            "learner",
            "weight_batches",
            "architecture_batches",
            "streams",
        ):
            getattr(self, name).load_state_dict(state[name])
        self.ended = [
            {name: table.to(self.device) for name, table in logits.items()}
            for logits in state["ended"]
        ]
        load_states(self.instruments, state["instruments"])
        load_states(self.guards, state["guards"])
        self.fired, self.steps, self.done = list(state["fired"]), state["steps"], state["done"]


def resized(space: Space, cells: float, partial_channels: int | None) -> Space:
    """The space with a share of its supernet's cells, and other partial channels (``None``: its
    own).

    Raises:
        UserError: it has no such supernet.
    """
    if cells == 1 and partial_channels is None:
        return space
    setting = "search.depths" if partial_channels is None else "search.widths"
    resizable = capable(space, Resizable, setting, f"leave this out: {setting}=[]")
    try:
        return resizable.resized(cells, partial_channels)
    except UserError as error:
        raise UserError(f"{setting}: {error}") from error


def widths_of(space: Space, widths: list[Any]) -> list[Any]:
    """The ``widths`` of a search of the space: its own alone if there are none.

    Raises:
        UserError: they do not fit the space.
    """
    if not widths:
        return [[0.0, None]]
    if resized(space, 1.0, int(widths[-1][1])) != space:
        raise UserError(
            f"search.widths={widths}: must end with the space's own "
            "space.search.partial_channels; change one"
        )
    for _, parts in widths:
        resized(space, 1.0, int(parts))
    return [[share, int(k)] for share, k in widths]
