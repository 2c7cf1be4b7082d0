"""Tables of published accuracies."""

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
