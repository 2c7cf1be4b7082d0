"""What is learnt: the form of an input, the number of outputs, the loss and the metric.

Data yields a task, and a space builds its networks for one. Nothing else needs to know what the
inputs are.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F


class Task(ABC):
    """A kind of problem that a network can learn.

    Attributes:
        input_shape: shape of one input, without the batch.
        dtype: type of an input.
        outputs: how many numbers a network gives for one prediction, such as the classes.
        metric_name: what :meth:`metric` is called in reports; higher is better.
    """

    input_shape: tuple[int, ...]
    outputs: int
    dtype: torch.dtype
    metric_name: ClassVar[str]

    @abstractmethod
    def example(
        self,
        batch: int,
        device: torch.device | str = "cpu",
        noise: torch.Generator | None = None,
    ) -> Tensor:
        """``batch`` random inputs ``[batch, *input_shape]`` of the right type, drawn from ``noise``
        (``None`` is torch's own generator).
        """

    @abstractmethod
    def loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> Tensor:
        """The loss of ``outputs``, as one number; ``reduction`` is "mean" or "sum" over the
        targets.

        ``targets`` are what the data says, or probabilities of the shape of ``outputs``, such as a
        teacher gives; these are not smoothed.
        """

    @abstractmethod
    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Which of the targets are predicted rightly: a bool for each."""

    def metric(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The share of right answers, as a tensor so that nobody waits for the device."""
        return self.right(outputs, targets).float().mean()


@dataclass(frozen=True)
class Classification(Task):
    """One of ``outputs`` classes for each input of shape ``input_shape``: images are (channels,
    height, width).

    The loss is the cross-entropy. Targets are the classes [B], or probabilities [B, outputs].
    """

    input_shape: tuple[int, ...]
    outputs: int
    dtype: torch.dtype = torch.float32

    metric_name: ClassVar[str] = "accuracy"

    def example(
        self,
        batch: int,
        device: torch.device | str = "cpu",
        noise: torch.Generator | None = None,
    ) -> Tensor:
        return torch.randn(
            batch, *self.input_shape, generator=noise, device=device, dtype=self.dtype
        )

    def loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> Tensor:
        smoothing = 0.0 if targets.is_floating_point() else label_smoothing
        return F.cross_entropy(outputs, targets, label_smoothing=smoothing, reduction=reduction)

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.argmax(dim=1) == targets
