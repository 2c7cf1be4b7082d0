"""The shared weights of a supernet, and what moves them."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import LRScheduler

from supernet.device import autocast
from supernet.guards.guard import Gradients
from supernet.learners.learner import Batch, statistics_kept, trained_parts
from supernet.mixture import Mixture, detached
from supernet.task import Task
from supernet.train.schedule import SGDSettings, cosine
from supernet.train.widening import widen


class SharedWeights:
    """A supernet with the optimiser and the learning rate of its weights.

    A step has two halves: :meth:`backward` gives the weights their gradients, :meth:`step` moves
    them. Between the two, others may look at the gradients or take some away.
    """

    supernet: nn.Module
    optimizer: optim.SGD
    schedule: LRScheduler

    def __init__(self, settings: SGDSettings, task: Task, device: torch.device, precision: str):
        self.settings, self.task = settings, task
        self.device, self.precision = device, precision

    def begin(self, supernet: nn.Module, steps: int, steps_per_epoch: int) -> None:
        """Takes a supernet, with a new optimiser whose rate falls over so many ``steps``."""
        settings = self.settings
        self.supernet = supernet
        self.optimizer = optim.SGD(
            supernet.parameters(),
            settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        warmup = round(settings.warmup_epochs * steps_per_epoch)
        self.schedule = cosine(self.optimizer, steps, settings.lr_min, warmup)

    def widen(self, supernet: nn.Module, operations: Iterable[str], noise: torch.Generator) -> None:
        """Goes on with a supernet whose ``operations`` (names of modules) read more channels: it
        takes over what was learnt, with the optimiser and its rate.
        """
        widen(self.supernet, supernet, operations, self.optimizer, noise)
        self.supernet = supernet

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of the task. Labels are smoothed; the probabilities of a teacher are soft
        already.
        """
        return self.task.loss(outputs, targets, self.settings.label_smoothing)

    def backward(
        self, mixtures: Sequence[Mixture], batch: Batch, distils: bool = False
    ) -> dict[str, Tensor]:
        """Gives the weights the gradient of the mean loss over the ``mixtures``; returns that loss
        and the mean metric of the task.

        If the first one ``distils``, its outputs are the labels of the others.
        """
        images, labels = batch
        targets = labels
        figures: dict[str, Tensor] = {}
        for mixture in mixtures:
            with autocast(self.device, self.precision):
                outputs = self.supernet(images, detached(mixture))
                loss = self.loss(outputs, targets) / len(mixtures)
            loss.backward()
            if distils and targets is labels:
                targets = outputs.detach().softmax(dim=1)
            metric, name = self.task.metric(outputs.detach(), labels), self.task.metric_name
            figures["loss"] = figures.get("loss", 0) + loss.detach()
            figures[name] = figures.get(name, 0) + metric / len(mixtures)
        return figures

    def step(self) -> None:
        """Moves the weights by their gradients, of which none is left."""
        if self.settings.clip:
            nn.utils.clip_grad_norm_(trained_parts(self.supernet).parameters, self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()

    def judged(self, mixture: Mixture, batch: Batch) -> Tensor:
        """The loss of a mixture on a batch. It leaves neither gradients nor BatchNorm statistics
        behind.

        It is differentiable in those weights of the mixture that require grad.
        """
        images, labels = batch
        differentiable = any(
            choice.weights is not None and choice.weights.requires_grad
            for choice in mixture.values()
        )
        with (
            torch.set_grad_enabled(differentiable),
            autocast(self.device, self.precision),
            statistics_kept(self.supernet),
        ):
            return self.loss(self.supernet(images, mixture), labels)

    def gradients(self, mixture: Mixture, batch: Batch) -> Gradients:
        """A function of some weights: their gradients on a batch in a mixture. It leaves no
        BatchNorm statistics behind.
        """
        images, labels = batch

        def gradients(weights: Sequence[nn.Parameter]) -> Sequence[Tensor | None]:
            with autocast(self.device, self.precision), statistics_kept(self.supernet):
                loss = self.loss(self.supernet(images, detached(mixture)), labels)
            return torch.autograd.grad(loss, list(weights), allow_unused=True)

        return gradients

    def state_dict(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in ("supernet", "optimizer", "schedule")}
        return {name: part.state_dict() for name, part in parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict` gave, or a mapping with more in it."""
        for name in ("supernet", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
