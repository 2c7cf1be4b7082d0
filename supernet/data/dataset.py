"""Labelled images, in memory or in files, and data sets of training and test images."""

import hashlib
import os
import signal
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from supernet.data.pictures import read_picture
from supernet.errors import UserError
from supernet.files import checksum
from supernet.processes import worker_context
from supernet.task import Classification, Task


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
        """The same images; :meth:`stream` returns them on ``device``."""

    @abstractmethod
    def averaged(self, size: tuple[int, int]) -> Self:
        """The same images, averaged down to ``size`` (height, width)."""

    def fetch(self, indices: Tensor) -> Tensor:
        """The pixels of ``indices`` as one batch, uint8 [B, C, H, W]."""
        return next(self.stream(indices, max(1, len(indices))))[0]

    def fingerprint(self) -> str:
        """A checksum of the content: it differs if any pixel or label differs."""
        digest = hashlib.sha256(str((len(self), self.channels, *self.size)).encode())
        for pixels, labels in self.stream(torch.arange(len(self)), 512):
            digest.update(pixels.cpu().numpy().tobytes())
            digest.update(labels.cpu().numpy().tobytes())
        return digest.hexdigest()

    def called(self, index: int) -> str:
        """What messages call one image."""
        return f"number {index} (counted from 0)"


@dataclass(frozen=True, eq=False)
class TensorImages(Images):
    """Images that fit in memory: all pixels are one tensor, uint8 [N, C, H, W], on any device.

    ``files`` are the files that they were decoded from, if there are such files. With ``targets``
    [N, ...], a network learns these in the place of the labels, such as a class for each pixel. The
    labels then only say which images are alike, so that each split has some of each kind.
    """

    pixels: Tensor
    labels: Tensor
    files: "FileImages | None" = None
    targets: Tensor | None = None

    @property
    def channels(self) -> int:
        return self.pixels.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.pixels.shape[2:]
        return height, width

    def stream(self, indices: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        # All indices are copied at once. One copy for each batch would make the host wait for the
        # device in every step.
        targets = self.labels if self.targets is None else self.targets
        for part in indices.to(self.labels.device).split(batch_size):
            yield self.pixels[part], targets[part]

    def to(self, device: torch.device | str) -> Self:
        targets = None if self.targets is None else self.targets.to(device)
        return replace(
            self, pixels=self.pixels.to(device), labels=self.labels.to(device), targets=targets
        )

    def averaged(self, size: tuple[int, int]) -> Self:
        if self.targets is not None:
            raise UserError(
                "data.image_size: these images have targets of their own, which cannot be averaged "
                "down; leave it out, or let the source make them smaller"
            )
        return replace(
            self, pixels=torch.cat([area_average(part, size) for part in self.pixels.split(1024)])
        )

    def fingerprint(self) -> str:
        return super().fingerprint() if self.files is None else self.files.fingerprint()

    def called(self, index: int) -> str:
        return super().called(index) if self.files is None else self.files.called(index)


@dataclass(frozen=True)
class Decoder(Dataset[Tensor | UserError]):
    """Decodes image files into RGB pixels, uint8 [B, 3, side, side]; an item is a whole batch.

    The shorter side of an image is resized to ``side`` pixels, and the square in the centre is cut
    out. If ``size`` (height, width) is given, the images are then averaged down to that size.
    """

    side: int
    size: tuple[int, int] | None = None

    def decode(self, path: str) -> Tensor:
        picture = read_picture(path)
        square = ImageOps.fit(picture, (self.side, self.side), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(square)).permute(2, 0, 1)

    def __getitem__(self, paths: Sequence[str]) -> Tensor | UserError:
        try:
            pixels = torch.stack([self.decode(path) for path in paths])
            return pixels if self.size is None else area_average(pixels, self.size)
        except UserError as error:
            # If a worker raised it, its message would contain the traceback of the worker.
            return error


@dataclass(frozen=True, eq=False)
class FileImages(Images):
    """Images that stay in files and are decoded when they are needed.

    Worker processes decode the next batches ahead of time.

    Attributes:
        root: the folder in which all files are.
        paths: one file for each image.
        side: height and width, in pixels, to which every image is resized and cut.
        workers: the largest number of processes that decode. There are never more of them than
            cores. 0 decodes in this process.
        smaller: height and width to which the images are then averaged down, or ``None``.
    """

    paths: Sequence[str]
    labels: Tensor
    side: int
    workers: int = 0
    smaller: tuple[int, int] | None = None
    root: str = ""

    @property
    def channels(self) -> int:
        return 3

    @property
    def size(self) -> tuple[int, int]:
        return self.smaller or (self.side, self.side)

    def stream(self, indices: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See :meth:`Images.stream`.

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
            # Without a generator, the loader would take seeds for the workers from torch's global
            # generator. Nobody uses these seeds.
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

    def fingerprint(self) -> str:
        """A checksum of the names below the root, the sizes, the bytes and the labels of all files.
        It does not depend on the size to which images are decoded.
        """

        def entry(path: str) -> str:
            return f"{os.path.relpath(path, self.root or '/')}\0{file_size(path)}\0{checksum(path)}"

        digest = hashlib.sha256()
        with ThreadPoolExecutor(min(8, cores())) as pool:  # hashing does not hold Python's lock
            for line, label in zip(pool.map(entry, self.paths), self.labels.tolist(), strict=True):
                digest.update(f"{line}\0{label}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def called(self, index: int) -> str:
        return self.paths[index]


def area_average(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Images [N, C, H, W] averaged down to ``size`` (height, width), and rounded to uint8.

    Each new pixel is the mean over an area; the areas have nearly the same size.
    """
    return F.adaptive_avg_pool2d(pixels.float(), size).round().to(torch.uint8)


def file_size(path: str) -> int:
    """The size of a file in bytes; 0 if it is missing."""
    return Path(path).stat().st_size if Path(path).exists() else 0


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def leave_interrupts_to_the_parent(worker: int) -> None:
    """Makes a worker ignore Ctrl-C, which reaches all processes.

    The parent then finishes its step and writes a checkpoint, and needs its workers for that.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set: labelled training and test images.

    Attributes:
        name: the name of the data set in messages and reports.
        classes: the number of classes; labels are 0 to ``classes`` - 1.
        mean, std: mean and standard deviation of each channel of the training images, float32 [C],
            of pixels in 0 to 1. Without any numbers the inputs are tokens, not images.
        source_size: height and width before the images were averaged down; ``None`` if they were
            not.
        class_names: what each class is called. Without names of their own, their numbers.
        found: lines that say what the source found, for people.
        own_task: what is learnt, if it is not the classes of the images.
    """

    name: str
    classes: int
    train: Images
    test: Images
    mean: Tensor
    std: Tensor
    source_size: tuple[int, int] | None = None
    class_names: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    own_task: Task | None = None

    @classmethod
    def of(
        cls,
        name: str,
        train: Images,
        test: Images,
        class_names: Sequence[str] | None = None,
        found: Sequence[str] = (),
    ) -> Self:
        """A data set of these images, with the statistics of the training images.

        Raises:
            UserError: there are no training or test images, their sizes differ, a label is out of
                range, or a class has no training image.
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

        def also_called(label: int) -> str:
            return f" ({class_names[label]})" if class_names else ""

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
                f"{name}: no training image has label {missing}{also_called(missing)}, though "
                f"labels go up to {classes - 1}; close the gap"
            )
        if classes < 2:
            raise UserError(
                f"{name}: all training labels are 0{also_called(0)}; there must be at least two "
                "classes"
            )
        names = tuple(class_names or map(str, range(classes)))
        if len(names) != classes:
            raise UserError(
                f"{name}: there are {len(names)} names of classes, but labels go up to "
                f"{classes - 1}; give one name for each class"
            )
        mean, std = statistics(train)
        return cls(name, classes, train, test, mean, std, None, names, tuple(found))

    @property
    def fingerprint(self) -> str:
        """A checksum of the content: of both parts, and of the names of the classes."""
        parts = (self.train.fingerprint(), self.test.fingerprint(), *self.class_names)
        return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()

    @property
    def remarks(self) -> list[str]:
        """What a person should know: what was found, and one warning if images are constant."""
        if not len(self.mean):  # a text: it may repeat itself
            return list(self.found)
        constant = [
            words
            for part, images in (("training", self.train), ("test", self.test))
            for words in constants(part, images, self.class_names)
        ]
        return [*self.found, *([f"warning: {', and '.join(constant)}"] if constant else [])]

    @property
    def channels(self) -> int:
        return self.train.channels

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every image, in pixels."""
        return self.train.size

    @property
    def task(self) -> Task:
        """What is learnt. Without a task of its own it is to classify images of shape (channels,
        height, width).
        """
        if self.own_task is not None:
            return self.own_task
        return Classification((self.channels, *self.size), self.classes)

    def to(self, device: torch.device | str) -> Self:
        """The same data set, with its images on ``device``."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def averaged(self, side: int) -> Self:
        """The same data set, with its images averaged down.

        The shorter side then has ``side`` pixels, and the other side shrinks in proportion.

        Raises:
            UserError: the shorter side of the images has fewer than ``side`` pixels.
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
        smaller = type(self).of(
            self.name,
            self.train.averaged(size),
            self.test.averaged(size),
            self.class_names,
            self.found,
        )
        return replace(smaller, source_size=self.size)


def shape(images: Images) -> str:
    """The size and the number of channels of the images, as words for a message."""
    height, width = images.size
    plural = "s" if images.channels != 1 else ""
    return f"{height}×{width} with {images.channels} channel{plural}"


def constants(part: str, images: Images, names: Sequence[str], decoded: int = 512) -> list[str]:
    """Says which images of a ``part`` have one colour, and of which classes all images are equal.

    If the images are files, only ``decoded`` of them are looked at, evenly spread over all.
    """
    if images.size == (1, 1):  # such an image has one colour always
        return []
    indices, words = sample(images, decoded), []
    flat: list[int] = []
    of_class: dict[int, list[int]] = {}
    position = 0
    for pixels, _ in images.stream(indices, 512):
        labels = images.labels[indices.to(images.labels.device)][position : position + len(pixels)]
        plain = pixels.flatten(2).cpu()
        flat += (position + (plain.amin(2) == plain.amax(2)).all(1).nonzero()[:, 0]).tolist()
        for image, label in zip(plain.numpy(), labels.tolist(), strict=True):
            of_class.setdefault(label, []).append(zlib.crc32(image.tobytes()))
        position += len(labels)
    if flat:
        count = f"{len(flat)} of {len(indices)}"
        first = images.called(int(indices[flat[0]]))
        words.append(f"{count} {part} images have one colour only (the first: {first})")
    equal = [names[i] for i, sums in sorted(of_class.items()) if len(sums) > 1 == len(set(sums))]
    if equal:
        few = ", ".join(equal[:3]) + (", ..." if len(equal) > 3 else "")
        plural = "es" if len(equal) > 1 else ""
        words.append(f"all {part} images of the class{plural} {few} are equal")
    return words


def sample(images: Images, decoded: int) -> Tensor:
    """The indices of all images in memory, or of ``decoded`` files, evenly spread over all."""
    count = len(images) if isinstance(images, TensorImages) else min(len(images), decoded)
    return torch.linspace(0, len(images) - 1, count, dtype=torch.float64).round().long()


def statistics(images: Images, decoded: int = 2048) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, float32 [C], of pixels scaled to 0 to 1.

    If the images are files, only ``decoded`` of them are read, evenly spread over all. This is
    exact enough for normalising and takes only seconds.
    """
    indices = sample(images, decoded)
    total = squares = torch.zeros(images.channels, dtype=torch.float64)
    for pixels, _ in images.stream(indices, 512):
        pixels = pixels.cpu().double()
        total = total + pixels.sum((0, 2, 3))
        squares = squares + pixels.square().sum((0, 2, 3))
    pixels_each = len(indices) * images.size[0] * images.size[1]
    mean = total / pixels_each
    # The variance is at least 1, so that a constant channel causes no division by zero later.
    std = (squares / pixels_each - mean.square()).clamp(min=1).sqrt()
    return (mean / 255).float(), (std / 255).float()
