"""Sources are compared with the libraries and formats that they read. For every kind of bad file
there is one line that names the problem.
"""

import gzip
import hashlib
import pickle
import socket
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_digits
from torchvision import datasets
from torchvision.transforms import functional as F

import supernet.data.sources as sources
from supernet.config import build
from supernet.data import (
    Augment,
    Digits,
    FileImages,
    Folder,
    ImageData,
    Npz,
    TensorImages,
    Torchvision,
)
from supernet.errors import UserError


def refused(source, *parts):
    """Loads the source, and checks that the error is one line which contains all of ``parts``."""
    with pytest.raises(UserError) as caught:
        source.load()
    line = str(caught.value)
    assert "\n" not in line
    for part in parts:
        assert part in line, line


def host():
    return np.random.default_rng(0)


# --- smaller images


def test_averaging_down_takes_the_mean_of_each_area():
    """If areas divide the image, the means are computed by hand. Otherwise the areas are those of
    torch: each reaches from the pixel in which it begins to the pixel in which it ends.
    """
    pixels = torch.tensor(
        [[0, 2, 10, 20], [4, 6, 30, 40], [1, 1, 255, 255], [1, 2, 255, 254]], dtype=torch.uint8
    )
    labels = torch.tensor([0, 1])
    images = TensorImages(torch.stack([pixels, 255 - pixels])[:, None], labels)
    small = images.averaged((2, 2))
    assert small.pixels[0, 0].tolist() == [[3, 25], [1, 255]] and small.pixels.dtype == torch.uint8
    assert torch.equal(small.labels, labels)
    odd = images.averaged((3, 3)).pixels[0, 0]
    edges = [(0, 2), (1, 3), (2, 4)]
    means = [[pixels[a:b, c:d].double().mean().round().item() for c, d in edges] for a, b in edges]
    assert odd.tolist() == means


def test_a_smaller_data_set_keeps_its_proportions_and_is_measured_anew():
    noise = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (6, 3, 8, 12), dtype=torch.uint8, generator=noise)
    part = TensorImages(pixels, torch.tensor([0, 1, 2, 0, 1, 2]))
    whole = ImageData.of("noise", part, part)
    small = whole.averaged(4)
    assert (small.size, small.source_size, whole.source_size) == ((4, 6), (8, 12), None)
    assert small.to("cpu").source_size == (8, 12)
    values = small.train.pixels.double() / 255
    torch.testing.assert_close(small.mean.double(), values.mean((0, 2, 3)))
    torch.testing.assert_close(small.std.double(), values.std((0, 2, 3), correction=0))
    assert (small.std < whole.std).all()
    with pytest.raises(
        UserError,
        match=r"data.image_size=9: the images of noise have 8×12 with 3 channels.*at most 8",
    ):
        whole.averaged(9)


def test_files_are_averaged_down_as_tensors_are(tmp_path):
    noise = np.random.default_rng(0)
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    for path in paths:
        Image.fromarray(noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    files, everything = FileImages(paths, torch.tensor([0, 1, 0]), 8), torch.arange(3)
    small = files.averaged((4, 4))
    assert small.size == (4, 4)
    assert torch.equal(
        small.fetch(everything),
        TensorImages(files.fetch(everything), files.labels).averaged((4, 4)).pixels,
    )


# --- digits


def sorted_pairs(pixels, labels):
    return sorted(
        (image.astype(np.uint8).tobytes(), int(label))
        for image, label in zip(pixels, labels, strict=True)
    )


def test_digits_are_those_of_sklearn_each_in_one_part():
    data, again = Digits().load(), Digits().load()
    assert (data.name, data.classes, data.channels, data.size) == ("digits", 10, 1, (8, 8))
    assert (len(data.train), len(data.test)) == (1438, 359)
    assert torch.equal(data.test.pixels, again.test.pixels)
    pixels = torch.cat([data.train.pixels, data.test.pixels]).squeeze(1).numpy()
    labels = torch.cat([data.train.labels, data.test.labels]).numpy()
    theirs = load_digits()
    assert pixels.max() == 255 and pixels.dtype == np.uint8
    assert sorted_pairs(np.rint(pixels * 16.0 / 255), labels) == sorted_pairs(
        theirs.images, theirs.target
    )
    expected = np.bincount(theirs.target) * 359 / 1797
    assert (np.abs(data.test.labels.bincount().numpy() - expected) < 1).all()


# --- npz


def arrays(train=12, test=6, shape=(5, 4, 3), classes=3):
    random = host()
    return {
        "x_train": random.integers(0, 256, (train, *shape), np.uint8),
        "y_train": np.arange(train) % classes,
        "x_test": random.integers(0, 256, (test, *shape), np.uint8),
        "y_test": np.arange(test) % classes,
    }


def saved(folder, **changes):
    path = folder / "some.npz"
    np.savez(
        path, **{key: value for key, value in (arrays() | changes).items() if value is not None}
    )
    return path


@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4)])
def test_an_npz_is_read_as_it_was_written(shape, tmp_path):
    written = arrays(shape=shape)
    data = Npz(str(saved(tmp_path, **written))).load()
    assert (data.classes, data.channels, data.size) == (3, 3 if len(shape) == 3 else 1, (5, 4))
    for part, images in (("train", data.train), ("test", data.test)):
        assert np.array_equal(
            images.pixels.permute(0, 2, 3, 1).numpy().reshape(-1, *shape), written[f"x_{part}"]
        )
        assert (
            np.array_equal(images.labels.numpy(), written[f"y_{part}"])
            and images.labels.dtype == torch.int64
        )
    assert data.to("cpu").train.fetch(torch.tensor([7, 2])).equal(data.train.pixels[[7, 2]])


BAD_ARRAYS = {
    "type of the images": (
        {"x_train": np.zeros((12, 5, 4, 3))},
        ["some.npz", "x_train is float64", "uint8"],
    ),
    "shape of the images": (
        {"x_test": np.zeros((6, 5), np.uint8)},
        ["x_test has shape [6, 5]", "[N, H, W, C]"],
    ),
    "channels first": (
        {"x_train": np.zeros((12, 3, 8, 8), np.uint8)},
        ["x_train has shape [12, 3, 8, 8]", "channels_first"],
    ),
    "type of the labels": ({"y_train": np.zeros(12)}, ["y_train is float64", "whole numbers"]),
    "shape of the labels": ({"y_train": np.zeros((12, 1), int)}, ["y_train has shape [12, 1]"]),
    "counts": ({"y_test": np.arange(5) % 3}, ["x_test holds 6 but y_test holds 5"]),
    "no test images": (
        {"x_test": np.zeros((0, 5, 4, 3), np.uint8), "y_test": np.zeros(0, int)},
        ["no test images"],
    ),
    "no training images": (
        {"x_train": np.zeros((0, 5, 4, 3), np.uint8), "y_train": np.zeros(0, int)},
        ["no training images"],
    ),
    "images of no size": (
        {"x_train": np.zeros((12, 0, 4, 3), np.uint8)},
        ["training images are empty"],
    ),
    "two sizes": (
        {"x_test": np.zeros((6, 4, 4, 3), np.uint8)},
        ["5×4 with 3 channels", "4×4 with 3 channels"],
    ),
    "label too large": (
        {"y_test": np.array([0, 1, 2, 3, 0, 9])},
        ["test label 3 ", "is 3", "0 to 2"],
    ),
    "label negative": (
        {"y_train": np.array([0, 1, 2, 0, -1, 2] * 2)},
        ["training label 4 ", "is -1"],
    ),
    "label missing": (
        {"y_train": np.array([0, 1, 3] * 4)},
        ["no training image has label 2", "go up to 3"],
    ),
    "one class": (
        {"y_train": np.zeros(12, int), "y_test": np.zeros(6, int)},
        ["at least two classes"],
    ),
    "key missing": (
        {"y_test": None, "y_tets": np.zeros(6, int)},
        ["no array 'y_test' (is 'y_tets' meant?)"],
    ),
    "key in capitals": (
        {"x_train": None, "X_TRAIN": np.zeros(6)},
        ["no array 'x_train' (is 'X_TRAIN' meant?)"],
    ),
    "pickled objects": (
        {"y_train": np.array([None] * 12)},
        ["some.npz: not a readable npz file, or damaged"],
    ),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_named(case, tmp_path):
    changes, parts = BAD_ARRAYS[case]
    refused(Npz(str(saved(tmp_path, **changes))), *parts)


def test_a_missing_damaged_or_other_file_is_named(tmp_path):
    refused(Npz(str(tmp_path / "gone.npz")), "gone.npz: no such file", "data.source.path")
    refused(Npz(str(tmp_path)), str(tmp_path), "not a readable npz file")
    whole = saved(tmp_path).read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 30):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        refused(Npz(str(tmp_path / "cut.npz")), "cut.npz: not a readable npz file, or damaged")
    spoilt = bytearray(whole)
    spoilt[300] ^= 255
    (tmp_path / "spoilt.npz").write_bytes(spoilt)
    refused(Npz(str(tmp_path / "spoilt.npz")), "spoilt.npz: not a readable npz file, or damaged")
    np.save(tmp_path / "single.npy", np.zeros(3))
    refused(Npz(str(tmp_path / "single.npy")), "single.npy: holds a single array")


def test_the_shared_cifar10_has_the_published_statistics(shared, tmp_path):
    path = tmp_path / "cifar.npz"
    subprocess.run(
        [sys.executable, shared / "join.py", path, "--train", "2000", "--test", "100"],
        check=True,
        capture_output=True,
    )
    data = Npz(str(path)).load()
    assert (data.classes, data.channels, data.size, len(data.train), len(data.test)) == (
        10,
        3,
        (32, 32),
        2000,
        100,
    )
    # Of all 50,000: .4914 .4822 .4465 and .2470 .2435 .2616; images differ in their mean colour by
    # about .12.
    np.testing.assert_allclose(data.mean, [0.4914, 0.4822, 0.4465], atol=4 * 0.12 / 2000**0.5)
    np.testing.assert_allclose(data.std, [0.2470, 0.2435, 0.2616], atol=0.01)


# --- folder


def painted(folder, classes=("ant", "bee"), count=5, size=(40, 30)):
    """Smooth random pictures in lossless files, with one folder for each class."""
    random = host()
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            small = Image.fromarray(random.integers(0, 256, (3, 4, 3), np.uint8))
            small.resize(size, Image.Resampling.BICUBIC).save(folder / name / f"{i}.png")
    return folder


def test_a_folder_is_read_as_pil_and_torchvision_would(tmp_path):
    painted(tmp_path / "train", size=(40, 30)), painted(tmp_path / "test", count=2, size=(24, 36))
    data = Folder(str(tmp_path), size=12).load()
    assert isinstance(data.train, TensorImages)
    assert (data.classes, data.channels, data.size, len(data.train), len(data.test)) == (
        2,
        3,
        (12, 12),
        10,
        4,
    )
    assert data.train.labels.tolist() == [0] * 5 + [1] * 5 and data.test.labels.tolist() == [
        0,
        0,
        1,
        1,
    ]
    for images, part in ((data.train, "train"), (data.test, "test")):
        files = [
            path for name in ("ant", "bee") for path in sorted((tmp_path / part / name).iterdir())
        ]
        for image, path in zip(images.pixels, files, strict=True):
            theirs = F.pil_to_tensor(F.center_crop(F.resize(Image.open(path), [12]), [12, 12]))
            assert (
                image.int() - theirs.int()
            ).abs().max() <= 2  # 8-bit rounding between its two passes
    grey = Image.fromarray(host().integers(0, 256, (12, 12), np.uint8))
    grey.save(tmp_path / "grey.png")
    image = FileImages([str(tmp_path / "grey.png")], torch.tensor([0]), 12).fetch(torch.tensor([0]))
    assert np.array_equal(
        image[0].permute(1, 2, 0).numpy(), np.asarray(grey)[:, :, None].repeat(3, 2)
    )


def test_what_does_not_fit_in_memory_stays_in_files_with_the_same_pixels(tmp_path):
    painted(tmp_path)
    needed = 10 * 3 * 12 * 12
    small = Folder(str(tmp_path), size=12, workers=0, memory_limit=needed).load()
    large = Folder(str(tmp_path), size=12, workers=0, memory_limit=needed - 1).load()
    assert (
        isinstance(small.train, TensorImages)
        and isinstance(large.train, FileImages)
        and isinstance(large.test, FileImages)
    )
    for ours, theirs in ((small.train, large.train), (small.test, large.test)):
        everything = torch.arange(len(ours))
        assert torch.equal(ours.fetch(everything), theirs.fetch(everything)) and torch.equal(
            ours.labels, theirs.labels
        )
    assert torch.equal(small.mean, large.mean)


def test_without_a_test_folder_a_fixed_share_of_each_class_is_the_test_set_and_val_stands_in(
    tmp_path,
):
    painted(tmp_path / "all", count=10)
    data = Folder(str(tmp_path / "all"), size=12, test_share=0.3, workers=0, memory_limit=0).load()
    assert data.train.labels.bincount().tolist() == [
        7,
        7,
    ] and data.test.labels.bincount().tolist() == [3, 3]
    assert len({*data.train.paths, *data.test.paths}) == 20
    assert (
        Folder(str(tmp_path / "all"), size=12, test_share=0.3, workers=0, memory_limit=0)
        .load()
        .test.paths
        == data.test.paths
    )
    painted(tmp_path / "two" / "train", count=4), painted(tmp_path / "two" / "val", count=2)
    data = Folder(str(tmp_path / "two"), size=12, workers=0, memory_limit=0).load()
    assert len(data.train) == 8 and all("/val/" in path for path in data.test.paths)


def test_bad_folders_are_named(tmp_path):
    refused(Folder(str(tmp_path / "gone")), "gone: no such folder", "data.source.root")
    (tmp_path / "empty").mkdir()
    refused(Folder(str(tmp_path / "empty")), "empty: there is no class folder")
    painted(tmp_path / "hole")
    (tmp_path / "hole" / "cat").mkdir()
    refused(Folder(str(tmp_path / "hole"), size=8), "hole", "cat")
    (
        painted(tmp_path / "more" / "train"),
        painted(tmp_path / "more" / "test", classes=("ant", "bees")),
    )
    refused(
        Folder(str(tmp_path / "more"), size=8),
        "bees: a class without training images",
        "did you mean 'bee'?",
    )
    painted(tmp_path / "few", count=1)
    refused(
        Folder(str(tmp_path / "few"), size=8),
        "the class ant has one image, but needs one in the training set and one in the test set",
    )
    painted(tmp_path / "spoilt")
    (tmp_path / "spoilt" / "bee" / "3.png").write_bytes(b"no picture")
    refused(Folder(str(tmp_path / "spoilt"), size=8), "3.png: cannot be read")
    for setting in ({"size": 0}, {"workers": -1}, {"test_share": 1.0}):
        with pytest.raises(UserError, match=f"data.source.{next(iter(setting))}="):
            Folder(str(tmp_path), **setting)


# --- torchvision, from files written here as their publishers write them


class OldDtype:
    """The published CIFAR files contain dtypes as numpy pickled them in 2009. To read one must not
    warn.
    """

    def __reduce__(self):
        return np.dtype, ("u1", 0, 1)


def cifar_files(folder, labels, **meta):
    random = host()
    folder.mkdir(parents=True)
    pixels = {}
    for name, keys in labels.items():
        pixels[name] = random.integers(0, 256, (6, 3072), np.uint8)
        content = {
            "data": pixels[name],
            "old": OldDtype(),
            **{key: [i % 3 for i in range(6)] for key in keys},
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    for name, content in meta.items():
        (folder / name.replace("_", ".")).write_bytes(pickle.dumps(content))
    return pixels


def unlock(monkeypatch, kind):
    """Removes torchvision's checksums, which are those of the real files."""
    for name in ("train_list", "test_list"):
        monkeypatch.setattr(kind, name, [[file, None] for file, _ in getattr(kind, name)])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": None})


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_cifar_is_read_from_its_pickles(dataset, tmp_path, monkeypatch):
    if dataset == "cifar10":
        unlock(monkeypatch, datasets.CIFAR10)
        names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
        pixels = cifar_files(
            tmp_path / "cifar-10-batches-py",
            {name: ["labels"] for name in names},
            batches_meta={"label_names": ["a", "b", "c"]},
        )
    else:
        unlock(monkeypatch, datasets.CIFAR100)
        names = ["train", "test"]
        pixels = cifar_files(
            tmp_path / "cifar-100-python",
            {name: ["fine_labels"] for name in names},
            meta={"fine_label_names": ["a", "b", "c"]},
        )
    data = Torchvision(dataset, str(tmp_path), download=False).load()
    assert (data.name, data.classes, data.channels, data.size) == (dataset, 3, 3, (32, 32))
    for images, expected in ((data.train, names[:-1]), (data.test, names[-1:])):
        flat = np.concatenate([pixels[name] for name in expected])
        assert np.array_equal(images.pixels.numpy(), flat.reshape(-1, 3, 32, 32))
        assert images.labels.tolist() == [i % 3 for i in range(6)] * len(expected)


def idx(values):
    """The bytes of a file in the IDX format of MNIST: magic number, sizes, data."""
    return (
        struct.pack(">HBB", 0, 8, values.ndim)
        + struct.pack(f">{values.ndim}I", *values.shape)
        + values.tobytes()
    )


@pytest.mark.parametrize(
    ("dataset", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_mnist_is_read_from_its_idx_files_and_a_damaged_one_is_one_line(dataset, folder, tmp_path):
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    pixels = {
        part: host().integers(0, 256, (count, 28, 28), np.uint8)
        for part, count in (("train", 9), ("t10k", 6))
    }
    for part, values in pixels.items():
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(values))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            idx(np.arange(len(values), dtype=np.uint8) % 3)
        )
    data = Torchvision(dataset, str(tmp_path), download=True).load()
    assert (data.classes, data.channels, data.size) == (3, 1, (28, 28))
    assert (
        np.array_equal(data.train.pixels[:, 0].numpy(), pixels["train"])
        and data.test.labels.tolist() == [0, 1, 2] * 2
    )
    (raw / "t10k-images-idx3-ubyte").write_bytes(idx(pixels["t10k"])[:-100])
    refused(
        Torchvision(dataset, str(tmp_path)),
        f"cannot load {dataset} from {tmp_path}",
        "remove what is damaged",
    )


def test_files_put_there_by_hand_as_the_line_says_are_unpacked(tmp_path, monkeypatch):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    resources = []
    for name, _ in datasets.MNIST.resources:
        values = np.zeros((4, 28, 28) if "images" in name else 4, np.uint8)
        values[1::2] = 1
        (raw / name).write_bytes(gzip.compress(idx(values)))
        resources.append((name, hashlib.md5((raw / name).read_bytes()).hexdigest()))
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    assert len(Torchvision("mnist", str(tmp_path)).load().train) == 4

    unlock(monkeypatch, datasets.CIFAR10)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    folder = tmp_path / "made" / "cifar-10-batches-py"
    cifar_files(folder, {name: ["labels"] for name in names}, batches_meta={"label_names": []})
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, folder.name)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    assert len(Torchvision("cifar10", str(tmp_path)).load().train) == 30


def test_svhn_is_read_from_its_mat_files(tmp_path, monkeypatch):
    pixels = {}
    for part, count in (("train", 6), ("test", 4)):
        pixels[part] = host().integers(0, 256, (32, 32, 3, count), np.uint8)
        savemat(
            tmp_path / f"{part}_32x32.mat",
            {"X": pixels[part], "y": np.array([[10], [1], [2]] * 2)[:count]},
        )
    unlocked = {
        part: [address, name, None] for part, (address, name, _) in datasets.SVHN.split_list.items()
    }
    monkeypatch.setattr(datasets.SVHN, "split_list", unlocked)
    data = Torchvision("svhn", str(tmp_path), download=False).load()
    assert data.train.labels.tolist() == [0, 1, 2] * 2, "the publishers write 10 for the digit 0"
    assert np.array_equal(data.train.pixels.numpy(), pixels["train"].transpose(3, 2, 0, 1))
    assert np.array_equal(data.test.pixels.numpy(), pixels["test"].transpose(3, 2, 0, 1))


@pytest.mark.parametrize("dataset", sources.KINDS)
def test_without_a_network_one_line_says_where_the_files_go(dataset, tmp_path, monkeypatch):
    def offline(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    _, files, address = sources.KINDS[dataset]
    for download in (True, False):
        refused(
            Torchvision(dataset, str(tmp_path), download=download),
            dataset,
            str(tmp_path),
            files,
            address,
        )


def test_a_misspelt_data_set_is_named_with_the_nearest():
    refused(Torchvision("cifar01"), "unknown 'cifar01'; did you mean 'cifar10'?")


# --- settings

CONF = Path(__file__).parents[2] / "conf" / "data"


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_yaml_describes_a_source_and_two_augmentations(path, monkeypatch):
    monkeypatch.setenv("SUPERNET_DATA", "/somewhere")
    settings = OmegaConf.load(path)
    assert settings.name == path.stem
    wanted = {"npz": "path", "folder": "root", "text": "path"}.get(path.stem)
    if wanted:
        with pytest.raises(UserError, match=rf"^data\.source\.{wanted}: "):
            build(OmegaConf.to_container(settings.source), "data.source")
        settings.source[wanted] = "given"
    source = build(settings.source, "data.source")
    assert getattr(source, "root", "given") in ("/somewhere", "given")
    augment, search_augment = (build(settings[key], key) for key in ("augment", "search_augment"))
    assert isinstance(augment, Augment) and search_augment.cutout == 0
    assert 0 < settings.architecture_share < 1 and settings.train_limit is None


def test_the_yaml_of_digits_fits_the_digits():
    data: ImageData = Digits().load()
    build(OmegaConf.load(CONF / "digits.yaml").augment, "augment").check(data.size)
