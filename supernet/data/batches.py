"""Streams of normalised batches: endless and augmented for training, once and in a fixed order for
evaluation.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supernet.data.augment import Augment
from supernet.data.dataset import Images
from supernet.errors import UserError


class Batches(Iterator[tuple[Tensor, Tensor]]):
    """An endless stream of training batches.

    ``next`` returns images (float32 [B, C, H, W]) and labels (int64 [B]) on ``device``. Every epoch
    visits the images in a new random order. Images at its end that do not fill a batch are dropped.
    If there are fewer images than ``batch_size``, each epoch is one batch of all of them.

    The state holds the order of the current epoch and the position in it. A stream continues with
    the same bits when this state and its two generators are restored. The caller owns the
    generators and saves their state.

    Args:
        images: the images to draw from.
        indices: which of the images to use, int64 [N].
        mean, std: mean and standard deviation of each channel, of pixels in 0 to 1, float [C].
        order: the host generator that shuffles. It is used once an epoch, for the first batch.
        noise: the generator of the augmentation, on ``device``. It is used when a batch is
            returned, never ahead of that.

    Raises:
        UserError: there are no images, or the augmentation does not fit their size; during the
            iteration: a file cannot be read.
    """

    def __init__(
        self,
        images: Images,
        indices: Tensor,
        batch_size: int,
        *,
        mean: Tensor,
        std: Tensor,
        augment: Augment | None = None,
        order: np.random.Generator,
        noise: torch.Generator,
        device: torch.device | str = "cpu",
    ):
        if not len(indices):
            raise UserError("there are no images to train on")
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size}: must be at least 1")
        self.augment = augment or Augment()
        self.augment.check(images.size)
        self.images, self.indices = images.to(device), indices.cpu()
        self.batch_size = min(batch_size, len(indices))
        self.normalise = Normalise(mean, std, device)
        self.order, self.noise = order, noise
        self._epoch: Tensor | None = None  # the order of this epoch, as positions in ``indices``
        self._position = 0  # how many batches of this epoch were returned
        self._stream: Iterator[tuple[Tensor, Tensor]] | None = None

    @property
    def steps_per_epoch(self) -> int:
        return len(self.indices) // self.batch_size

    def __next__(self) -> tuple[Tensor, Tensor]:
        if self._epoch is None or self._position == self.steps_per_epoch:
            self._epoch, self._position = (
                torch.from_numpy(self.order.permutation(len(self.indices))),
                0,
            )
            self._stream = None
        if self._stream is None:
            left = self._epoch[
                self._position * self.batch_size : self.steps_per_epoch * self.batch_size
            ]
            self._stream = self.images.stream(self.indices[left], self.batch_size)
        pixels, labels = next(self._stream)
        self._position += 1
        return self.augment.erase(
            self.normalise(self.augment.move(pixels, self.noise)), self.noise
        ), labels

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of :meth:`state_dict`.

        Raises:
            UserError: the state belongs to a stream of another number of images.
        """
        epoch = state["epoch"]
        if epoch is not None and len(epoch) != len(self.indices):
            raise UserError(
                f"the saved order is of {len(epoch)} images, but there are {len(self.indices)}; "
                "use the same data"
            )
        self._epoch, self._position, self._stream = epoch, state["position"], None


class Normalise:
    """Turns uint8 pixels into float32, with mean 0 and standard deviation 1 in each channel.

    Without a mean (a tensor of no numbers) the inputs are tokens, which stay as they are.
    """

    def __init__(self, mean: Tensor, std: Tensor, device: torch.device | str):
        self.mean = (255 * mean).view(-1, 1, 1).to(device)
        self.scale = 1 / (255 * std).view(-1, 1, 1).to(device)

    def __call__(self, pixels: Tensor) -> Tensor:
        if not len(self.mean):
            return pixels
        return pixels.float().sub_(self.mean).mul_(self.scale)


def calibration_indices(indices: Tensor, batch_size: int, batches: int) -> tuple[Tensor, int]:
    """The first of the images ``indices`` on which the statistics of BatchNorm are computed, and
    the size of their batches: at most ``batches`` batches.

    Every batch counts the same in these statistics. So a last batch of less than half the size is
    left out, and no batch is of one image, of which BatchNorm cannot compute a variance.
    """
    size = max(batch_size, 2)
    used = indices[: size * batches]
    rest = len(used) % size
    if 0 < rest < len(used) and (2 * rest < size or rest == 1):
        used = used[: len(used) - rest]
    return used, size


def evaluation_batches(
    images: Images,
    indices: Tensor,
    batch_size: int,
    mean: Tensor,
    std: Tensor,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the images ``indices`` once, in their order, as batches of images and labels.

    The images are normalised as by :class:`Batches`, but not augmented. The last batch may be
    smaller than ``batch_size``.

    Raises:
        UserError: a file cannot be read.
    """
    normalise = Normalise(mean, std, device)
    for pixels, labels in images.to(device).stream(indices, batch_size):
        yield normalise(pixels), labels
