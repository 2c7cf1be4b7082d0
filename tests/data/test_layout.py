"""Layouts of folders of pictures: every way to call the parts, to nest them and to leave things
beside them. Each member is made, and what is found is compared with what was put there.
"""

import itertools

import numpy as np
import pytest
from PIL import Image

from supernet.data import Folder
from supernet.errors import UserError


@pytest.fixture
def picture():
    """Writes different small pictures, one at each call."""
    chance = np.random.default_rng(0)

    def write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (4, 4, 3), np.uint8)).save(path)

    return write


def painted(folder, picture, count, classes=("ant", "bee")):
    for name, number in itertools.product(classes, range(count)):
        picture(folder / name / f"{number}.png")


def loaded(root, **settings):
    return Folder(str(root), size=4, workers=0, **{"memory_limit": 0, **settings}).load()


def paths(images, root):
    return [str(path).removeprefix(f"{root}/") for path in images.paths]


def refused(root, *words):
    with pytest.raises(UserError) as caught:
        loaded(root)
    line = str(caught.value)
    assert "\n" not in line and str(root) in line
    for word in words:
        assert word in line, line


CASES = {"lower": str.lower, "capital": str.capitalize, "upper": str.upper}
TRAIN_TEST = [
    *itertools.product(("train", "training"), ("test", "testing", "val", "valid", "validation")),
    ("seg_train", "seg_test"),
    ("training_set", "test_set"),
    ("train-images", "test-images"),
    ("data.train", "data.val"),
    ("trainset", "testset"),
]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("train", "test"), TRAIN_TEST)
def test_parts_are_known_by_their_names(train, test, case, nested, tmp_path, picture):
    train, test = CASES[case](train), CASES[case](test)
    for part, count in ((train, 3), (test, 2)):
        painted(tmp_path / part / part if nested else tmp_path / part, picture, count)
    data = loaded(tmp_path)
    assert data.class_names == ("ant", "bee")
    assert {path.split("/")[0] for path in paths(data.train, tmp_path)} == {train}
    assert {path.split("/")[0] for path in paths(data.test, tmp_path)} == {test}
    assert (len(data.train), len(data.test)) == (6, 4)
    (line,) = data.found
    for word in (f"{train}/", f"{test}/", "2 classes (ant, bee)", "6 training and 4 test images"):
        assert word in line
    assert "left out" not in line


NEVER_DATA = {
    "a folder of Jupyter": ".ipynb_checkpoints/0-checkpoint.png",
    "a folder of Jupyter in a class": "ant/.ipynb_checkpoints/0-checkpoint.png",
    "the trash": ".Trash-1000/files/0.png",
    "what macOS adds to archives": "__MACOSX/ant/0.png",
    "the same in a class": "ant/__MACOSX/0.png",
    "a fork of a file": "ant/._0.png",
    "a hidden picture": "bee/.hidden.png",
}


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("entry", NEVER_DATA)
def test_hidden_entries_are_never_data(entry, parts, tmp_path, picture):
    folders = [tmp_path / "train", tmp_path / "test"] if parts else [tmp_path]
    for folder in folders:
        painted(folder, picture, 4)
        picture(folder / NEVER_DATA[entry])
    data = loaded(tmp_path)
    assert data.class_names == ("ant", "bee") and len(data.train) + len(data.test) == 8 * len(
        folders
    )
    (line,) = data.found
    assert f"left out: {len(folders)} hidden" in line


def test_what_is_left_out_is_said_with_its_reason(tmp_path, picture):
    for part in ("seg_train", "seg_test", "val"):
        painted(tmp_path / part, picture, 2)
    picture(tmp_path / "seg_pred" / "1.png")
    picture(tmp_path / "cover.png")
    (tmp_path / "labels.csv").write_text("")
    (tmp_path / "seg_train" / "ant" / "old.gif").write_text("")
    (tmp_path / "seg_test" / "bee" / "README").write_text("")
    (line,) = loaded(tmp_path).found
    assert line.partition("left out: ")[2] == (
        "seg_pred/ (not called as a part is), val/ (there is a test part), other files: 1 .csv, "
        "1 .gif, 1 image beside the folders, 1 no extension"
    )


def test_without_a_test_part_the_line_says_which_setting_divides_the_images(tmp_path, picture):
    painted(tmp_path / "all", picture, 5)
    painted(tmp_path / "parts" / "Train", picture, 5)
    picture(tmp_path / "parts" / "Test" / "unknown.png")
    for root, words in (("all", "no parts"), ("parts", "Train/ holds all images")):
        data = loaded(tmp_path / root)
        assert (len(data.train), len(data.test)) == (8, 2)
        assert (
            f"{words}, so 20% of each class is the test set (data.source.test_share)"
            in (data.found[0])
        )
    assert "left out: Test/ (has no class folders)" in data.found[0]


@pytest.mark.parametrize("name", ["train", "Test", "validation"])
def test_a_class_may_be_called_as_a_part_is(name, tmp_path, picture):
    painted(tmp_path, picture, 4, classes=("bus", name, "tram"))
    assert set(loaded(tmp_path).class_names) == {"bus", name, "tram"}


AMBIGUOUS = {
    "two training parts": (
        ("train/ant", "Train/ant", "test/ant"),
        ["Train/ and train/", "training"],
    ),
    "two words for it": (("train/ant", "training/ant", "test/ant"), ["train/ and training/"]),
    "two test parts": (("train/ant", "test/ant", "testing/ant"), ["test/ and testing/"]),
    "no training part": (("test/ant", "val/ant"), ["no training part", "call its folder train"]),
    "parts without classes": (("train", "test"), ["train", "no folder of images for each class"]),
    "parts in classes": (("ant/train", "ant/test", "bee/train"), ["ant", "parts at the top"]),
    "a class of the test part only": (("train/ant", "train/bee", "test/bees"), ["bees", "'bee'"]),
    "no folders": (("",), ["no class folder"]),
}


@pytest.mark.parametrize("member", AMBIGUOUS)
def test_what_is_ambiguous_is_refused(member, tmp_path, picture):
    folders, words = AMBIGUOUS[member]
    for folder, number in itertools.product(folders, range(3)):
        picture(tmp_path / folder / f"{number}.png")
    refused(tmp_path, *words)


def test_an_empty_class_is_refused_and_a_link_to_itself_does_no_harm(tmp_path, picture):
    painted(tmp_path / "loop", picture, 4)
    (tmp_path / "loop" / "ant" / "again").symlink_to(tmp_path / "loop" / "ant")
    data = loaded(tmp_path / "loop")
    assert len(data.train) + len(data.test) == 8
    painted(tmp_path / "hole", picture, 4)
    (tmp_path / "hole" / "cat").mkdir()
    refused(tmp_path / "hole", "cat: a class folder without images")


@pytest.mark.parametrize("count", [2, 3, 4, 5, 9])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.95])
def test_few_images_a_class_are_divided(count, share, tmp_path, picture):
    """With two images or more, a class is in both parts, in the proportion to within one image."""
    painted(tmp_path, picture, count, classes=("ant", "bee", "cat"))
    data = loaded(tmp_path, test_share=share)
    for images, expected in ((data.train, count * (1 - share)), (data.test, count * share)):
        counts = images.labels.bincount(minlength=3)
        assert counts.min() >= 1 and (counts - expected).abs().max() <= 1


# --- warnings of constant images


@pytest.mark.parametrize("memory_limit", [0, 2**30])
def test_constant_images_and_classes_are_one_warning(memory_limit, tmp_path, picture):
    for part in ("train", "test"):
        painted(tmp_path / part, picture, 3)
    assert len(loaded(tmp_path, memory_limit=memory_limit).remarks) == 1, "nothing is constant"
    Image.new("RGB", (5, 5), "red").save(tmp_path / "train" / "ant" / "2.png")
    for number in (1, 2):
        content = (tmp_path / "test" / "bee" / "0.png").read_bytes()
        (tmp_path / "test" / "bee" / f"{number}.png").write_bytes(content)
    _, warning = loaded(tmp_path, memory_limit=memory_limit).remarks
    assert warning == (
        "warning: 1 of 6 training images have one colour only (the first: "
        f"{tmp_path}/train/ant/2.png), and all test images of the class bee are equal"
    )
