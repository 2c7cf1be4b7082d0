"""A run with several jobs at once computes the same bits as one job after the other, also if it is
killed or stopped in the middle.
"""

import json
import os
import random
import shlex
import signal
import time

import numpy as np
import pytest
import torch

from supernet.track.jsonlines import read_rows
from tests.commands import as_wandb, finished, process, waited, wandb_rows
from tests.compare import identical

RUN = ["size=tiny", "tracker=none", "search.supernets=2", "data=npz"]
CLOCK = {"seconds", "total_seconds", "peak_memory_bytes", "parts", "git_commit", "checklist"}
SHOWN = {"search/0": "supernet 1 of 2", "search/1": "supernet 2 of 2"}  # names on the screen
NAMES = ["search/0", "search/1", "random/0", "random/1", "retrain/0", "retrain/1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The settings of a run on images of noise. To read them takes a process less time than to
    import scikit-learn for its digits.
    """
    path, draw = tmp_path_factory.mktemp("data") / "noise.npz", np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 320), ("test", 40)):
        arrays[f"x_{part}"] = draw.integers(0, 256, (count, 8, 8), np.uint8)
        arrays[f"y_{part}"] = np.arange(count) % 10
    np.savez(path, **arrays)
    return [*RUN, f"data.source.path={path}"]


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """The folder of a run whose jobs ran one after the other, without a stop."""
    cwd = tmp_path_factory.mktemp("whole")
    return finished("retrain", *run, "jobs=1", f"hydra.run.dir={cwd}/run", cwd=cwd)


def without_clock(value):
    if isinstance(value, dict):
        return {k: without_clock(v) for k, v in value.items() if k not in CLOCK}
    return [without_clock(v) for v in value] if isinstance(value, list) else value


def assert_same(folder, whole):
    """Everything that was computed is the same, independently of the order in which jobs ended."""
    results, expected = (json.loads((run / "results.json").read_text()) for run in (folder, whole))
    assert without_clock(results) == without_clock(expected)
    names = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == names
    for path in (whole / "checkpoints").glob("*.pt"):
        ours, theirs = (torch.load(run / "checkpoints" / path.name) for run in (folder, whole))
        assert identical(ours["state"], theirs["state"])
    ours, theirs = (read_rows(run / "metrics.jsonl") for run in (folder, whole))
    for stage in (*NAMES, "derive"):
        assert [row for row in ours if row["stage"] == stage] == [
            row for row in theirs if row["stage"] == stage
        ]
    assert len(ours) == len(theirs)


def finished_jobs(folder):
    try:
        return set(json.loads((folder / "state.json").read_text())["stages"])
    except FileNotFoundError:
        return set()


def test_the_same_bits_as_one_after_the_other(run, whole, tmp_path):
    """Weights & Biases gets the rows of all jobs as well, in the order in which they came."""
    folder = tmp_path / "run"
    line = [*run, "tracker=wandb", "jobs=2", f"hydra.run.dir={folder}"]
    outcome = waited(process("retrain", *line, cwd=tmp_path))
    assert (outcome.code, outcome.err) == (0, "")
    assert_same(folder, whole)
    for name in NAMES:
        assert f"{SHOWN.get(name, name)}: step " in outcome.out
    assert wandb_rows(folder) == as_wandb(read_rows(folder / "metrics.jsonl"))


def kill(pid):
    """As an operating system does that has no memory left."""
    os.kill(pid, signal.SIGKILL)


def terminate(pid):
    """SIGTERM reaches the main process alone."""
    os.kill(pid, signal.SIGTERM)


def interrupt(pid):
    """Ctrl-C reaches every process of the terminal."""
    os.killpg(pid, signal.SIGINT)


def test_killed_and_stopped_with_several_at_once_it_goes_on_to_the_same_bits(run, whole, tmp_path):
    """A stop says how to go on, and a resume does only what is missing."""
    folder, rng = tmp_path / "run", random.Random(0)
    often = "checkpoint.every_seconds=0.02"
    line = ["retrain", *run, "jobs=2", often, f"hydra.run.dir={folder}"]
    for wanted, end in ((0, terminate), (1, kill), (4, interrupt)):
        child = process(*line, cwd=tmp_path)
        while len(finished_jobs(folder)) < wanted or not list(folder.glob("checkpoints/*.pt")):
            assert child.poll() is None, child.communicate()
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        end(child.pid)
        outcome = waited(child)
        line = ["retrain", f"from={folder}"]
        if end is not kill:
            number = signal.SIGTERM if end is terminate else signal.SIGINT
            assert (outcome.code, outcome.err) == (128 + number, "")
            said = outcome.out.partition("go on with: supernet ")[2].splitlines()[0]
            assert shlex.split(said) == line
    before = finished_jobs(folder)
    outcome = waited(process(*line, cwd=tmp_path))
    assert (outcome.code, outcome.err) == (0, "")
    assert not [name for name in before if f"{SHOWN.get(name, name)}: step" in outcome.out]
    assert_same(folder, whole)
