"""Failures in the middle of a run: one line says what went wrong and where, and everything that was
good before is kept.
"""

import json
import shutil

import pytest
import torch

from tests.commands import TINY, finished, supernet
from tests.disk import small_disk

RUN = [*TINY, "tracker=none", "search.supernets=1"]
RUN += ["retrain.seeds=1", "baseline.architectures=0"]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    return finished("search", *RUN, cwd=tmp_path_factory.mktemp("searched"))


@pytest.fixture
def run(searched, tmp_path):
    """A copy of a run whose search is finished."""
    return shutil.copytree(searched, tmp_path / "run")


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def assert_one_line(outcome, *words):
    assert outcome.code == 2
    assert outcome.err.startswith("supernet: ")
    assert outcome.err.count("\n") == 1
    for word in words:
        assert str(word) in outcome.err


def test_a_full_disk_in_the_search(tmp_path):
    with small_disk(50_000):
        outcome = supernet("search", *RUN, "checkpoint.every_seconds=0", cwd=tmp_path)
    (folder,) = tmp_path.glob("outputs/*/*")
    assert_one_line(outcome, "cannot write", folder / "checkpoints" / "search-0.pt", "space")
    assert not list(folder.rglob("*.tmp"))
    assert finished("search", f"from={folder}", cwd=tmp_path) == folder


def test_a_full_disk_leaves_an_earlier_export_and_report_alone(run, tmp_path):
    finished("export", f"from={run}", cwd=tmp_path)
    finished("report", f"from={run}", cwd=tmp_path)
    before = content(run)
    with small_disk(50_000):
        assert_one_line(
            supernet("export", f"from={run}", cwd=tmp_path),
            "cannot write",
            "model.safetensors",
            "space",
        )
        assert_one_line(
            supernet("report", f"from={run}", cwd=tmp_path),
            "cannot write",
            run / "report.html",
            "space",
        )
    assert content(run) == before


@pytest.mark.parametrize("stage", ["search", "retrain"])
def test_a_loss_that_is_not_finite(stage, run, tmp_path):
    """The learning rate is so large that the weights overflow. What the run had before is still
    good.
    """
    before = content(run)
    outcome = supernet(
        "retrain", f"from={run}", f"{stage}.lr=1e30", f"{stage}.clip=0", cwd=tmp_path
    )
    assert_one_line(outcome, "search/0:" if stage == "search" else "retrain/0:", "learning rate")
    assert content(run) == before
    assert finished("retrain", f"from={run}", cwd=tmp_path) == run


def test_a_truncated_checkpoint(run, tmp_path):
    path = run / "checkpoints" / "search-0.pt"
    path.write_bytes(path.read_bytes()[:5000])
    before = content(run)
    assert_one_line(supernet("derive", f"from={run}", cwd=tmp_path), path, "damaged", "remove it")
    assert content(run) == before


def test_a_checkpoint_that_is_gone(run, tmp_path):
    """A run that goes on from another cannot train in the folder of that one, so it says how. In
    its own folder, the search is run again.
    """
    path = run / "checkpoints" / "search-0.pt"
    before, weights = json.loads((run / "state.json").read_text())["stages"], loaded(path)
    path.unlink()
    child = supernet("search", f"from={run}", "method=spos", cwd=tmp_path)
    advice = f"supernet search from={run}"
    assert_one_line(child, path, "missing", "restore it", advice)
    again = supernet(*advice.split()[1:], cwd=tmp_path)
    assert (again.code, again.err) == (0, "") and f"{path} is gone: search/0 is run" in again.out
    after = json.loads((run / "state.json").read_text())["stages"]
    assert after["search/0"]["key"] == before["search/0"]["key"]
    assert loaded(path).keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in loaded(path).items())


def loaded(path):
    return torch.load(path, weights_only=True)["state"]["supernet"]


def test_a_checkpoint_of_another_space(run, tmp_path):
    other = finished("search", *RUN, "space=darts", "method=spos", "search.epochs=1", cwd=tmp_path)
    path = run / "checkpoints" / "search-0.pt"
    shutil.copy(other / "checkpoints" / "search-0.pt", path)
    assert_one_line(supernet("derive", f"from={run}", cwd=tmp_path), path, "another space")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("state.json", '{"schema": 2, "sta', ["state.json", "not valid JSON"]),
        ("state.json", '{"schema": 99}', ["state.json", "99", "another version"]),
        ("state.json", '{"schema": 2}', ["state.json", "2", "another version of supernet"]),
        ("state.json", "[]", ["state.json", "another version"]),
        ("metrics.jsonl", "{}\nnot json\n", ["metrics.jsonl", "damaged"]),
    ],
)
def test_a_damaged_file(name, text, words, run, tmp_path):
    (run / name).write_text(text)
    before = content(run)
    assert_one_line(supernet("report", f"from={run}", cwd=tmp_path), *words)
    assert content(run) == before


def test_leftovers_of_killed_writers_are_removed(run, tmp_path):
    for name in (
        ".results.json.abc.tmp",
        "checkpoints/.search-0.pt.abc.tmp",
        "pareto/.00.json.abc.tmp",
        "wandb/.job.json.abc.tmp",
    ):
        path = run / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("half a file")
    before = json.loads((run / "results.json").read_text())
    finished("search", f"from={run}", cwd=tmp_path)
    assert not list(run.rglob("*.tmp"))
    assert json.loads((run / "results.json").read_text()) == before
