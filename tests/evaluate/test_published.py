"""Tables of published accuracies."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from supernet.errors import UserError
from supernet.evaluate.published import Published, read_published


def test_a_table_of_published_figures(tmp_path):
    path = tmp_path / "table.npz"
    np.savez(
        path,
        arch=np.array(["b", "a"]),
        test=np.array([[1.0, 2.0], [3.0, 5.0]]),
        params=np.array([7, 8]),
        note=np.array(["x", "y"]),
    )
    table = read_published("study.published", path, "test")
    assert table.of(["a", "b"], "test") == [4.0, 1.5]  # the mean over seeds
    assert set(table.columns) == {"test", "params"}
    with pytest.raises(UserError, match="did you mean 'test'"):
        read_published("study.published", path, "tset")
    (tmp_path / "not.npz").write_text("no")
    with pytest.raises(UserError, match="not a readable npz file"):
        read_published("study.published", tmp_path / "not.npz", "test")
    np.savez(path, text=np.array(["b"]))
    with pytest.raises(UserError, match="has no arch"):
        read_published("study.published", path, "test")


def test_random_search_in_a_table():
    """A search that draws all four architectures takes the best one by the first column. A search
    that draws one takes any, so that the result is the mean of the other column.
    """
    table = Published({}, {"short": np.array([1.0, 2, 3, 4]), "long": np.array([10.0, 30, 20, 0])})
    rng = np.random.default_rng(0)
    assert set(table.random_search(9, "short", "long", 5, rng)) == {0.0}
    single = table.random_search(1, "short", "long", 4000, rng)
    assert single.mean() == pytest.approx(15, abs=4 * single.std() / 4000**0.5)


def test_random_search_in_the_published_table(shared):
    """93.74 +- 0.34 is what the figures of Dong & Yang give for the best of 100 by twelve epochs of
    training.
    """
    table = read_published("study.published", shared / "nb201_cifar10.npz", "test_200", "test_12")
    found = table.random_search(100, "test_12", "test_200", 2000, np.random.default_rng(0))
    assert (round(found.mean(), 1), round(found.std(), 1)) == (93.7, 0.3)


# --- damaged tables: one line, or the figures that were there


def members(**arrays):
    """The members of an npz file: name -> bytes."""
    found = {}
    for name, array in arrays.items():
        content = io.BytesIO()
        np.save(content, array, allow_pickle=True)
        found[f"{name}.npy"] = content.getvalue()
    return found


def write(path, parts, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in parts.items():
            file.writestr(name, content)


NAMES = np.array([f"cell {number}" for number in range(40)])
FIGURES = np.linspace(10, 90, 80).reshape(40, 2)
SOUND = members(arch=NAMES, test=FIGURES, other=FIGURES[:, 0])


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


def with_figure(value):
    figures = FIGURES.copy()
    figures[3, 1] = value
    return SOUND | members(test=figures)


WRONG = {
    "NaN": with_figure(np.nan),
    "infinite": with_figure(np.inf),
    "NaN in another column": SOUND | members(other=np.full(40, np.nan)),
    "text for figures": SOUND | members(test=NAMES),
    "complex": SOUND | members(test=FIGURES * 1j),
    "truths": SOUND | members(test=FIGURES > 50),
    "three axes": SOUND | members(test=FIGURES[..., None]),
    "no seeds": SOUND | members(test=FIGURES[:, :0]),
    "one too few": SOUND | members(test=FIGURES[1:]),
    "one number": SOUND | members(test=np.array(1.0)),
    "numbers for names": SOUND | members(arch=np.arange(40)),
    "names twice": SOUND | members(arch=np.array(["a"] * 40)),
    "a table of names": SOUND | members(arch=NAMES.reshape(20, 2)),
    "no names": SOUND | members(arch=NAMES[:0]),
    "objects": SOUND | members(test=np.array([Evil()] * 40)),
    "objects as names": SOUND | members(arch=np.array([Evil()] * 40)),
    "text in the zip": SOUND | {"test.npy": b"10,20,30\n"},
    "text as names": SOUND | {"arch.npy": b"cell 0\n"},
    "a text file in the zip": SOUND | {"README.txt": b"figures"},
    "a member cut short": SOUND | {"test.npy": SOUND["test.npy"][:200]},
    "an empty member": SOUND | {"test.npy": b""},
    "a member of another shape": SOUND
    | {"test.npy": SOUND["test.npy"].replace(b"(40, 2)", b"(9999999, 9999999)")},
    "no arch": members(test=FIGURES),
    "nothing": {},
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_table_is_one_line(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("table.npz", WRONG[what])
    with pytest.raises(UserError, match=r"^study\.published=table\.npz: ") as caught:
        read_published("study.published", Path("table.npz"), "test")
    assert "\n" not in str(caught.value) and not Path("evil").exists()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_a_damaged_table_is_one_line_or_says_what_it_said(how, compression, tmp_path):
    """A zip file has checksums: no damage changes a figure."""
    path = tmp_path / "table.npz"
    write(path, SOUND, compression)
    content, expected = path.read_bytes(), FIGURES.mean(axis=1).tolist()
    refused = 0
    for place in range(0, len(content), len(content) // 60):
        flipped = content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]
        path.write_bytes(content[:place] if how == "cut" else flipped)
        try:
            table = read_published("study.published", path, "test")
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            known = [text for text in NAMES if text in table.rows]
            assert known == NAMES.tolist() and table.of(NAMES, "test") == expected
    assert refused > 30


def test_another_kind_of_file_is_one_line(tmp_path):
    np.save(tmp_path / "one.npy", FIGURES)
    for path in (tmp_path / "one.npy", tmp_path, tmp_path / "nowhere.npz"):
        with pytest.raises(UserError, match=r"single array|not a readable|no such file"):
            read_published("study.published", path, "test")
