"""The shared weights of a supernet, with their optimiser and learning rate schedule."""

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
from supernet.train.average import average_of
from supernet.train.schedule import cosine
from supernet.train.settings import SearchSettings
from supernet.train.widening import widen


class SharedWeights:
    """A supernet with the optimiser and the learning rate schedule of its weights.

    A step has two halves. :meth:`backward` computes the gradients of the weights, and :meth:`step`
    updates the weights by them. Between the two calls a guard may read or remove gradients.
    """

    supernet: nn.Module
    optimizer: optim.SGD
    schedule: LRScheduler

    def __init__(self, settings: SearchSettings, task: Task, device: torch.device, precision: str):
        self.settings, self.task = settings, task
        self.device, self.precision = device, precision

    def begin(self, supernet: nn.Module, steps: int, steps_per_epoch: int) -> None:
        """Takes a supernet and makes a new optimiser, whose learning rate falls over ``steps``."""
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
        self.average = average_of(supernet, settings.ema_decay) if settings.ema_decay else None

    def widen(self, supernet: nn.Module, operations: Iterable[str], noise: torch.Generator) -> None:
        """Continues with a new ``supernet`` whose ``operations`` read more channels.

        ``operations`` are names of modules. The new supernet gets the weights of the current one,
        and the optimiser and its learning rate schedule go on. ``noise`` says which channels are
        copied.
        """
        widen(self.supernet, supernet, operations, self.optimizer, noise)
        self.supernet = supernet

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The task's loss, with label smoothing if ``targets`` are classes. The probabilities of a
        teacher are not smoothed.
        """
        return self.task.loss(outputs, targets, self.settings.label_smoothing)

    def backward(
        self, mixtures: Sequence[Mixture], batch: Batch, distils: bool = False
    ) -> dict[str, Tensor]:
        """Computes the gradients of the weights: those of the mean loss over the ``mixtures``. The
        weights of a mixture get gradients too, if they require grad.

        With ``distils`` the first mixture is the teacher of the others: its softmax outputs are
        their targets. Returns the mean loss and the mean metric of the task, for the log.
        """
        images, labels = batch
        targets = labels
        figures: dict[str, Tensor] = {}
        for mixture in mixtures:
            with autocast(self.device, self.precision):
                outputs = self.supernet(images, mixture)
                loss = self.loss(outputs, targets) / len(mixtures)
            loss.backward()
            if distils and targets is labels:
                targets = outputs.detach().softmax(dim=1)
            metric, name = self.task.metric(outputs.detach(), labels), self.task.metric_name
            figures["loss"] = figures.get("loss", 0) + loss.detach()
            figures[name] = figures.get(name, 0) + metric / len(mixtures)
        return figures

    def step(self) -> None:
        """Updates the weights by their gradients, clears the gradients and advances the learning
        rate schedule.
        """
        if self.settings.clip:
            for parameters in trained_parts(self.supernet).clipped:
                nn.utils.clip_grad_norm_(parameters, self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        if self.average is not None:
            self.average.update(self.supernet, step=self.schedule.last_epoch)

    def judged(self, mixture: Mixture, batch: Batch) -> Tensor:
        """The loss of a mixture on a batch.

        The gradients and the BatchNorm statistics of the supernet stay unchanged. The loss is
        differentiable with respect to those weights of the mixture that require grad.
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
        """A function that takes some weights and returns the gradients of the loss with respect to
        them, for this mixture and batch.

        The BatchNorm statistics of the supernet stay unchanged.
        """
        images, labels = batch

        def gradients(weights: Sequence[nn.Parameter]) -> Sequence[Tensor | None]:
            with autocast(self.device, self.precision), statistics_kept(self.supernet):
                loss = self.loss(self.supernet(images, detached(mixture)), labels)
            return torch.autograd.grad(loss, list(weights), allow_unused=True)

        return gradients

    def state_dict(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in ("supernet", "optimizer", "schedule")}
        if self.average is not None:
            parts["average"] = self.average.module
        return {name: part.state_dict() for name, part in parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of :meth:`state_dict`; further keys are ignored."""
        for name in ("supernet", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
