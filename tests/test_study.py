"""Studies: a comparison computed by hand, and a study that is stopped, resumed, inspected and
extended.
"""

import json
import re
import signal
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from supernet import study
from supernet.cli.composition import composed
from supernet.cost.budget import Budget
from supernet.runs.executor import Here
from supernet.spaces.cells import Geometry
from supernet.spaces.nb201 import NB201
from supernet.study import compare
from supernet.track.console import Progress
from supernet.train.loop import StopRequest
from supernet.train.retrain import RetrainStage
from tests.commands import TINY, finished, supernet
from tests.tasks import task_of

OPTIONS = NB201.groups[0].options
STUDY = [
    "study",
    *TINY,
    "tracker=none",
    "retrain.seeds=1",
    "baseline.architectures=1",
    "study.methods=[darts,spos]",
]


def result(method, seed, mean, chance):
    return {
        "method": method,
        "seed": seed,
        "search": {"seconds": 10.0},
        "derive": {"seconds": 1.0},
        "retrain": {"mean": mean},
        "random_baseline": {"accuracy": chance},
    }


def test_a_comparison_by_hand():
    """Each method has two seeds, which are too few for an interval. The quantile of Student's t is
    3.182 for three degrees of freedom.
    """
    results = [
        result("darts", 0, 0.5, [0.1, 0.2]),
        result("darts", 1, 0.7, [0.3, 0.4]),
        result("spos", 0, 0.7, [0.1, 0.2]),
        result("spos", 1, 0.7, [0.3, 0.4]),
    ]
    darts, spos, chance = compare(results)
    assert (darts["method"], darts["runs"], darts["mean"]) == ("darts", 2, pytest.approx(0.6))
    assert darts["ci95"] is None
    assert darts["search_seconds"] == 22.0
    assert spos["ci95"] is None
    assert chance["runs"] == 4  # the same four whatever the method: counted once
    assert chance["mean"] == pytest.approx(0.25)
    assert chance["ci95"] == pytest.approx(
        [0.25 - 3.182446 * 0.0645497, 0.25 + 3.182446 * 0.0645497], abs=1e-5
    )


def test_a_study_by_a_published_table(tmp_path):
    """The accuracy in the table is the number of convolutions, so that every expected figure is
    known.
    """
    space = NB201(Geometry(4, 1), Geometry(4, 1))
    texts = ["+".join(nodes) for nodes in product(*(node(slots) for slots in (1, 2, 3)))]
    convolutions = np.array([text.count("conv") for text in texts])
    np.savez(
        tmp_path / "table.npz",
        arch=np.array(texts),
        test_200=10.0 * convolutions,
        test_12=-convolutions,
    )
    arguments = [
        "study",
        *TINY,
        "tracker=none",
        "study.methods=[darts,gdas]",
        "study.seeds=[0,1]",
        "search.epochs=1",
        "study.draws=9",
    ]
    folder = finished(*arguments, "search.epochs=1", "study.published=table.npz", cwd=tmp_path)
    assert not list(folder.glob("*/export"))  # nothing was retrained
    results = json.loads((folder / "results.json").read_text())
    darts, gdas, chance, largest, median = results["study"]
    for method in (darts, gdas):
        found = [one for one in results["found"] if one["method"] == method["method"]]
        assert [one["seed"] for one in found] == [0, 1]
        shares = [space.decode(one["text"]).choices[0][1] for one in found]
        counts = [
            sum(option in ("nor_conv_1x1", "nor_conv_3x3") for option in share) for share in shares
        ]
        assert method["mean"] == pytest.approx(sum(counts) / 20)
        assert method["parameter_free"] == pytest.approx(1 - sum(counts) / 12)
        assert method["regret"] == pytest.approx(0.6 - method["mean"])
    # the two columns order the architectures in opposite ways
    assert chance["runs"] == 1000 and chance["mean"] < 0.15
    assert (largest["mean"], median["mean"]) == (pytest.approx(0.6), pytest.approx(0.2))
    budget = Budget(space, task_of(10, 1, (8, 8)))
    params = np.array([budget.costs(space.decode(text))["params"] for text in texts])
    limit = int(np.median(params))
    one = ("study.methods=[darts]", "study.seeds=[0]", "study.published=table.npz")
    limited = finished(*arguments, *one, f"budget.params={limit}", cwd=tmp_path)
    rows = json.loads((limited / "results.json").read_text())["study"]
    within = convolutions[params <= limit] / 10
    for row in rows:  # the regret is that within the limit
        assert row["regret"] == pytest.approx(within.max() - row["mean"])
    assert rows[-1]["mean"] == pytest.approx(np.median(within))
    again = supernet("study", f"from={folder}", "study.target=nonsense", cwd=tmp_path)
    assert (again.code, again.err.count("\n")) == (
        2,
        1,
    ) and "column unknown 'nonsense'" in again.err
    other = supernet(
        *arguments, "space=darts", "study.published=table.npz", "hydra.run.dir=other", cwd=tmp_path
    )
    assert (other.code, other.err.count("\n")) == (
        2,
        1,
    ) and "it must hold every architecture of the space darts" in other.err
    assert not list((tmp_path / "other").rglob("search-*.pt"))  # said before anything was trained


def node(slots):
    """All texts of an NB201 node with this number of incoming edges."""
    return [
        "|" + "|".join(f"{o}~{i}" for i, o in enumerate(options)) + "|"
        for options in product(OPTIONS, repeat=slots)
    ]


def test_a_study_from_start_to_end(tmp_path, monkeypatch):
    step = RetrainStage.step

    def interrupted(stage, index):
        signal.raise_signal(signal.SIGTERM)
        return step(stage, index)

    def stopped_in_retraining(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(RetrainStage, "step", interrupted)
            outcome = supernet(*arguments, cwd=tmp_path)
        assert (outcome.code, outcome.err) == (143, "")
        return Path(re.search(r"go on with: supernet study from=(.*)", outcome.out).group(1))

    folder = stopped_in_retraining(*STUDY, "study.seeds=[0]")
    assert [path.parent.name for path in folder.glob("*/state.json")] == ["darts-0"]

    (folder / ".results.json.abc.tmp").write_text("half a file")  # of a writer that was killed
    assert finished("study", f"from={folder}", cwd=tmp_path) == folder
    assert not list(folder.rglob("*.tmp"))
    results = json.loads((folder / "results.json").read_text())
    assert [row["method"] for row in results["study"]] == ["darts", "spos", "random architectures"]
    darts, spos = results["runs"]
    assert (darts["method"], spos["method"], darts["seed"], spos["seed"]) == ("darts", "spos", 0, 0)
    assert darts["random_baseline"]["accuracy"] == spos["random_baseline"]["accuracy"]
    assert (folder / "spos-0" / "export" / "model.onnx").exists()

    # Each of its runs is a run like any other.
    before = (folder / "darts-0" / "state.json").read_bytes()
    assert finished("retrain", f"from={folder}/darts-0", cwd=tmp_path) == folder / "darts-0"
    assert (folder / "darts-0" / "state.json").read_bytes() == before
    lost = supernet("report", f"from={folder}", cwd=tmp_path)
    assert (lost.code, lost.err.count("\n")) == (2, 1)
    assert "darts-0, spos-0" in lost.err
    mixed = supernet("study", f"from={folder}/darts-0", cwd=tmp_path)
    assert (mixed.code, mixed.err.count("\n")) == (2, 1)

    # Fewer methods go on in the folder, other training in a new one that reuses the searches.
    assert finished("study", f"from={folder}", "study.methods=[spos]", cwd=tmp_path) == folder
    other = stopped_in_retraining(
        "study", f"from={folder}", "study.methods=[spos]", "retrain.epochs=1"
    )
    assert other != folder
    again = json.loads((other / "spos-0" / "results.json").read_text())
    assert again["parent"] == str(folder / "spos-0")
    assert again["search"] == spos["search"]
    assert "retrain" not in again


@pytest.mark.parametrize(
    ("budget", "at_once"), [("budget.latency_ms=9", False), ("budget.params=1e6", True)]
)
def test_runs_that_measure_latencies_are_not_run_at_once(budget, at_once, tmp_path, monkeypatch):
    """Beside other runs, a latency is that of a busy machine."""

    class Two(Here):
        workers, asked = 2, 0

        def run(self, work, jobs, *how):
            self.asked += len(jobs)
            super().run(work, jobs, *how)

    def computed(run, work):
        results = {"method": "darts", "seed": 0, "retrain": {"mean": 0.5}}
        return {"results": results | {part: {"seconds": 1.0} for part in ("search", "derive")}}

    monkeypatch.setattr(study.StudyRun, "compute", computed)
    executor = Two()
    cells = {name: composed([*TINY, budget]) for name in ("darts-0", "darts-1")}
    study.run(cells, tmp_path, executor, Progress(quiet=True), StopRequest())
    assert executor.asked == 2 * at_once
