"""Accuracy and loss of a network, or of a subnet with inherited weights, over a fixed list of
inputs.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from supernet.mixture import Mixture
from supernet.task import Task


@dataclass(frozen=True)
class Judgement:
    """``accuracy``, the task's metric, in [0, 1], and its mean ``loss``, both over the targets of
    so many ``images``.
    """

    accuracy: float
    loss: float
    images: int

    @property
    def standard_error(self) -> float:
        """Of the accuracy, over the draw of the images."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.images)


def evaluate(
    network: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], task: Task
) -> Judgement:
    """Judges ``network`` by the metric and the loss of ``task``. It is to be in the mode that it is
    to be judged in.
    """
    right, losses, count = [], [], 0  # summed on the host at the end: not every device has float64
    with torch.no_grad():
        for images, labels in batches:
            outputs = network(images).float()
            right.append(task.right(outputs, labels).sum())
            losses.append(task.loss(outputs, labels, reduction="sum"))
            count += labels.numel()
    return Judgement(
        float(torch.stack(right).sum()) / count,
        float(torch.stack(losses).cpu().double().sum()) / count,
        count,
    )


def recalibrate(supernet: nn.Module, mixture: Mixture, batches: Iterable[Tensor]) -> None:
    """Sets the BatchNorm statistics to those of ``mixture`` over ``batches`` of images (Guo et al.
    2020, section 3.3).

    The statistics left by training are those of many paths at once and fit no single one. They are
    replaced by the plain mean over the batches; what this mixture does not run keeps what it had.
    """
    norms = [module for module in supernet.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # torch's word for a cumulative mean
        assert norm.num_batches_tracked is not None  # it tracks statistics
        norm.num_batches_tracked.zero_()  # so that the first batch replaces what was there
    mode = supernet.training
    supernet.train()
    try:
        with torch.no_grad():
            for images in batches:
                supernet(images, mixture)
    finally:
        supernet.train(mode)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def inherited_accuracy(
    supernet: nn.Module,
    mixture: Mixture,
    batches: Iterable[tuple[Tensor, Tensor]],
    task: Task,
    calibration: Iterable[Tensor] | None = None,
) -> Judgement:
    """Judges a mixture (of one architecture: a path) with the supernet's weights, and leaves the
    supernet as it was.

    ``calibration`` gives batches of training images to recalibrate BatchNorm on; ``None`` takes the
    statistics as they are.
    """
    before = {name: buffer.clone() for name, buffer in supernet.named_buffers()}
    mode = supernet.training
    try:
        if calibration is not None:
            recalibrate(supernet, mixture, calibration)
        supernet.eval()
        return evaluate(lambda images: supernet(images, mixture), batches, task)
    finally:
        supernet.train(mode)
        for name, buffer in supernet.named_buffers():
            buffer.copy_(before[name])
