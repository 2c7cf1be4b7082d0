"""Labelled images, in memory or in files, and a data set made of two such collections."""

import multiprocessing
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from supernet.errors import UserError
from supernet.task import Classification


class Images(ABC):
    """Labelled images of one size. Subclasses differ in where they get the pixels from.

    Attributes:
        labels: the class of each image, int64 [N], on the device.
    """

    labels: Tensor

    @property
    @abstractmethod
    def channels(self) -> int:
        """The number of channels of every image."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Height and width of every image, in pixels."""

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def stream(self, indices: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields pixels (uint8 [B, C, H, W]) and labels (int64 [B]) of the images ``indices``.

        They come in the order of ``indices``, ``batch_size`` at a time, on the device.
        """

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """The same images, given out on ``device``."""

    @abstractmethod
    def averaged(self, size: tuple[int, int]) -> Self:
        """The same images, averaged down to ``size`` (height, width)."""

    def fetch(self, indices: Tensor) -> Tensor:
        """The pixels of ``indices`` as one batch, uint8 [B, C, H, W]."""
        return next(self.stream(indices, max(1, len(indices))))[0]


@dataclass(frozen=True, eq=False)
class TensorImages(Images):
    """A small set: all pixels in one tensor (uint8 [N, C, H, W]), also on an accelerator."""

    pixels: Tensor
    labels: Tensor

    @property
    def channels(self) -> int:
        return self.pixels.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.pixels.shape[2:]
        return height, width

    def stream(self, indices: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        # All indices travel at once: a copy a batch would make the host wait for the device in
        # every step.
        for part in indices.to(self.labels.device).split(batch_size):
            yield self.pixels[part], self.labels[part]

    def to(self, device: torch.device | str) -> Self:
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def averaged(self, size: tuple[int, int]) -> Self:
        return replace(
            self, pixels=torch.cat([area_average(part, size) for part in self.pixels.split(1024)])
        )


@dataclass(frozen=True)
class Decoder(Dataset[Tensor | UserError]):
    """Image files as RGB tensors [3, side, side]; one item of this dataset is a whole batch.

    The shorter side of an image is resized to ``side`` pixels and the centre is cut out. With
    ``size`` (height, width) the images are then averaged down to that.
    """

    side: int
    size: tuple[int, int] | None = None

    def decode(self, path: str) -> Tensor:
        try:
            with Image.open(path) as image:
                square = ImageOps.fit(
                    image.convert("RGB"), (self.side, self.side), Image.Resampling.BILINEAR
                )
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = (
                "missing" if isinstance(error, FileNotFoundError) else "not an image, or damaged"
            )
            raise UserError(
                f"{path}: cannot be read ({reason}); replace it or remove it"
            ) from error
        return torch.from_numpy(np.array(square)).permute(2, 0, 1)

    def __getitem__(self, paths: Sequence[str]) -> Tensor | UserError:
        try:
            pixels = torch.stack([self.decode(path) for path in paths])
            return pixels if self.size is None else area_average(pixels, self.size)
        except UserError as error:
            # raised in a worker, it would arrive with the worker's traceback inside its text
            return error


@dataclass(frozen=True, eq=False)
class FileImages(Images):
    """A large set: files that are decoded when they are needed, ahead of time in worker processes.

    Attributes:
        paths: one file for each image.
        side: height and width, in pixels, that every image is brought to.
        workers: how many processes decode, at most, and never more than there are cores; 0 decodes
            in this process.
        smaller: height and width that the images are averaged down to after that.
    """

    paths: Sequence[str]
    labels: Tensor
    side: int
    workers: int = 0
    smaller: tuple[int, int] | None = None

    @property
    def channels(self) -> int:
        return 3

    @property
    def size(self) -> tuple[int, int]:
        return self.smaller or (self.side, self.side)

    def stream(self, indices: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As for all images.

        Raises:
            UserError: a file cannot be read.
        """
        batches = [
            [self.paths[i] for i in part] for part in map(Tensor.tolist, indices.split(batch_size))
        ]
        workers = min(self.workers, cores(), len(batches))
        loader = DataLoader(
            Decoder(self.side, self.smaller),
            sampler=batches,
            batch_size=None,
            num_workers=workers,
            multiprocessing_context=worker_context() if workers else None,
            worker_init_fn=leave_interrupts_to_the_parent,
            # else it draws the workers' seeds, which nobody uses, from torch's global one
            generator=torch.Generator(),
        )
        labels = self.labels[indices.to(self.labels.device)].split(batch_size)
        for pixels, part in zip(loader, labels, strict=True):
            if isinstance(pixels, UserError):
                raise pixels
            yield pixels.to(part.device, non_blocking=True), part

    def to(self, device: torch.device | str) -> Self:
        return replace(self, labels=self.labels.to(device))

    def averaged(self, size: tuple[int, int]) -> Self:
        return replace(self, smaller=size)


def area_average(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Images [N, C, H, W] averaged down to ``size`` (height, width) over areas of nearly equal
    size, and rounded to uint8.
    """
    return F.adaptive_avg_pool2d(pixels.float(), size).round().to(torch.uint8)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_context() -> multiprocessing.context.BaseContext:
    """How workers start: never by a fork of this process, whose threads would not survive it."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, not once a worker
    return context


def leave_interrupts_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches all processes; the parent finishes its step and writes a checkpoint, and needs
    its workers for that.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set: labelled training and test images.

    Attributes:
        name: what errors and reports call it.
        classes: labels are 0 to ``classes`` - 1.
        mean, std: of the training images' channels, float32 [C], of pixels in 0 to 1.
        source_size: height and width before the images were averaged down, if they were.
    """

    name: str
    classes: int
    train: Images
    test: Images
    mean: Tensor
    std: Tensor
    source_size: tuple[int, int] | None = None

    @classmethod
    def of(cls, name: str, train: Images, test: Images) -> Self:
        """Checks the two parts against each other and measures the training images.

        Raises:
            UserError: a part is empty, sizes differ, or a label is out of range.
        """
        for part, images in (("training", train), ("test", test)):
            if not len(images):
                raise UserError(f"{name}: there are no {part} images")
            if 0 in images.size or not images.channels:
                raise UserError(f"{name}: the {part} images are empty ({shape(images)})")
        if shape(train) != shape(test):
            raise UserError(
                f"{name}: training images are {shape(train)} but test images {shape(test)}; make "
                "them equal"
            )
        present = train.labels.unique()
        classes = int(present[-1]) + 1
        for part, labels in (("training", train.labels), ("test", test.labels)):
            wrong = ((labels < 0) | (labels >= classes)).nonzero()
            if len(wrong):
                index = int(wrong[0])
                expected = (
                    "0 or more"
                    if part == "training"
                    else f"0 to {classes - 1} as in the training images"
                )
                raise UserError(
                    f"{name}: {part} label {index} (counted from 0) is {int(labels[index])}; must "
                    f"be {expected}"
                )
        if len(present) < classes:
            missing = next(i for i, label in enumerate(present.tolist()) if i != label)
            raise UserError(
                f"{name}: no training image has label {missing}, though labels go up to "
                f"{classes - 1}; close the gap"
            )
        if classes < 2:
            raise UserError(
                f"{name}: all training labels are 0; there must be at least two classes"
            )
        mean, std = statistics(train)
        return cls(name, classes, train, test, mean, std)

    @property
    def channels(self) -> int:
        return self.train.channels

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every image, in pixels."""
        return self.train.size

    @property
    def task(self) -> Classification:
        """What is learnt: the class of an image (channels, height, width)."""
        return Classification((self.channels, *self.size), self.classes)

    def to(self, device: torch.device | str) -> Self:
        """The same data set, its batches given out on ``device``."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def averaged(self, side: int) -> Self:
        """The same data set with smaller images: averaged down until the shorter side has ``side``
        pixels, the other side in proportion.

        Raises:
            UserError: the images are smaller than that.
        """
        short = min(self.size)
        if side > short:
            raise UserError(
                f"data.image_size={side}: the images of {self.name} have {shape(self.train)}, and "
                f"are only ever made smaller; choose at most {short}, or null to leave them as "
                "they are"
            )
        height, width = self.size
        size = round(height * side / short), round(width * side / short)
        smaller = type(self).of(self.name, self.train.averaged(size), self.test.averaged(size))
        return replace(smaller, source_size=self.size)


def shape(images: Images) -> str:
    """The images' size and channels, in words for a message."""
    height, width = images.size
    plural = "s" if images.channels != 1 else ""
    return f"{height}×{width} with {images.channels} channel{plural}"


def statistics(images: Images, decoded: int = 2048) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, float32 [C], of pixels scaled to 0..1.

    Of images in files only ``decoded`` of them, evenly spread, are read: that is exact enough for
    normalising, and takes seconds.
    """
    count = len(images) if isinstance(images, TensorImages) else min(len(images), decoded)
    indices = torch.linspace(0, len(images) - 1, count, dtype=torch.float64).round().long()
    total = squares = torch.zeros(images.channels, dtype=torch.float64)
    for pixels, _ in images.stream(indices, 512):
        pixels = pixels.cpu().double()
        total = total + pixels.sum((0, 2, 3))
        squares = squares + pixels.square().sum((0, 2, 3))
    pixels_each = count * images.size[0] * images.size[1]
    mean = total / pixels_each
    # at least one: a channel that never varies must not lead to a division by zero
    std = (squares / pixels_each - mean.square()).clamp(min=1).sqrt()
    return (mean / 255).float(), (std / 255).float()
