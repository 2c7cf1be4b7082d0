"""Data sources. Each is a dataclass of settings; its method ``load`` reads, checks and returns a
data set.

scikit-learn and torchvision take seconds to import in every process. Each is therefore imported
only inside the source that needs it.
"""

import difflib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from supernet.bounds import Bounded, Bounds, FewOrZero, Part, Pixels
from supernet.data.dataset import FileImages, ImageData, Images, TensorImages
from supernet.data.splits import split
from supernet.errors import UserError, unknown


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
    root: str = "~/.cache/supernet"
    download: bool = True

    def load(self) -> ImageData:
        """Reads the training and the test images; downloads them first if they are missing.

        Raises:
            UserError: there is no such data set, it cannot be downloaded, or its files are damaged.
        """
        if self.dataset not in KINDS:
            raise UserError(f"data: {unknown(self.dataset, list(KINDS))}")
        train, test = (
            tensor_images(*self._part(is_train), f"{self.dataset}: {part}")
            for part, is_train in (("training", True), ("test", False))
        )
        return ImageData.of(self.dataset, train, test)

    def _part(self, train: bool) -> tuple[np.ndarray, np.ndarray]:
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
        if name == "SVHN":
            return part.data.transpose(0, 2, 3, 1), part.labels
        return np.asarray(part.data), np.asarray(part.targets)


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


@dataclass(frozen=True)
class Npz:
    """An npz file with the arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

    Images (x) are uint8 [N, H, W, C] or [N, H, W]. Labels (y) are whole numbers [N].

    Attributes:
        path: the path of the file.
    """

    path: str

    def load(self) -> ImageData:
        """Reads the file.

        Raises:
            UserError: the file is missing or damaged, or its arrays are not as described.
        """
        path = Path(self.path).expanduser()
        try:
            with open(path, "rb") as handle:  # numpy itself would not close a damaged file
                file = np.load(handle, allow_pickle=False)
                if not isinstance(file, np.lib.npyio.NpzFile):
                    raise UserError(
                        f"{path}: holds a single array; save {', '.join(ARRAYS)} with numpy.savez"
                    )
                arrays = {key: array_of(file, key, path) for key in ARRAYS}
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file; set data.source.path to an npz file") from error
        except UserError:
            raise
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"{path}: not a readable npz file, or damaged ({reason}); write it anew with "
                "numpy.savez"
            ) from error
        train, test = (
            tensor_images(
                arrays[f"x_{part}"], arrays[f"y_{part}"], str(path), (f"x_{part}", f"y_{part}")
            )
            for part in ("train", "test")
        )
        return ImageData.of(str(path), train, test)


@dataclass(frozen=True)
class Folder(Bounded):
    """A folder of image files, with one folder of images for each class.

    The images are read as RGB. The shorter side is resized to ``size`` pixels, and the square in
    the centre is cut out. Classes are numbered in the order of their names.

    There are two layouts. If the folder ``root/train`` exists, it holds the class folders of the
    training images; those of the test images are in ``root/test`` or else in ``root/val``.
    Otherwise ``root`` holds the class folders. Without a folder of test images, a fixed share of
    the images of each class is the test set.

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

    root: str
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
        own_test = next((root / part for part in ("test", "val") if (root / part).is_dir()), None)
        files, classes = self._list(root / "train" if (root / "train").is_dir() else root)
        if (root / "train").is_dir() and own_test is not None:
            test_files, _ = self._list(own_test, classes)
        else:
            train, test = held_out(torch.tensor([label for _, label in files]), self.test_share)
            test_files = [files[i] for i in test.tolist()]
            files = [files[i] for i in train.tolist()]
        keep = (len(files) + len(test_files)) * 3 * self.size**2 <= self.memory_limit
        return ImageData.of(str(root), self._images(files, keep), self._images(test_files, keep))

    def _list(
        self, folder: Path, known: dict[str, int] | None = None
    ) -> tuple[list[tuple[str, int]], dict[str, int]]:
        from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

        try:
            names, classes = find_classes(str(folder))
            for name in names:
                if known is not None and name not in known:
                    raise UserError(
                        f"{folder / name}: a class without training images "
                        f"({unknown(name, list(known))})"
                    )
            classes = known or classes
            return make_dataset(
                folder, classes, IMG_EXTENSIONS, allow_empty=known is not None
            ), classes
        except FileNotFoundError as error:
            raise UserError(
                f"{folder}: {error}; put the images of each class into one folder there"
            ) from error

    def _images(self, files: list[tuple[str, int]], keep: bool) -> Images:
        labels = torch.tensor([label for _, label in files], dtype=torch.int64)
        images = FileImages([path for path, _ in files], labels, self.size, self.workers)
        if not (keep and files):
            return images
        pixels = [pixels for pixels, _ in images.stream(torch.arange(len(images)), 64)]
        return TensorImages(torch.cat(pixels), labels)


def held_out(labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Sorted indices of the training images and of the test images.

    A ``share`` of each class is the test set. It does not depend on the seed of the run.
    """
    parts = split(labels, 1 - share, np.random.default_rng(0), parts=("training set", "test set"))
    return parts.weights.sort().values, parts.architecture.sort().values


def array_of(file: np.lib.npyio.NpzFile, key: str, path: Path) -> np.ndarray:
    """The array ``key`` of an npz file.

    Raises:
        UserError: there is no such array.
    """
    if key not in file:
        others = {name.lower(): name for name in file.files if name not in ARRAYS}
        near = [others[name] for name in difflib.get_close_matches(key, others, n=1)]
        hint = f" (is {near[0]!r} meant?)" if near else ""
        raise UserError(
            f"{path}: no array {key!r}{hint}; it holds {', '.join(file.files) or 'nothing'}; save "
            "that one too"
        )
    return file[key]


def tensor_images(
    x: np.ndarray, y: np.ndarray, where: str, names: tuple[str, str] = ("images", "labels")
) -> TensorImages:
    """Checks arrays (images [N, H, W, C] or [N, H, W], labels [N]) and turns them into images.

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
        x = x[..., None]
    if x.shape[3] > 4 >= x.shape[1]:
        raise UserError(
            f"{where}: {images} has shape {list(x.shape)}, channels first; transpose it to [N, H, "
            "W, C]"
        )
    return TensorImages(
        torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))),
        torch.from_numpy(y.astype(np.int64)),
    )
