"""The memory of a search: the prediction from small batches is compared with a measurement, and the
batch is chosen by it.
"""

import dataclasses
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from supernet import trial as trial_module
from supernet.cli.composition import composed
from supernet.config import Config, typed
from supernet.cost import memory
from supernet.cost.budget import Budget
from supernet.cost.memory import (
    MARGIN,
    Line,
    MemoryPlan,
    line_of,
    planned,
    planned_retraining,
    trial_batches,
    tried,
)
from supernet.errors import UserError
from supernet.files import read_json
from supernet.runs import check, setup
from supernet.runs import memory as memory_of_runs
from tests.commands import ROOT, TINY, finished, supernet

AVAILABLE = math.ceil(1.15 * 1210)  # bytes; with the margin to spare, 1,210 of them are used
FIVE_STEPS = [*TINY, "tracker=none", "method=darts", "search.epochs=1"]

# Prints what a process that searches holds before its first step, and its peak, as the kernel
# counts them. It uses nothing of the planner.
SEARCH = """
import sys
from pathlib import Path
from supernet.cli.composition import composed
from supernet.runs.search import search_stage
from supernet.runs.setup import Setup
from supernet.runs.work import budget_of

def held(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if name in line)

setup = Setup(composed(sys.argv[2:]))
stage = search_stage(setup, budget_of(setup, {}))
before = held("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
for index in range(int(sys.argv[1])):
    stage.step(index)
print(before, held("VmHWM"))
"""

RETRAINING = """
import sys
from pathlib import Path
from supernet.cli.composition import composed
from supernet.randomness import Streams
from supernet.runs.setup import Setup
from supernet.runs.training import fresh_network, retrain_stage
from supernet.runs.work import budget_of

setup = Setup(composed(sys.argv[1:]))
streams = Streams(0)
network = fresh_network(setup, budget_of(setup, {}).largest(), streams)
stage = retrain_stage(setup, "measured", network, setup.images, streams)
Path("/proc/self/clear_refs").write_text("5")
for number in range(3):
    stage.step(number)
lines = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")))
"""

on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux says what a process held at most since it was asked"
)


def searched(overrides, steps):
    """What a fresh process holds before its search, and its peak over some steps, in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, str(steps), *overrides],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(map(int, done.stdout.split()))


@pytest.fixture
def photographs(tmp_path):
    """Makes overrides for 200 colour images of noise with ``side`` pixels a side."""

    def make(side):
        rng, arrays = np.random.default_rng(0), {}
        for part, count in (("train", 200), ("test", 4)):
            arrays[f"x_{part}"] = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
            arrays[f"y_{part}"] = np.arange(count) % 2
        np.savez(tmp_path / "set.npz", **arrays)
        return [
            "data=npz",
            f"data.source.path={tmp_path / 'set.npz'}",
            "tracker=none",
            "measure.every=0",
        ]

    return make


@on_linux
@pytest.mark.parametrize(
    ("space", "side", "method"), [("nb201", 32, "darts"), ("darts", 16, "spos")]
)
def test_the_peak_at_a_larger_batch_is_predicted_within_the_margin(
    space, side, method, photographs
):
    """The prediction is also right for the part that the search adds to a process that has loaded
    everything. Most of the peak is there before.
    """
    overrides = [
        *photographs(side),
        f"space={space}",
        f"method={method}",
        "size=small",
        "search.batch_size=64",
    ]
    settings = dataclasses.asdict(composed(overrides))
    with ThreadPoolExecutor() as pool:
        measured = pool.submit(searched, overrides, 16 if method == "spos" else 2)  # paths differ
        line = line_of(settings, 200, 64)
        before, peak = measured.result()
    assert line.at(64) == pytest.approx(peak, rel=MARGIN)
    assert line.at(64) - before == pytest.approx(peak - before, rel=MARGIN)


@on_linux
def test_with_recomputation_the_peak_falls_and_is_predicted(photographs):
    """Each image adds much less."""
    plain = [*photographs(16), "space=darts", "method=darts", "size=small", "search.batch_size=64"]
    again = [*plain, "search.recompute=true"]
    (before, peak), (before_again, peak_again) = searched(plain, 2), searched(again, 2)
    assert peak_again - before_again < 0.8 * (peak - before)
    settings = dataclasses.asdict(composed(again))
    line = Line.through({batch: tried(settings, batch) for batch in (8, 16)})
    assert line.at(64) == pytest.approx(peak_again, rel=MARGIN)


@on_linux
@pytest.mark.parametrize("space", ["nb201"])
def test_the_peak_of_retraining_is_predicted(space, photographs):
    """The peak of the network with the most parameters, measured in a process of its own."""
    overrides = [*photographs(16), f"space={space}", "size=small", "retrain.batch_size=128"]
    settings = dataclasses.asdict(composed(overrides))
    line = Line.through({batch: tried(settings, batch, "retrain") for batch in (16, 32)})
    done = subprocess.run(
        [sys.executable, "-c", RETRAINING, *overrides],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert line.at(128) == pytest.approx(int(done.stdout), rel=MARGIN)


def test_the_prediction_is_for_the_network_that_is_retrained(monkeypatch):
    """A network that inherits weights has the form of the search."""
    tried = []
    monkeypatch.setattr(
        memory,
        "tried",
        lambda settings, batch, stage: tried.append((settings, stage)) or 2**30 * batch,
    )
    settings = dataclasses.asdict(
        composed(["size=tiny", "retrain.init=inherit", "space.search.channels=8"])
    )
    assert planned_retraining(settings, 100, 2**40).peak == 2**30 * 32
    assert {stage for _, stage in tried} == {"retrain"}
    forms = []
    monkeypatch.setattr(trial_module, "fresh_network", lambda *given: forms.append(given[-1]))
    monkeypatch.setattr(trial_module, "retrain_stage", lambda *_: SimpleNamespace(steps=0))
    for one, _ in tried:
        parts = setup.Setup(typed(Config, one, ""))
        trial_module.peak_of_retraining(parts, Budget(parts.space, parts.task))
    assert forms == ["search"] * 2


# --- the choice, for a search that takes 1,000 bytes and 10 an image, or less with recomputation


def test_a_line_names_the_largest_batch_within_a_limit():
    line = Line.through({8: 1080, 4: 1040})
    assert (line.fixed, line.per_image) == (1000, 10)
    assert [line.at(batch) for batch in (2, 64)] == [1020, 1640]
    assert [line.largest(limit, most=50) for limit in (1019, 1020, 1209, 1210, 1500, 9999)] == [
        0,
        2,
        20,
        21,
        50,
        50,
    ]
    assert Line.through({4: 1000, 8: 990}).at(1000) == 990  # noise, if the batch has no effect


def test_too_small_a_difference_is_tried_again_at_a_larger_batch(monkeypatch):
    """Up to 16 images the peak hardly grows; from there it grows by a megabyte per image."""
    tries = []

    def trial(settings, batch, stage):
        tries.append(batch)
        return 2**30 + slope * max(0, batch - knee)

    monkeypatch.setattr(memory, "tried", trial)
    settings, slope, knee = {"search": {"batch_size": 64}}, 2**20, 16
    assert planned(settings, 1000, 2**40).peak == 2**30 + 48 * 2**20
    assert sorted(tries) == [8, 16, 64]
    tries.clear()
    assert planned(settings, 20, 2**40).batch_size == 20
    assert sorted(tries) == [8, 16, 20]
    slope, knee = 2**23, 0
    tries.clear()
    plan = planned(settings, 1000, round(1.15 * (2**30 + 100.5 * slope)))
    assert sorted(tries) == [8, 16] and (plan.peak, plan.largest, plan.fits) == (
        2**30 + 64 * slope,
        100,
        True,
    )


def test_trials_are_small_and_never_without_neighbours():
    for batch in range(2, 5000):
        small, large = trial_batches(batch)
        assert 2 <= small < large <= 64
        assert large <= max(4, batch)


def test_what_does_not_fit_with_the_margin_to_spare_is_refused():
    assert MemoryPlan(64, 1000, 1150, 64).fits and not MemoryPlan(64, 1000, 1149, 63).fits
    assert [MemoryPlan(64, 0, 0, largest).suggested for largest in (0, 2, 7, 8, 15, 64)] == [
        0,
        2,
        7,
        8,
        8,
        64,
    ]
    MemoryPlan(64, 1000, 1150, 64).require_fit()
    assert MemoryPlan(64, 1000, 1150, 64).remedy == {}
    half = 2**29
    with pytest.raises(
        UserError,
        match=r"about 2\.00 GiB at .*=64 of 1\.50 GiB.*choose search.batch_size=24, which",
    ):
        MemoryPlan(64, 4 * half, 3 * half, 31).require_fit()
    with pytest.raises(
        UserError, match=r"not even a batch of two images fits.*choose a smaller space.search"
    ):
        MemoryPlan(64, 4 * half, 2 * half, 0).require_fit()


def test_recomputation_comes_before_a_smaller_batch():
    """Recomputation alone if it suffices; with a smaller batch if not; not at all if it does not
    allow a larger batch.
    """

    def remedy(peak, largest):
        return MemoryPlan(64, 2000, 1150, 20, MemoryPlan(64, peak, 1150, largest)).remedy

    assert remedy(1000, 64) == {"recompute": True}
    assert remedy(1001, 63) == {"batch_size": 56, "recompute": True}
    assert remedy(1900, 23) == {"batch_size": 16}
    assert MemoryPlan(64, 2000, 1150, 0, MemoryPlan(64, 1900, 1150, 2)).remedy == {
        "batch_size": 2,
        "recompute": True,
    }
    assert MemoryPlan(64, 2000, 1150, 0, MemoryPlan(64, 1900, 1150, 0)).remedy == {}


@pytest.fixture
def tight(monkeypatch):
    """A machine on which a search takes 1,000 bytes, and 10 for each image. Returns the available
    bytes, and how many of those 10 recomputation saves; a test may change both.
    """
    machine = {"available": AVAILABLE, "saves": 0, "tries": 0, "retraining": 100}

    def trial(settings, batch, stage):
        if stage == "retrain":
            return machine["retraining"]
        machine["tries"] += 1
        return 1000 + (10 - machine["saves"] * settings["search"]["recompute"]) * batch

    monkeypatch.setattr(memory, "tried", trial)
    monkeypatch.setattr(memory, "LEAST_DIFFERENCE", 20)
    for module in (memory_of_runs, check):
        monkeypatch.setattr(module, "available_memory_bytes", lambda device: machine["available"])
    return machine


def test_fit_takes_the_largest_batch_and_the_run_goes_on_with_it(tight, tmp_path):
    folder = finished("search", *FIVE_STEPS, "memory=fit", cwd=tmp_path)
    results = read_json(folder / "results.json")
    chosen = {"asked": 32, "batch_size": 16, "recompute": False}
    assert results["memory"] == chosen | {
        "predicted_bytes": 1320,
        "available_bytes": AVAILABLE,
        "largest_batch_size": 21,
    }
    assert results["search"]["steps"] == 160 // 16
    assert tight["tries"] == 4
    tight["available"] = 9999  # the memory that is available later does not change the run
    assert finished("derive", f"from={folder}", cwd=tmp_path) == folder
    other = finished("derive", f"from={folder}", "judge.recalibration_batches=0", cwd=tmp_path)
    assert other != folder and read_json(other / "results.json")["search"] == results["search"]
    assert tight["tries"] == 4
    asked = finished("search", f"from={folder}", "search.batch_size=24", cwd=tmp_path)
    assert read_json(asked / "results.json")["memory"]["batch_size"] == 24
    assert tight["tries"] == 6


def test_fit_recomputes_before_it_takes_a_smaller_batch_and_computes_the_same(tight, tmp_path):
    tight["saves"] = 5
    folder = finished("search", *FIVE_STEPS, "memory=fit", cwd=tmp_path)
    results = read_json(folder / "results.json")
    chosen = {
        "asked": 32,
        "batch_size": 32,
        "recompute": True,
        "recomputed": {"predicted_bytes": 1160, "largest_batch_size": 42},
    }
    assert results["memory"] == chosen | {
        "predicted_bytes": 1320,
        "available_bytes": AVAILABLE,
        "largest_batch_size": 21,
    }
    plain = finished("search", *FIVE_STEPS, cwd=tmp_path)
    assert (folder / "metrics.jsonl").read_bytes() == (plain / "metrics.jsonl").read_bytes() != b""
    # a setting that changes no result continues the same run
    assert finished("derive", f"from={plain}", "search.recompute=true", cwd=tmp_path) == plain
    assert finished("derive", f"from={folder}", "memory=check", cwd=tmp_path) == folder
    tight["saves"] = 2
    outcome = supernet("search", *FIVE_STEPS, "memory=fit", cwd=tmp_path)
    assert (
        "memory=fit: the search takes search.batch_size=24 search.recompute=true; its"
        in outcome.out
    )


def test_recomputation_is_named_where_it_fits(tight, tmp_path):
    tight["saves"] = 5
    outcome = supernet("check", *FIVE_STEPS, "memory=check", cwd=tmp_path)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert (
        "with search.recompute=true about" in outcome.err
        and "choose search.recompute=true, which fits, or" in outcome.err
    )
    outcome = supernet("check", *FIVE_STEPS, "memory=fit", cwd=tmp_path)
    assert outcome.code == 0 and "the search would take search.recompute=true" in outcome.out
    tight["tries"] = 0
    again = (*FIVE_STEPS, "memory=check", "search.recompute=true")
    outcome = supernet("check", *again, cwd=tmp_path)
    assert (outcome.code, tight["tries"]) == (0, 2) and outcome.out.endswith("all is well\n")
    tight["retraining"] = 10**9
    outcome = supernet("check", *again, cwd=tmp_path)
    assert outcome.code == 0 and outcome.out.endswith(
        "all is well but the memory of the retraining\n"
    )


def test_fit_says_what_it_does_and_leaves_alone_what_fits(tight, tmp_path):
    outcome = supernet("search", *FIVE_STEPS, "memory=fit", cwd=tmp_path)
    assert "memory=fit: the search takes search.batch_size=16" in outcome.out
    tight["available"] = 1.2 * 1320
    outcome = supernet("search", *FIVE_STEPS, "memory=fit", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "") and "memory=fit" not in outcome.out
    assert read_json(outcome.folder / "results.json")["memory"]["batch_size"] == 32


@pytest.mark.parametrize("command", ["search", "check"])
def test_refuse_is_one_line_before_the_first_step(command, tight, tmp_path):
    outcome = supernet(command, *FIVE_STEPS, "memory=refuse", cwd=tmp_path)
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    for word in (
        "memory: about",
        "search.batch_size=32",
        "choose search.batch_size=16, which fits, or memory=fit",
        "memory=ignore",
    ):
        assert word in outcome.err
    assert "step" not in outcome.out.replace("steps of the search", "")


def test_fit_where_nothing_fits_is_one_line(tight, tmp_path):
    tight["available"] = 1000
    outcome = supernet("search", *FIVE_STEPS, "memory=fit", cwd=tmp_path)
    assert (outcome.code, outcome.err.count("\n")) == (
        2,
        1,
    ) and "not even a batch of two images" in outcome.err


def test_only_who_asks_waits_for_a_plan(tight, tmp_path):
    tight["available"] = 0
    folder = finished("search", *FIVE_STEPS, cwd=tmp_path)
    assert "memory" not in read_json(folder / "results.json")
    outcome = supernet("check", *FIVE_STEPS, "memory=ignore", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "") and "memory" not in outcome.out
    assert tight["tries"] == 0
    tight["available"] = AVAILABLE
    outcome = supernet("check", *FIVE_STEPS, "memory=fit", cwd=tmp_path)
    assert "search.batch_size=16" in outcome.out and "5 steps" in outcome.out


def test_a_trial_that_fails_is_one_line(tmp_path):
    settings = dataclasses.asdict(
        composed(["data=npz", f"data.source.path={tmp_path / 'gone.npz'}"])
    )
    with pytest.raises(
        UserError,
        match=r"memory: a trial of search.batch_size=8 failed: .*no such file.*memory=ignore",
    ):
        tried(settings, 8)
