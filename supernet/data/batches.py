"""Streams of normalised batches: endless and augmented to train on, in fixed order to judge by."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supernet.data.augment import Augment
from supernet.data.dataset import Images
from supernet.errors import UserError


class Batches(Iterator[tuple[Tensor, Tensor]]):
    """An endless stream of training batches: ``next`` gives images (float32 [B, C, H, W]) and
    labels (int64 [B]) on ``device``.

    Every epoch visits the images in a new order and drops what does not fill a batch; fewer images
    than ``batch_size`` make one batch of all of them. The state holds the order of the running
    epoch and the place in it, so that a stream restored anywhere, together with its two generators,
    goes on bit for bit. The generators belong to the caller, who saves them.

    Args: images: what to draw from. indices: which of them, int64 [N]. mean, std: of the pixels in
        0 to 1, float [C]. order: the host generator that shuffles; asked once an epoch, when its
        first batch is. noise: the generator of the augmentation, on ``device``; asked for the batch
        that is given out, never ahead.

    Raises:
        UserError: there are no images, the augmentation does not fit their size; while iterating: a
        file cannot be read.
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
        self._epoch: Tensor | None = None  # the running epoch's order, as places in ``indices``
        self._position = 0  # batches of it that were given out
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
        """Goes to the place that ``state_dict`` described.

        Raises:
            UserError: the state is of another number of images.
        """
        epoch = state["epoch"]
        if epoch is not None and len(epoch) != len(self.indices):
            raise UserError(
                f"the saved order is of {len(epoch)} images, but there are {len(self.indices)}; "
                "use the same data"
            )
        self._epoch, self._position, self._stream = epoch, state["position"], None


class Normalise:
    """uint8 pixels to float32 with zero mean and unit standard deviation a channel."""

    def __init__(self, mean: Tensor, std: Tensor, device: torch.device | str):
        self.mean = (255 * mean).view(-1, 1, 1).to(device)
        self.scale = 1 / (255 * std).view(-1, 1, 1).to(device)

    def __call__(self, pixels: Tensor) -> Tensor:
        return pixels.float().sub_(self.mean).mul_(self.scale)


def evaluation_batches(
    images: Images,
    indices: Tensor,
    batch_size: int,
    mean: Tensor,
    std: Tensor,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """All of ``indices`` once, in their order, normalised and not augmented, as :class:`Batches`
    does; the last may be smaller.

    Raises:
        UserError: a file cannot be read.
    """
    normalise = Normalise(mean, std, device)
    for pixels, labels in images.to(device).stream(indices, batch_size):
        yield normalise(pixels), labels
