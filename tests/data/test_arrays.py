"""npz files: damage of every kind is one line, and channels are never taken for rows of pixels."""

import io
import itertools
import zipfile

import numpy as np
import pytest

from supernet.data import Npz
from supernet.errors import UserError
from supernet.evaluate.published import read_published

CHANNELS = (1, 2, 3, 4, 5, 8, 13, 28, 32, 100)
SIZES = ((5, 5), (8, 8), (28, 28), (28, 30), (30, 28), (7, 13), (13, 7), (64, 5))


def arrays(images, classes=3):
    """Arrays with these training images [N, ...]; the test images are the first six of them."""
    labels = np.arange(len(images)) % classes
    return {"x_train": images, "y_train": labels, "x_test": images[:6], "y_test": labels[:6]}


def pixels(shape, count=6):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


def load(folder, arrays, **settings):
    np.savez(folder / "some.npz", **arrays)
    return Npz(str(folder / "some.npz"), **settings).load()


@pytest.mark.parametrize(("channels", "size"), list(itertools.product(CHANNELS, SIZES)))
def test_channels_first_is_never_taken_for_channels_last(channels, size, tmp_path):
    """Arrays in either order, of any number of channels: they are read as they are meant, or are
    refused with the setting that says what is meant. With the setting they are read. The sizes are
    those of pictures: a width of 3 is taken for three channels.
    """
    last = pixels((*size, channels))
    for order, images in ((False, last), (True, last.transpose(0, 3, 1, 2))):
        try:
            found = load(tmp_path, arrays(images))
        except UserError as error:
            assert "data.source.channels_first=true" in str(error) and "\n" not in str(error)
        else:
            assert np.array_equal(found.train.pixels.permute(0, 2, 3, 1).numpy(), last)
        found = load(tmp_path, arrays(images), channels_first=order)
        assert np.array_equal(found.train.pixels.permute(0, 2, 3, 1).numpy(), last)


@pytest.mark.parametrize("channels", (1, 3, 4))
@pytest.mark.parametrize("side", (8, 28, 64))
def test_common_shapes_need_no_setting(channels, side, tmp_path):
    assert load(tmp_path, arrays(pixels((side, side, channels)))).channels == channels


def test_names_of_classes_may_be_in_the_file(tmp_path):
    images = arrays(pixels((5, 5, 3)))
    assert load(tmp_path, images).class_names == ("0", "1", "2")
    named = load(tmp_path, images | {"class_names": np.array(["ant", "bee", "cat"])})
    assert named.class_names == ("ant", "bee", "cat")
    for names, words in (
        (np.array(["ant", "bee"]), "2 names of classes, but labels go up to 2"),
        (np.array([1, 2, 3]), "class_names is int64"),
    ):
        with pytest.raises(UserError, match=words):
            load(tmp_path, images | {"class_names": names})


# --- damage


def saved(arrays, compressed):
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def with_member(whole, name, content):
    """An npz file in which a member of the zip holds other bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(buffer, "w") as new:
        for member in old.namelist():
            if member.removesuffix(".npy") == name:
                new.writestr(*((member, content) if isinstance(content, bytes) else content))
            else:
                new.writestr(member, old.read(member))
    return buffer.getvalue()


def damaged(whole, name):
    """Yields damaged versions of an npz file; ``name`` is one of its arrays."""
    chance = np.random.default_rng(0)
    for length in {0, 1, 4, 30, 100, len(whole) // 3, len(whole) // 2, len(whole) - 30}:
        yield whole[:length]
    for place in {
        *range(100),
        *range(len(whole) - 100, len(whole)),
        *chance.integers(len(whole), size=50),
    }:
        changed = bytearray(whole)
        changed[place] ^= 1 << int(chance.integers(8))
        yield bytes(changed)
    head = b"\x93NUMPY\x01\x00"
    for content in (
        b"",
        b"some text",
        head,
        head + b"\x10\x00no dictionary   ",
        head + b"\x10\x00{'descr': 1}    ",
        head
        + b"\x50\x00"
        + b"{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999999,)}".ljust(80),
        head + b"\x50\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (3,)}".ljust(80),
        ("other.txt", b"text in the zip"),
        (name, b"text in the zip"),
    ):
        yield with_member(whole, name, content)
    yield whole + whole[:50]
    yield b"PK\x03\x04" + bytes(200)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_data_file_is_one_line_or_what_it_was(compressed, tmp_path):
    whole = arrays(pixels((5, 4, 3)))
    path = tmp_path / "some.npz"
    for content in damaged(saved(whole, compressed), "x_train"):
        path.write_bytes(content)
        try:
            found = Npz(str(path)).load()
        except UserError as error:
            assert "\n" not in str(error) and "some.npz" in str(error)
        else:
            assert np.array_equal(found.train.pixels.permute(0, 2, 3, 1).numpy(), whole["x_train"])


TABLE = {"arch": np.array(["a", "b", "c"]), "test_200": np.array([90.0, 91.5, 89.0])}


@pytest.mark.parametrize("setting", ["study.published", "rank.published"])
@pytest.mark.parametrize("array", TABLE)
def test_a_damaged_table_is_one_line_or_what_it_was(array, setting, tmp_path):
    path = tmp_path / "some.npz"
    for content in damaged(saved(TABLE, False), array):
        path.write_bytes(content)
        try:
            found = read_published(setting, path, "test_200")
        except UserError as error:
            assert "\n" not in str(error) and str(error).startswith(f"{setting}={path}: ")
        else:
            assert found.of(["c", "a"], "test_200") == [89.0, 90.0]


WRONG = {
    "no number": {"test_200": np.array([90.0, np.nan, 89.0])},
    "infinite": {"test_200": np.array([90.0, np.inf, 89.0])},
    "no number for one seed": {"test_200": np.array([[90.0, 1.0], [np.nan, 1.0], [8.0, 9.0]])},
    "twice": {"arch": np.array(["a", "b", "a"])},
    "too few": {"test_200": np.array([90.0])},
    "text": {"test_200": np.array(["high", "low", "high"])},
    "no names": {"arch": np.array(5)},
    "complex": {"test_200": np.array([90j, 1, 1])},
}


@pytest.mark.parametrize("member", WRONG)
def test_a_table_of_wrong_figures_is_one_line(member, tmp_path):
    path = tmp_path / "some.npz"
    np.savez(path, **(TABLE | WRONG[member]))
    with pytest.raises(UserError, match=r"^study\.published=") as caught:
        read_published("study.published", path, "test_200")
    assert "\n" not in str(caught.value)
