"""What can be known before training is refused before a folder is made, and a line that is refused
later leaves nothing that blocks the corrected one.
"""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

from supernet.cli.composition import composed
from supernet.cost.latency import write_table
from supernet.cost.table import CostTable, nothing
from supernet.errors import UserError
from supernet.run import Run
from supernet.runs.folder import State, computed
from supernet.runs.preflight import members, read_files, rehearse
from supernet.runs.setup import Setup
from supernet.train.checkpoint import Checkpoints
from tests.commands import TINY, supernet
from tests.runs.done import CHECKPOINT, SEARCHED, trained
from tests.variants import SPACES

QUIET = [*TINY, "tracker=none"]


def columns(space):
    texts = [space.encode(one) for one in itertools.islice(members(space), 20_000)]
    figures = np.linspace(1.0, 90.0, len(texts))
    return {"arch": np.array(texts), "test_200": figures, "test_12": figures, "test": figures}


def without(arrays, name):
    return {key: array for key, array in arrays.items() if key != name}


WHOLE = columns(SPACES["nb201"]())
# what is wrong with a table of published accuracies -> how it is made
TABLES = {
    "missing": None,
    "no npz": b"text",
    "empty": b"",
    "without architectures": without(WHOLE, "arch"),
    "without the target": without(without(WHOLE, "test_200"), "test"),
    "of another space": columns(SPACES["darts"]()),
    "without the first row": {name: array[1:] for name, array in WHOLE.items()},
    "without the last row": {name: array[:-1] for name, array in WHOLE.items()},
    "without a row in the middle": {name: np.delete(a, 7777, 0) for name, a in WHOLE.items()},
    "in another notation": WHOLE | {"arch": np.char.add(WHOLE["arch"], " ")},
}
NAMED = {  # command -> the settings that name a table
    "study": "study.published=TABLE study.target=test_200 study.ranked_by=test_12",
    "rank": "rank.published=TABLE rank.target=test",
}


def written(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, **content)
    return path


@pytest.fixture
def setup():
    return lambda *settings: Setup(composed([*QUIET, *settings]))


def assert_refused(caught, *words):
    assert "\n" not in str(caught.value)
    for word in words:
        assert str(word) in str(caught.value)


@pytest.mark.parametrize(
    ("command", "wrong"),
    [  # rank needs only those that it draws, and says later that one is missing
        (command, wrong)
        for command in NAMED
        for wrong in TABLES
        if command == "study" or " row" not in wrong
    ],
)
def test_a_wrong_published_table_is_refused(command, wrong, setup, tmp_path):
    path = written(tmp_path / "table.npz", TABLES[wrong])
    one = setup(*NAMED[command].replace("TABLE", str(path)).split())
    with pytest.raises(UserError) as caught:
        read_files(one, command)
    assert_refused(caught, f"{command}.published={path}")


@pytest.mark.parametrize("command", NAMED)
def test_a_right_published_table_is_accepted(command, setup, tmp_path):
    path = written(tmp_path / "table.npz", WHOLE)
    read_files(setup(*NAMED[command].replace("TABLE", str(path)).split()), command)


def latencies(space):
    return CostTable(space, 1.0, nothing(space))


@pytest.mark.parametrize("wrong", ["missing", "no csv", "of another space", "cut"])
def test_a_wrong_latency_table_is_refused(wrong, setup, tmp_path):
    path = tmp_path / "times.csv"
    if wrong != "missing":
        write_table(path, latencies(SPACES["darts" if wrong == "of another space" else "nb201"]()))
    if wrong == "no csv":
        path.write_bytes(b"\xff\x00")
    if wrong == "cut":
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    one = setup("budget.latency_ms=5", f"budget.latency_table={path}")
    for command in ("run", "search", "study"):
        with pytest.raises(UserError) as caught:
            read_files(one, command)
        assert_refused(caught, path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run whose retraining is finished, as far as a warm start reads it."""
    folder = tmp_path_factory.mktemp("finished")
    space = SPACES["nb201"]()
    text = space.encode(next(members(space)))
    State(folder, stages={"retrain/0": {"key": "k", "result": trained(text)}}).write()
    Checkpoints(folder / "checkpoints").save("retrain/0", CHECKPOINT | {"key": "k"})
    return folder


def no_folder(folder):
    shutil.rmtree(folder)


def no_retraining(folder):
    State(folder).write()


def no_checkpoint(folder):
    (folder / "checkpoints" / "retrain-0.pt").unlink()


def damaged(folder):
    (folder / "checkpoints" / "retrain-0.pt").write_bytes(b"text")


def another_key(folder):
    Checkpoints(folder / "checkpoints").save("retrain/0", CHECKPOINT | {"key": "other"})


def another_space(folder):
    State(folder, stages={"retrain/0": {"key": "k", "result": trained("normal=x")}}).write()


@pytest.mark.parametrize(
    "spoil", [no_folder, no_retraining, no_checkpoint, damaged, another_key, another_space]
)
def test_a_wrong_warm_start_is_refused(spoil, finished, setup, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    one = setup(f"retrain.warm_start={folder}")
    read_files(one, "retrain")
    spoil(folder)
    with pytest.raises(UserError) as caught:
        read_files(one, "retrain")
    assert_refused(caught)


@pytest.mark.parametrize("command", NAMED)
def test_a_refused_line_makes_no_folder(command, tmp_path):
    path = written(tmp_path / "table.npz", TABLES["without the target"])
    words = NAMED[command].replace("TABLE", path.name).split()
    outcome = supernet(command, *QUIET, *words, "hydra.run.dir=run", cwd=tmp_path)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert [found.name for found in tmp_path.iterdir()] == ["table.npz"]


def test_what_is_trained_last_is_built_before_the_search(setup, monkeypatch):
    monkeypatch.setattr("supernet.device.available_memory_bytes", lambda device: 2**34)
    with pytest.raises(UserError) as caught:
        rehearse(setup("space.evaluation.channels=16384"))
    assert_refused(caught)


@pytest.mark.parametrize(
    ("precision", "bf16", "expected"),
    [("bf16", False, 1), ("bf16", True, 0), ("float32", False, 0)],
)
def test_bf16_on_a_processor_without_it_is_one_warning(
    precision, bf16, expected, tmp_path, monkeypatch
):
    """A run warns when it starts, and so does a check."""
    monkeypatch.setattr("supernet.runs.preflight.computes_bf16", lambda device: bf16)
    monkeypatch.setattr(Run, "search", lambda run: None)
    for command in ("search", "check"):
        words = [f"precision={precision}", "memory=ignore", "hydra.run.dir=run"]
        outcome = supernet(command, *QUIET, *words, cwd=tmp_path)
        found = [line for line in outcome.out.splitlines() if line.startswith("warning")]
        assert outcome.code == 0 and len(found) == expected
        assert all("precision=bf16" in line and "=float32" in line for line in found)


@pytest.mark.parametrize("where", ["perform", "prepare", "tracker"])
def test_a_run_that_was_refused_before_anything_was_computed_blocks_no_other(
    where, setup, tmp_path, monkeypatch
):
    """Wherever it was refused: the same folder takes the corrected settings."""

    def refuse(*given):
        raise UserError("refused")

    with monkeypatch.context() as patch:
        if where == "tracker":
            patch.setattr("supernet.track.interface.Trackers.start", refuse)
        else:
            patch.setattr(Run, where, refuse)
        with (
            pytest.raises(UserError, match="refused"),
            Run(setup("search.epochs=1"), tmp_path) as run,
        ):
            run.search()
    assert not computed(tmp_path)
    corrected = setup("search.epochs=2")
    with Run(corrected, tmp_path) as run:
        run.state.stages["search/0"] = {"key": "k", "result": SEARCHED}
        run.state.write()
    with pytest.raises(UserError, match="other settings"), Run(setup("search.epochs=3"), tmp_path):
        pass
    with Run(corrected, tmp_path):
        pass


def test_settings_of_a_refused_line_are_not_those_that_are_recorded(tmp_path, monkeypatch):
    def refuse(run):
        raise UserError("refused")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "search", refuse)
        line = ["search", *QUIET, "hydra.run.dir=run"]
        assert supernet(*line, "search.epochs=1", cwd=tmp_path).code == 2
    monkeypatch.setattr(Run, "search", lambda run: None)
    assert supernet(*line, "search.epochs=2", cwd=tmp_path).code == 0
    assert "search.epochs=2" in Path(tmp_path / "run" / ".hydra" / "overrides.yaml").read_text()
    assert supernet("search", f"from={tmp_path / 'run'}", cwd=tmp_path).code == 0
