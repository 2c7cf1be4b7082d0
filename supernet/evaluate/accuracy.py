"""Accuracy and loss over a fixed list of batches.

The network is a trained one, or a supernet that runs one mixture with its own weights. The latter
accuracy is called *inherited*.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from supernet.mixture import Mixture
from supernet.task import Task


@dataclass(frozen=True)
class Judgement:
    """The result of judging a network.

    ``accuracy`` is the metric of the task, from 0 to 1, and ``loss`` its mean loss. Both are means
    over ``images`` targets.
    """

    accuracy: float
    loss: float
    images: int

    @property
    def standard_error(self) -> float:
        """The standard error of the accuracy that comes from the random choice of the images."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.images)


def evaluate(
    network: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], task: Task
) -> Judgement:
    """Judges ``network`` by the metric and the loss of ``task``.

    The mode of the network (training or evaluation) is not changed; the caller sets it.
    """
    # The sums are taken on the host at the end, because not every device has float64.
    right, losses, count, targets = [], [], 0, 0
    with torch.no_grad():
        for images, labels in batches:
            outputs = network(images).float()
            found = task.right(outputs, labels)
            right.append(found.sum())
            count += found.numel()
            losses.append(task.loss(outputs, labels, reduction="sum"))
            targets += labels.numel()
    return Judgement(
        float(torch.stack(right).sum()) / count,
        float(torch.stack(losses).cpu().double().sum()) / targets,
        count,
    )


def recalibrate(supernet: nn.Module, mixture: Mixture, batches: Iterable[Tensor]) -> None:
    """Replaces the BatchNorm statistics by those of ``mixture`` over ``batches`` of images (Guo et
    al. 2020, section 3.3).

    After training, the statistics are averages over many mixtures and are right for none of them.
    The new ones are the plain mean over the batches. The statistics of options that this mixture
    does not run stay as they were.
    """
    norms = [module for module in supernet.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # in torch this means a cumulative mean
        assert norm.num_batches_tracked is not None  # all norms of a supernet track statistics
        norm.num_batches_tracked.zero_()  # so that the first batch replaces the old statistics
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
    """Judges a mixture with the weights of the supernet. For an architecture the mixture is its
    path.

    ``calibration`` are batches of training images, on which the BatchNorm statistics are
    recalibrated first; with ``None`` the statistics stay as training left them. Afterwards the
    supernet is as it was before.
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
