"""A *task* says what a network learns: the shape and the dtype of an input, the number of outputs,
the loss and the metric.

A data set has a task, and a space builds its networks for a task. No other module needs to know
what the inputs are.
"""

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F


class Task(ABC):
    """A problem that a network can learn.

    A data set has a task. The setting ``data.task`` gives another one, by the ``_target_`` of a
    dataclass that derives from this class. Its fields are its settings; its input shape and dtype
    come from the data (:meth:`of`).

    Attributes:
        input_shape: the shape of one input, without the batch dimension.
        dtype: the dtype of an input.
        outputs: how many numbers a network returns for one prediction, such as one for each class.
        metric_name: the name of :meth:`metric` in reports. A higher metric is better.
    """

    input_shape: tuple[int, ...]
    outputs: int
    dtype: torch.dtype
    metric_name: ClassVar[str]

    def of(self, data: "Task") -> Self:
        """This task for the inputs of another one, that of a data set: of the same shape and dtype.
        The number of outputs is that of the data set, unless this task has its own.
        """
        found = copy.copy(self)
        for name in ("input_shape", "dtype"):
            object.__setattr__(found, name, getattr(data, name))
        if not hasattr(self, "outputs"):
            object.__setattr__(found, "outputs", data.outputs)
        return found

    @property
    def output_shape(self) -> tuple[int, ...] | None:
        """The shape of what a network returns for one input; ``None`` if any shape is right."""
        return None

    def example(
        self,
        batch: int,
        device: torch.device | str = "cpu",
        noise: torch.Generator | None = None,
    ) -> Tensor:
        """Random inputs ``[batch, *input_shape]`` of the right dtype, drawn from the generator
        ``noise``. ``None`` means torch's global generator. By default they are normal.
        """
        return torch.randn(
            batch, *self.input_shape, generator=noise, device=device, dtype=self.dtype
        )

    @abstractmethod
    def loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> Tensor:
        """The loss of ``outputs``, a tensor of one number.

        ``reduction`` says whether it is the "mean" or the "sum" over the targets. ``targets`` are
        those of the data set, or probabilities of the shape of ``outputs``, as a teacher gives.
        ``label_smoothing`` does not apply to probabilities.
        """

    @abstractmethod
    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """For each target, whether it is predicted correctly: a tensor of bools, or of numbers from
        0 to 1. A metric of one's own is written here: its mean is what architectures are judged by.
        """

    def metric(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean of :meth:`right`, a tensor of one number, so that the host does not wait
        for the device.
        """
        return self.right(outputs, targets).float().mean()


class Classes(Task):
    """Predicts one of several classes, for an input or at each of its places: outputs [B, classes,
    ...], targets [B, ...], or probabilities of the shape of the outputs. The loss is the
    cross-entropy, and the metric is the share of the targets that are predicted.
    """

    metric_name: ClassVar[str] = "accuracy"

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


@dataclass(frozen=True)
class Classification(Classes):
    """Predicts which of ``outputs`` classes each input belongs to.

    The ``input_shape`` of images is (channels, height, width). The loss is the cross-entropy, and
    the metric is the accuracy. Targets are classes [B], or probabilities [B, outputs].
    """

    input_shape: tuple[int, ...]
    outputs: int
    dtype: torch.dtype = torch.float32

    @property
    def output_shape(self) -> tuple[int, ...] | None:
        return (self.outputs,)


@dataclass(frozen=True)
class NextToken(Classification):
    """Predicts, at each place of a text, which token follows.

    The ``input_shape`` is (context,), the number of tokens that are read at once. Inputs are tokens
    [B, context]; outputs [B, tokens, context] are logits of the tokens that follow, in the order
    that torch's cross-entropy has; targets are these tokens [B, context]. The loss is the
    cross-entropy, and the metric is the share of tokens that are predicted.
    """

    dtype: torch.dtype = torch.int64

    @property
    def output_shape(self) -> tuple[int, ...] | None:
        return (self.outputs, *self.input_shape)

    def example(
        self,
        batch: int,
        device: torch.device | str = "cpu",
        noise: torch.Generator | None = None,
    ) -> Tensor:
        shape = batch, *self.input_shape
        return torch.randint(self.outputs, shape, generator=noise, device=device, dtype=self.dtype)


@dataclass
class Segmentation(Classes):
    """Predicts the class of each pixel: outputs [B, classes, H, W], targets [B, H, W]. The loss is
    the cross-entropy; the metric is the share of pixels whose class is predicted.
    """

    classes: int

    def __post_init__(self) -> None:
        self.outputs = self.classes

    @property
    def output_shape(self) -> tuple[int, ...] | None:
        return (self.outputs, *self.input_shape[1:])
