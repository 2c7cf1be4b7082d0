"""Invariant 4: a run that is stopped or killed anywhere, any number of times, ends with the same
bits as an uninterrupted run.
"""

import json
import multiprocessing
import os
import random
import re
import shlex
import signal
import time
from functools import partial
from multiprocessing import forkserver

import pytest
import torch

from supernet import cli
from supernet.files import write_json
from supernet.run import Run
from tests.commands import TINY, wandb_rows

# job in which the run is killed -> the job that ends just before it
KILLED = {
    "search/0": None,
    "derive": "search/0",
    "retrain/1": "retrain/0",
    "random/1": "random/0",
    "export": "random/1",
}
SPOS = [
    "method=spos",
    "searcher.candidates=20",
    "retrain.ema_decay=0.9",
    "retrain.drop_path=0.2",
    "retrain.warmup_epochs=0.5",
]
DARTS = ["method=darts", "search.epochs=4", "data.augment.cutout=2"]
# keys of results.json that may differ between two runs of the same code
CLOCK = {"seconds", "total_seconds", "search_seconds", "peak_memory_bytes", "git_commit", "parts"}
CLOCK |= {"checklist"}


@pytest.fixture(scope="module")
def start():
    """Starts ``supernet ARGUMENTS`` in a process that is forked from one which has imported
    everything.
    """
    forkserver._forkserver._stop()  # one that an earlier test has started imported other things
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            *("supernet.cli.commands", "supernet.export", "supernet.report.page"),
            *("sklearn.datasets", "wandb", "torch._dynamo", "onnxscript"),
        ]
    )

    def start(*arguments, log, target=session):
        child = context.Process(target=target, args=(arguments, log))
        child.start()
        return child

    return start


def session(arguments, log):
    os.setsid()  # as a shell does
    for descriptor in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    cli.main(list(arguments))


def quick_session(arguments, log):
    """The same without the last steps of each run, which the other tests kill."""
    Run.export = Run.report = lambda run, again=True: None
    session(arguments, log)


def done(folder):
    """The stages that a run has finished so far."""
    try:
        return json.loads((folder / "state.json").read_text())["stages"].keys()
    except FileNotFoundError:
        return ()


def wait_for(happened, child):
    while not happened():
        assert child.exitcode is None, "ended too early"
        time.sleep(0.01)


def without_clock(value):
    if isinstance(value, dict):
        return {k: without_clock(v) for k, v in value.items() if k not in CLOCK}
    return [without_clock(v) for v in value] if isinstance(value, list) else value


def assert_equal(one, other):
    """Asserts that two nested values are equal to the last bit."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one.keys() - CLOCK:
            assert_equal(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_equal(*pair)
    else:
        assert one == other


def assert_same_run(folder, whole):
    """Asserts that the folder holds the same as that of a run that was never stopped, and no trace
    of the stops.
    """
    results, expected = (json.loads((run / "results.json").read_text()) for run in (folder, whole))
    assert without_clock(results) == without_clock(expected)
    names = {
        str(path.relative_to(whole)) for path in whole.rglob("*") if "offline-run" not in str(path)
    }
    assert {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if "offline-run" not in str(path)
    } == names
    for path in whole.rglob("*.pt"):
        assert_equal(torch.load(folder / path.relative_to(whole)), torch.load(path))
    for name in ("metrics.jsonl", "architecture.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    for name in (
        ("model.safetensors", "model.onnx", "network.py", "architecture.json")
        if (whole / "export").exists()
        else ()
    ):
        assert (folder / "export" / name).read_bytes() == (whole / "export" / name).read_bytes()
    assert wandb_rows(folder) == wandb_rows(whole)


def test_killed_in_every_stage(start, tmp_path):
    whole, folder, log, rng = (
        tmp_path / "whole",
        tmp_path / "run",
        tmp_path / "log",
        random.Random(0),
    )
    never_stopped = start("run", *TINY, *SPOS, f"hydra.run.dir={whole}", log=tmp_path / "other log")
    arguments = [*TINY, *SPOS, "checkpoint.every_seconds=0.02", f"hydra.run.dir={folder}"]
    for stage, before in KILLED.items():
        child = start("run", *arguments, log=log)
        wait_for(
            lambda before=before: (
                before in done(folder) if before else (folder / "state.json").exists()
            ),
            child,
        )
        time.sleep(rng.uniform(0, 2.0 if stage == "export" else 0.4))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        arguments = [f"from={folder}"]
    for child in (start("run", f"from={folder}", log=log), never_stopped):
        child.join()
        assert child.exitcode == 0
    assert_same_run(folder, whole)
    assert "Traceback" not in log.read_text()


def test_stopped_by_signals(start, tmp_path):
    """Ctrl-C reaches every process of the terminal, SIGTERM only the run. In both cases the printed
    command resumes it.
    """
    whole, folder, log = tmp_path / "whole", tmp_path / "a run", tmp_path / "log"
    never_stopped = start(
        "retrain", *TINY, *DARTS, f"hydra.run.dir={whole}", log=tmp_path / "other log"
    )
    child = start("retrain", *TINY, *DARTS, f"hydra.run.dir={folder}", log=log)
    wait_for((folder / "state.json").exists, child)
    os.killpg(child.pid, signal.SIGINT)
    child.join()
    assert child.exitcode == 130
    assert f"stopped by SIGINT; go on with: supernet retrain from='{folder}'\n" in log.read_text()
    assert "search/0" not in done(folder)
    assert (folder / "checkpoints" / "search-0.pt").exists()

    child = start("retrain", f"from={folder}", log=log)
    wait_for(lambda: "retrain/0" in done(folder), child)
    os.kill(child.pid, signal.SIGTERM)
    child.join()
    assert child.exitcode == 143
    command = re.search(r"stopped by SIGTERM; go on with: supernet (.*)", log.read_text()).group(1)
    for child in (start(*shlex.split(command), log=log), never_stopped):
        child.join()
        assert child.exitcode == 0
    assert_same_run(folder, whole)


def test_a_study_that_is_killed_has_the_results_of_one_that_is_not(start, tmp_path):
    """A method, its rivals and an ablation. How many architectures the rivals may try follows from
    seconds, so it is given here; a study keeps what it has decided.
    """
    whole, folder, log, rng = (
        tmp_path / "whole",
        tmp_path / "study",
        tmp_path / "log",
        random.Random(1),
    )
    for one in (whole, folder):
        one.mkdir()
        numbers = {"random_search": 2, "early_stopping": 3}
        known = {name: {"candidates": one, "of": ["spos-0"]} for name, one in numbers.items()}
        write_json(one / "candidates.json", known)
    settings = ("tracker=none", "retrain.seeds=1", "baseline.architectures=1", "search.epochs=1")
    line = ("study", *TINY, *settings, "searcher.candidates=3")
    line += (
        "method=spos",
        "study.methods=[spos]",
        "study.seeds=[0]",
        "study.ablate=[weight_decay]",
    )
    begin = partial(start, target=quick_session)
    never_stopped = begin(*line, f"hydra.run.dir={whole}", log=tmp_path / "other log")
    arguments, seen = [*line, f"hydra.run.dir={folder}"], set()
    for _ in range(3):
        child, before = begin(*arguments, log=log), len(states(folder))
        wait_for(lambda before=before: len(states(folder)) > before, child)
        time.sleep(rng.uniform(0, 0.5))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        seen |= states(folder)
        arguments = ["study", f"from={folder}"]
    assert len(seen) > 1
    for child in (begin("study", f"from={folder}", log=log), never_stopped):
        child.join()
        assert child.exitcode == 0
    results, expected = (json.loads((one / "results.json").read_text()) for one in (folder, whole))
    assert without_clock(results) == without_clock(expected)
    assert len(results["runs"]) == 5 and "failed" not in results
    assert "Traceback" not in log.read_text()


def states(folder):
    """The cells of a study that have begun."""
    return {path.parent.name.rpartition("-")[0] for path in folder.glob("*/state.json")}
