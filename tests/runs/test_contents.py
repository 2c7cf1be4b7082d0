"""Data are what they were: keys hold the content of the data set and of every file that a setting
names, and never a path. A run whose data have changed says so in one line.
"""

import shutil

import numpy as np
import pytest
from PIL import Image

from supernet.cli.composition import composed
from supernet.config import paths
from supernet.data.dataset import ImageData, TensorImages
from supernet.errors import UserError
from supernet.run import Run, plan_of
from supernet.runs.contents import require_same_content
from supernet.runs.folder import State
from supernet.runs.search import Search
from supernet.runs.setup import Setup
from supernet.runs.work import Work
from supernet.track.console import Progress
from tests.commands import TINY, finished, supernet


def npz(path, seed=0, **changes):
    random = np.random.default_rng(seed)
    arrays = {}
    for part in ("train", "test"):
        arrays[f"x_{part}"] = random.integers(0, 256, (24, 8, 8), np.uint8)
        arrays[f"y_{part}"] = np.arange(24) % 2
    np.savez(path, **(arrays | changes))
    return arrays


def pictures(root):
    random = np.random.default_rng(0)
    for part, name, number in np.ndindex(2, 2, 3):
        path = root / ("train", "test")[part] / ("ant", "bee")[name] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8), np.uint8)).save(path)


def setup_of(*overrides):
    return Setup(composed(["size=tiny", "tracker=none", *overrides]))


def keys(setup):
    return Work(setup, State("nowhere")).key(Search(0))


# --- the data set


def one_pixel(path):
    with np.load(path) as file:
        arrays = dict(file)
    arrays["x_test"][3, 4, 5] ^= 1
    np.savez(path, **arrays)


def one_label(path):
    with np.load(path) as file:
        arrays = dict(file)
    arrays["y_train"][:2] = arrays["y_train"][1::-1]
    np.savez(path, **arrays)


def order(path):
    with np.load(path) as file:
        arrays = dict(file)
    for name in ("x_train", "y_train"):
        arrays[name] = arrays[name][::-1]
    np.savez(path, **arrays)


NPZ = {
    "a pixel of a test image": one_pixel,
    "a label": one_label,
    "the order": order,
    "other images": lambda path: npz(path, seed=1),
    "names of classes": lambda path: npz(path, class_names=np.array(["ant", "bee"])),
    "one class more": lambda path: npz(path, y_train=np.arange(24) % 3, y_test=np.arange(24) % 3),
}


@pytest.mark.parametrize("change", NPZ)
def test_a_key_changes_with_the_content_of_an_npz_file(change, tmp_path):
    path = tmp_path / "some.npz"
    npz(path)
    before = setup_of("data=npz", f"data.source.path={path}")
    key = keys(before)
    NPZ[change](path)
    after = setup_of("data=npz", f"data.source.path={path}")
    assert key != keys(after)
    assert plan_of(before) == plan_of(after), "so that the run is found, and refuses to go on"


def test_the_same_arrays_have_the_same_key_wherever_and_however_they_are_saved(tmp_path):
    arrays = npz(tmp_path / "some.npz")
    (tmp_path / "moved").mkdir()
    np.savez_compressed(tmp_path / "moved" / "other.npz", **arrays)
    first, second = (
        setup_of("data=npz", f"data.source.path={tmp_path / name}")
        for name in ("some.npz", "moved/other.npz")
    )
    assert keys(first) == keys(second)


def repaint(root):
    Image.new("L", (8, 8), 7).save(root / "train" / "ant" / "1.png")


FOLDER = {
    "a picture": repaint,
    "a picture more": lambda root: shutil.copy(
        root / "test" / "bee" / "0.png", root / "train" / "bee" / "9.png"
    ),
    "a picture less": lambda root: (root / "test" / "ant" / "2.png").unlink(),
    "the name of a picture": lambda root: (root / "train" / "ant" / "0.png").rename(
        root / "train" / "ant" / "00.png"
    ),
    "the class of a picture": lambda root: (root / "train" / "ant" / "0.png").rename(
        root / "train" / "bee" / "0a.png"
    ),
    "the name of a class": lambda root: [
        (root / part / "ant").rename(root / part / "wasp") for part in ("train", "test")
    ],
}


@pytest.mark.parametrize("memory_limit", [0, 2**30])
@pytest.mark.parametrize("change", FOLDER)
def test_a_key_changes_with_the_content_of_a_folder_and_not_with_its_place(
    change, memory_limit, tmp_path
):
    pictures(tmp_path / "a")
    more = (
        "data.source.size=8",
        "data.source.workers=0",
        f"data.source.memory_limit={memory_limit}",
    )
    before, moved = (
        setup_of("data=folder", f"data.source.root={tmp_path / name}", *more) for name in ("a", "b")
    )
    key = keys(before)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert keys(moved) == key
    FOLDER[change](tmp_path / "a")
    assert keys(setup_of("data=folder", f"data.source.root={tmp_path / 'a'}", *more)) != key


def test_data_sets_have_fingerprints_of_their_own():
    digits = setup_of("data=digits").data
    flipped = TensorImages(digits.train.pixels.flip(3), digits.train.labels)
    other = ImageData.of("digits", flipped, digits.test)
    assert digits.fingerprint == digits.to("cpu").fingerprint != other.fingerprint
    assert digits.class_names == tuple(map(str, range(10)))


# --- every file that a setting names


FILES = ("study.published", "rank.published", "budget.latency_table")


def test_the_files_that_settings_name_are_found_from_the_types_of_the_settings(tmp_path):
    """The list of this test is complete: no other setting of a run is a path to a file."""
    (tmp_path / "run").mkdir()
    overrides = [f"{name}={tmp_path / 'file'}" for name in FILES]
    overrides += ["data=npz", f"data.source.path={tmp_path / 'file'}"]
    folders = [f"retrain.warm_start={tmp_path / 'run'}", f"rank.beside=[{tmp_path / 'run'}]"]
    config = composed([*TINY, *overrides, *folders])
    found = dict(paths(vars(config) | {name: vars(getattr(config, name)) for name in SECTIONS}))
    assert set(found) == {*FILES, "data.source.path", "retrain.warm_start", "rank.beside"}


SECTIONS = ("data", "budget", "retrain", "study", "rank")


@pytest.mark.parametrize("setting", FILES)
def test_the_content_of_a_file_is_known_and_its_change_is_one_line(setting, tmp_path, capsys):
    path, progress = tmp_path / "file", Progress()
    path.write_text("one")
    setup, state = setup_of(f"{setting}={path}"), State(tmp_path)
    assert require_same_content(setup, state, None, progress)
    assert not require_same_content(setup_of(f"{setting}={path}"), state, None, progress)
    path.write_text("two")
    changed = setup_of(f"{setting}={path}")
    line = f"{setting}={path}: holds something else than"
    capsys.readouterr()
    if setting == "study.published":  # no result of a run depends on it
        require_same_content(changed, state, None, progress)
        assert capsys.readouterr().out.startswith(line)
        return
    assert setup.of(setting.split(".")[0]) != changed.of(setting.split(".")[0])
    with pytest.raises(UserError) as caught:
        require_same_content(changed, state, None, progress)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)
    shutil.copy(path, tmp_path / "copy")
    copy = setup_of(f"{setting}={tmp_path / 'copy'}")
    assert copy.of(setting.split(".")[0]) == changed.of(setting.split(".")[0])


# --- a whole run


def test_a_run_whose_data_were_replaced_says_so_and_changes_nothing(tmp_path):
    npz(tmp_path / "t.npz", class_names=np.array(["ant", "bee"]))
    line = ["size=tiny", "tracker=none", "search.epochs=1", "search.supernets=1", "data=npz"]
    folder = finished("search", *line, "data.source.path=t.npz", cwd=tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (tmp_path / "elsewhere").mkdir()
    npz(tmp_path / "t.npz", seed=1)
    for command in ("derive", "evaluate"):
        outcome = supernet(command, f"from={folder}", cwd=tmp_path / "elsewhere")
        assert outcome.code == 2 and outcome.err.count("\n") == 1
        assert f"data.source={tmp_path / 't.npz'}: holds something else" in outcome.err
        assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    outcome = supernet("report", f"from={folder}", cwd=tmp_path / "elsewhere")
    assert outcome.code == 0, "a report needs no data"
    npz(tmp_path / "t.npz", class_names=np.array(["ant", "bee"]))
    assert finished("derive", f"from={folder}", cwd=tmp_path / "elsewhere") == folder
    results, architecture = (
        (folder / name).read_text() for name in ("results.json", "architecture.json")
    )
    for text in (results, architecture):
        assert '"classes": [\n' in text and '"ant"' in text
    # the same content at another place: a new folder, in which nothing is computed again
    (tmp_path / "t.npz").rename(tmp_path / "moved.npz")
    moved = finished(
        "derive", f"from={folder}", f"data.source.path={tmp_path / 'moved.npz'}", cwd=tmp_path
    )
    assert moved != folder
    stages = State.read(moved).stages
    assert stages == State.read(folder).stages, "taken over as they are"


def test_an_augmentation_that_does_not_fit_is_refused_before_anything_is_trained(tmp_path):
    for setting in ("data.augment.crop_padding=9", "data.search_augment.cutout=8"):
        setup = setup_of(setting)
        with (
            Run(setup, tmp_path / setting) as run,
            pytest.raises(UserError, match=rf"^{setting.rpartition('.')[0]}: .* 8×8 pixels"),
        ):
            run.search()
        assert not (tmp_path / setting / "checkpoints").exists()
