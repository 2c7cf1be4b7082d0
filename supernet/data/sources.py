"""Data sources. Each is a dataclass of settings; its method ``load`` reads, checks and returns a
data set.

scikit-learn and torchvision take seconds to import in every process. Each is therefore imported
only inside the source that needs it.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from supernet.bounds import Bounded, Bounds, FewOrZero, Part, Pixels
from supernet.data.dataset import FileImages, ImageData, Images, TensorImages
from supernet.data.layout import described, found_in
from supernet.data.splits import split
from supernet.errors import UserError, unknown
from supernet.files import PATH, read_npz


@runtime_checkable
class Source(Protocol):
    """Where a data set comes from."""

    def load(self) -> ImageData:
        """Reads, checks and returns the data set.

        Raises:
            UserError: it cannot be read, or is not a data set.
        """
        ...


@dataclass(frozen=True)
class Digits:
    """The handwritten digits of scikit-learn: 1,797 images of 8×8 pixels with one channel.

    A fixed fifth of each class is the test set.
    """

    def load(self) -> ImageData:
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        train, test = held_out(torch.from_numpy(digits.target), 0.2)
        return ImageData.of(
            "digits",
            tensor_images(pixels[train], digits.target[train], "digits: training"),
            tensor_images(pixels[test], digits.target[test], "digits: test"),
        )


@dataclass(frozen=True)
class Torchvision:
    """A data set of torchvision.

    Attributes:
        dataset: cifar10, cifar100, mnist, fashion_mnist or svhn.
        root: the folder of its files; downloads go there too.
        download: whether missing files may be downloaded.
    """

    dataset: str
    root: str = field(default="~/.cache/supernet", metadata=PATH)
    download: bool = True

    def load(self) -> ImageData:
        """Reads the training and the test images; downloads them first if they are missing.

        Raises:
            UserError: there is no such data set, it cannot be downloaded, or its files are damaged.
        """
        if self.dataset not in KINDS:
            raise UserError(f"data: {unknown(self.dataset, list(KINDS))}")
        (train, names), (test, _) = (self._part(is_train) for is_train in (True, False))
        labels = int(train.labels.max()) + 1 if len(train) else 0
        return ImageData.of(self.dataset, train, test, names if len(names) == labels else None)

    def _part(self, train: bool) -> tuple[TensorImages, list[str]]:
        """The images of a part, and the names of the classes, if the publishers give names."""
        from torchvision import datasets

        name, files, address = KINDS[self.dataset]
        root = Path(self.root).expanduser()
        which: dict[str, Any] = (
            {"split": "train" if train else "test"} if name == "SVHN" else {"train": train}
        )
        try:
            part = getattr(datasets, name)(root, download=self.download, **which)
        # torchvision raises many types of errors: for the network, archives, pickles and tensors
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"cannot load {self.dataset} from {root} ({reason[0].rstrip(': ')}); put {files} "
                f"there by hand, from {address}, or remove what is damaged and allow the download "
                "(data.source.download=true)"
            ) from error
        where = f"{self.dataset}: {'training' if train else 'test'}"
        if name == "SVHN":
            images = tensor_images(part.data, part.labels, where, channels_first=True)
        else:
            pixels, labels = np.asarray(part.data), np.asarray(part.targets)
            images = tensor_images(pixels, labels, where, channels_first=False)
        return images, list(getattr(part, "classes", []))


# name of a data set -> (torchvision's class, the files to put under the root by hand, the address
# where they are published)
KINDS = {
    "cifar10": ("CIFAR10", "cifar-10-python.tar.gz", "https://www.cs.toronto.edu/~kriz/cifar.html"),
    "cifar100": (
        "CIFAR100",
        "cifar-100-python.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "mnist": (
        "MNIST",
        "the four *-ubyte.gz files, in MNIST/raw,",
        "https://ossci-datasets.s3.amazonaws.com/mnist",
    ),
    "fashion_mnist": (
        "FashionMNIST",
        "the four *-ubyte.gz files, in FashionMNIST/raw,",
        "https://github.com/zalandoresearch/fashion-mnist",
    ),
    "svhn": (
        "SVHN",
        "train_32x32.mat and test_32x32.mat",
        "http://ufldl.stanford.edu/housenumbers",
    ),
}


ARRAYS = ("x_train", "y_train", "x_test", "y_test")
CLASS_NAMES = "class_names"


@dataclass(frozen=True)
class Npz:
    """An npz file with the arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

    Images (x) are uint8 [N, H, W, C] or [N, H, W]. Labels (y) are whole numbers [N]. A list of text
    ``class_names`` may name the classes.

    Attributes:
        path: the path of the file.
        channels_first: whether images are [N, C, H, W]. Without it, images are [N, H, W, C], and
            are refused if their shape could be the other one.
    """

    path: str = field(metadata=PATH)
    channels_first: bool | None = None

    def load(self) -> ImageData:
        """Reads the file.

        Raises:
            UserError: the file is missing or damaged, or its arrays are not as described.
        """
        path = Path(self.path).expanduser()
        arrays = read_npz(path, f"data.source.path={path}", [*ARRAYS, CLASS_NAMES])
        if missing := [name for name in ARRAYS if name not in arrays]:
            raise UserError(without_array(path, missing[0]))
        train, test = (
            tensor_images(
                arrays[f"x_{part}"],
                arrays[f"y_{part}"],
                str(path),
                (f"x_{part}", f"y_{part}"),
                self.channels_first,
            )
            for part in ("train", "test")
        )
        names = arrays.get(CLASS_NAMES)
        if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
            raise UserError(
                f"{path}: {CLASS_NAMES} is {names.dtype} of shape {list(names.shape)}; must be a "
                "list of text"
            )
        return ImageData.of(str(path), train, test, None if names is None else names.tolist())


@dataclass(frozen=True)
class Folder(Bounded):
    """A folder of image files, with one folder of images for each class.

    The images are read as RGB. The shorter side is resized to ``size`` pixels, and the square in
    the centre is cut out. Classes are numbered in the order of their names.

    There are two layouts (:mod:`supernet.data.layout`). With a folder for each part, such as
    ``root/train`` and ``root/test``, these hold the class folders. Otherwise ``root`` holds the
    class folders. Without a folder of test images, a fixed share of the images of each class is the
    test set. Pictures look as a viewer shows them (:mod:`supernet.data.pictures`).

    Attributes:
        root: the folder.
        size: height and width in pixels.
        test_share: the share of the images that is the test set, if it has no folder of its own.
        workers: the largest number of processes that decode images. There are never more of them
            than cores.
        memory_limit: in bytes. If all decoded images fit into it, they are decoded once and kept in
            memory. Otherwise an image is decoded again whenever it is needed.
    """

    where = "data.source"

    root: str = field(metadata=PATH)
    size: Pixels = 224
    test_share: Part = 0.2
    workers: FewOrZero = 8
    memory_limit: Annotated[int, Bounds(least=0, most=2**63 - 1)] = 2 * 2**30

    def load(self) -> ImageData:
        """Lists the files, and decodes them if they fit in memory.

        Raises:
            UserError: a folder is missing or holds no images, or a file cannot be read.
        """
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise UserError(
                f"{root}: no such folder; set data.source.root to a folder with one folder of "
                "images a class"
            )
        found = found_in(root)
        train, test = found.train, found.test
        if test is None:
            labels = torch.tensor([label for _, label in train])
            first, rest = held_out(
                labels, self.test_share, found.classes, f"data.source.test_share={self.test_share}"
            )
            train, test = [train[i] for i in first.tolist()], [train[i] for i in rest.tolist()]
        keep = (len(train) + len(test)) * 3 * self.size**2 <= self.memory_limit
        line = described(found, len(train), len(test), {"data.source.test_share": self.test_share})
        return ImageData.of(
            str(root),
            self._images(train, keep),
            self._images(test, keep),
            found.classes,
            [f"{root}: {line}"],
        )

    def _images(self, files: list[tuple[str, int]], keep: bool) -> Images:
        labels = torch.tensor([label for _, label in files], dtype=torch.int64)
        images = FileImages(
            [path for path, _ in files], labels, self.size, self.workers, root=self.root
        )
        if not (keep and files):
            return images
        pixels = [pixels for pixels, _ in images.stream(torch.arange(len(images)), 64)]
        return TensorImages(torch.cat(pixels), labels, images)


def held_out(
    labels: Tensor, share: float, names: Sequence[str] | None = None, setting: str = ""
) -> tuple[Tensor, Tensor]:
    """Sorted indices of the training images and of the test images.

    A ``share`` of each class is the test set. It does not depend on the seed of the run. ``names``
    are those of the classes, and ``setting`` the one that gives the share, for messages.
    """
    parts = split(
        labels,
        1 - share,
        np.random.default_rng(0),
        parts=("training set", "test set"),
        names=names,
        setting=setting,
    )
    return parts.weights.sort().values, parts.architecture.sort().values


def without_array(path: Path, name: str) -> str:
    """The message for an npz file that lacks the array ``name``."""
    with np.load(path) as file:
        held = file.files
    others = {other.lower(): other for other in held if other not in ARRAYS}
    near = [others[other] for other in difflib.get_close_matches(name, others, n=1)]
    hint = f" (is {near[0]!r} meant?)" if near else ""
    return (
        f"{path}: no array {name!r}{hint}; it holds {', '.join(held) or 'nothing'}; save that one "
        "too"
    )


def tensor_images(
    x: np.ndarray,
    y: np.ndarray,
    where: str,
    names: tuple[str, str] = ("images", "labels"),
    channels_first: bool | None = False,
) -> TensorImages:
    """Checks arrays (images [N, H, W, C] or [N, H, W], labels [N]) and turns them into images.

    With ``channels_first``, images are [N, C, H, W]. If it is ``None``, they are [N, H, W, C], and
    are refused if their shape could be the other one.

    Raises:
        UserError: a type, a shape or a count is wrong. The message calls the arrays ``names`` and
            says that they are in ``where``.
    """
    images, labels = names
    if x.dtype != np.uint8:
        raise UserError(f"{where}: {images} is {x.dtype}; must be uint8 (0 to 255)")
    if x.ndim not in (3, 4):
        raise UserError(
            f"{where}: {images} has shape {list(x.shape)}; must be [N, H, W, C] or [N, H, W]"
        )
    if y.dtype.kind not in "iu":
        raise UserError(f"{where}: {labels} is {y.dtype}; must be whole numbers (an integer type)")
    if y.ndim != 1:
        raise UserError(
            f"{where}: {labels} has shape {list(y.shape)}; must be [N], one number an image"
        )
    if len(x) != len(y):
        raise UserError(
            f"{where}: {images} holds {len(x)} but {labels} holds {len(y)}; must be as many"
        )
    if x.ndim == 3:
        x, channels_first = x[..., None], False
    if channels_first is None:
        if not surely_channels_last(x.shape[1:]):
            raise UserError(
                f"{where}: {images} has shape {list(x.shape)}, which may be channels first; set "
                "data.source.channels_first=true if it is [N, C, H, W], or false if it is [N, H, "
                "W, C]"
            )
        channels_first = False
    return TensorImages(
        torch.from_numpy(np.ascontiguousarray(x if channels_first else x.transpose(0, 3, 1, 2))),
        torch.from_numpy(y.astype(np.int64)),
    )


def surely_channels_last(shape: tuple[int, ...]) -> bool:
    """Whether images of this shape, without N, can only be [H, W, C]. In the other order they would
    have a width of one to four pixels, or be strips four times as long as they are wide.
    """
    first, second, last = shape
    if 0 in shape or shape == (1, 1, 1):  # refused elsewhere; the same in both orders
        return True
    if last <= 4:
        return second != last and (first > 4 or first == second)
    return first == second and last > 4 * second
