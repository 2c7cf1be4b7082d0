"""Whole runs as a user starts them, small but real: what they write, and how one continues from
another.
"""

import html
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
import yaml

from supernet.cli.jobs import made
from supernet.config import build
from supernet.cost.count import count
from supernet.data import Digits
from supernet.errors import UserError
from supernet.files import read_json, write_json
from supernet.mixture import Architecture
from supernet.track.jsonlines import read_rows
from supernet.train.search import SearchStage
from tests.commands import TINY, as_wandb, finished, supernet, wandb_rows
from tests.tasks import task_of

KNOWN = "|skip_connect~0|+|none~0|nor_conv_1x1~1|+|none~0|none~1|skip_connect~2|"

ONE = ["retrain.seeds=1", "baseline.architectures=0"]  # a single retraining

RUNS = {
    "darts": [*TINY],
    "spos": [*TINY, "method=spos", "searcher.candidates=10"],
    "darts space": [*TINY, "space=darts", "method=darts"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A function from a name in RUNS to the folder of that finished run. Each is run once."""
    folders = {}

    def folder(name):
        if name not in folders:
            folders[name] = finished("run", *RUNS[name], cwd=tmp_path_factory.mktemp("run"))
        return folders[name]

    return folder


@pytest.fixture(params=RUNS)
def run(request, runs):
    """A finished run. Tests must not change it."""
    return runs(request.param)


@pytest.fixture
def darts(runs, tmp_path):
    """A copy of a finished run of DARTS. Tests may change it."""
    return shutil.copytree(runs("darts"), tmp_path / "darts")


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def content(folder):
    """The bytes of every file, except the report and the files of W&B, which contain times."""
    files = (
        path
        for path in folder.rglob("*")
        if path.is_file() and "wandb" not in path.parts and path.name != "report.html"
    )
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# --- what a run leaves behind


def test_the_folder_is_complete(run, runs):
    names = {path.name for path in run.iterdir()}
    # the other runs judge only the architecture that is best by the logits
    several = {"pareto"} if run == runs("spos") else set()
    assert names == several | {
        ".hydra",
        ".lock",
        "architecture.json",
        "checkpoints",
        "export",
        "metrics",
        "metrics.jsonl",
        "report.html",
        "results.json",
        "state.json",
        "wandb",
    }
    assert {path.name for path in (run / "export").iterdir()} == {
        "architecture.json",
        "bundle.json",
        "model.onnx",
        "model.pt2",
        "model.safetensors",
        "network.py",
    }
    assert not list(run.rglob("*.tmp"))


def test_results_hold_every_figure(run):
    results = results_of(run)
    assert set(results) >= {
        "schema",
        "seed",
        "space",
        "method",
        "data",
        "architecture",
        "cost",
        "search",
        "derive",
        "retrain",
        "random_baseline",
        "environment",
        "total_seconds",
    }
    assert set(results["search"]) >= {"seconds", "steps", "peak_memory_bytes"}
    assert results["search"]["steps"] == 10 * results["search"]["supernets"]
    assert 0 <= results["derive"]["inherited_accuracy"] <= 1
    assert results["environment"]["torch"] == torch.__version__.partition("+")[0]
    for part in ("retrain", "random_baseline"):
        accuracy = results[part]["accuracy"]
        assert len(accuracy) == 2
        assert results[part]["mean"] == pytest.approx(np.mean(accuracy))
        assert results[part]["ci95"] is None  # two values have no interval
        assert results[part]["seconds"] > 0
    difference = results["retrain"]["mean"] - results["random_baseline"]["mean"]
    assert results["found_minus_random"] == {"mean": pytest.approx(difference), "ci95": None}
    seconds = [
        results[part]["seconds"] for part in ("search", "derive", "retrain", "random_baseline")
    ]
    assert results["total_seconds"] == pytest.approx(sum(seconds))
    assert json.loads((run / "architecture.json").read_text()) == results["architecture"]


def test_figures_are_those_of_the_exported_network(run):
    """The accuracy on the test images and the number of weights are measured on the exported files,
    without code of this project.
    """
    results = results_of(run)
    about = json.loads((run / "export" / "architecture.json").read_text())
    assert about["metadata"]["class_names"] == results["classes"] == list("0123456789")
    test = Digits().load().test
    mean, std = (np.array(about[name], np.float32).reshape(1, -1, 1, 1) for name in ("mean", "std"))
    images = (test.pixels.numpy().astype(np.float32) / 255 - mean) / std
    session = onnxruntime.InferenceSession(
        run / "export" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(None, {"images": images})
    right = (logits.argmax(axis=1) == test.labels.numpy()).mean()
    assert results["retrain"]["accuracy"][0] == pytest.approx(right, abs=1e-6)
    weights = safetensors.torch.load_file(run / "export" / "model.safetensors")
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    assert results["cost"]["params"] == sum(
        w.numel() for name, w in weights.items() if not name.endswith(buffers)
    )


def test_the_report_says_that_there_were_several_supernets(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    several = results_of(run)["search"]["supernets"] > 1
    assert ("supernets, each trained from a new start" in page) == several


def test_metrics_and_wandb_hold_the_same_rows(run):
    rows = read_rows(run / "metrics.jsonl")
    last = {row["stage"]: row["step"] for row in rows}
    trained = {"retrain/0": 20, "retrain/1": 20, "random/0": 20, "random/1": 20}
    searched = {f"search/{i}": 10 for i in range(results_of(run)["search"]["supernets"])}
    assert last == searched | {"derive": 10 if "spos" in str(run) else 1} | trained
    learns = "spos" not in run.name
    assert any(name.startswith("logits/") for row in rows for name in row) == learns
    assert any(name.startswith("entropy/") for row in rows for name in row) == learns
    for stage in trained:
        assert (
            0
            <= next(
                row["test_accuracy"]
                for row in rows
                if row["stage"] == stage and "test_accuracy" in row
            )
            <= 1
        )
    assert wandb_rows(run) == as_wandb(rows)


def test_the_report_shows_what_was_found(run):
    page = html.unescape((run / "report.html").read_text(encoding="utf-8"))
    assert results_of(run)["architecture"]["text"] in page
    assert str(results_of(run)["environment"]["torch"]) in page


def test_the_networks_run_where_this_project_is_not(runs, tmp_path):
    code = (
        "import json, runpy, sys, torch\n"
        "for place, weights in zip(sys.argv[1::2], sys.argv[2::2]):\n"
        "    file = runpy.run_path(place + '/network.py')\n"
        "    model = file['network'](); model.load_state_dict(torch.load(weights))\n"
        "    torch.manual_seed(0)\n"
        "    print(json.dumps(model.eval()(torch.randn(2, *file['INPUT_SHAPE'])).tolist()))\n"
        "assert not any(name.partition('.')[0] == 'supernet' for name in sys.modules)\n"
    )
    places, words = [runs(name) / "export" for name in RUNS], []
    for number, place in enumerate(places):
        weights = tmp_path / f"{number}.pt"
        torch.save(safetensors.torch.load_file(place / "model.safetensors"), weights)
        words += [str(place), str(weights)]
    command = [sys.executable, "-IB", "-c", code, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    for place, line in zip(places, done.stdout.splitlines(), strict=True):
        session = onnxruntime.InferenceSession(
            place / "model.onnx", providers=["CPUExecutionProvider"]
        )
        np.testing.assert_allclose(
            json.loads(line), session.run(None, {"images": images})[0], rtol=1e-4, atol=1e-5
        )


def test_a_search_within_a_budget_leaves_its_pareto_front(tmp_path):
    limit = 12_000
    search = [
        "searcher=evolution",
        "searcher.candidates=16",
        "searcher.population=4",
        "judge.cost=madds",
    ]
    folder = finished(
        "derive",
        *TINY,
        "method=spos",
        *search,
        f"budget.params={limit}",
        "tracker=none",
        cwd=tmp_path,
    )
    results, rows = (
        results_of(folder),
        [row for row in read_rows(folder / "metrics.jsonl") if row["stage"] == "derive"],
    )
    front = results["derive"]["pareto"]
    assert results["derive"]["searcher"] == "evolution"
    assert 1 < results["derive"]["evaluated"] == len(rows) <= 16
    assert all(row["params"] <= limit for row in rows)
    points = {(row["madds"], row["accuracy"]) for row in rows}
    undominated = {
        (m, a)
        for m, a in points
        if not any(n <= m and b >= a and (n, b) != (m, a) for n, b in points)
    }
    assert [(one["madds"], one["accuracy"]) for one in front] == sorted(undominated)
    space = build(yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())["space"], "space")
    assert sorted(path.name for path in (folder / "pareto").iterdir()) == [
        f"{i:02}.json" for i in range(1, len(front) + 1)
    ]
    for number, one in enumerate(front, start=1):
        value = json.loads((folder / "pareto" / f"{number:02}.json").read_text())
        architecture = space.validate(Architecture.from_dict(value))
        cost = count(space.standalone(architecture, task_of(10, 1)), task_of(10, 1))
        assert (one["params"], one["madds"], one["text"]) == (
            cost.params,
            cost.madds,
            value["text"],
        ) and cost.params <= limit
    # of equally accurate architectures the front holds the cheapest
    assert results["derive"]["inherited_accuracy"] == front[-1]["accuracy"]
    page = Path(
        supernet("report", f"from={folder}", cwd=tmp_path).folder / "report.html"
    ).read_text()
    assert "pareto/01.json" in page and 'id="pareto-front"' in page


def test_smaller_images_reach_the_export_and_the_report(tmp_path):
    small = ["data.image_size=4", "search.supernets=1", *ONE, "tracker=none"]
    folder = finished("run", *TINY, *small, cwd=tmp_path)
    about = json.loads((folder / "export" / "architecture.json").read_text())
    assert about["input_shape"] == [1, 4, 4] and about["metadata"]["averaged_down_from"] == [8, 8]
    images = Digits().load().averaged(4)
    assert about["mean"] == images.mean.tolist() and about["std"] == images.std.tolist()
    session = onnxruntime.InferenceSession(
        folder / "export" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    pixels = (
        images.test.pixels.numpy().astype(np.float32) / 255
        - images.mean.numpy().reshape(1, -1, 1, 1)
    ) / images.std.item()
    (logits,) = session.run(None, {"images": pixels})
    results = results_of(folder)
    assert results["retrain"]["accuracy"][0] == pytest.approx(
        (logits.argmax(1) == images.test.labels.numpy()).mean(), abs=1e-6
    )
    assert results["search"]["fidelity"]["image size"] == {
        "setting": "data.image_size",
        "value": [4, 4],
        "full": [8, 8],
    }
    assert results["retrain"]["fidelity"]["training images"] == {
        "setting": "data.train_limit",
        "value": 320,
        "full": 1438,
    }
    page = (folder / "report.html").read_text()
    for shown in (
        "4×4 of 8×8 (data.image_size)",
        "320 of 1,438 (data.train_limit)",
        "4 of 16 (space.evaluation.channels)",
    ):
        assert page.count(shown) == (1 if "space" in shown else 2)
    for size, words in ((9, "at most 8"), (0, "at least 1")):
        outcome = supernet("check", *TINY, f"data.image_size={size}", cwd=tmp_path)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1) and words in outcome.err


def test_real_photographs(shared, tmp_path):
    join = [
        sys.executable,
        str(shared / "join.py"),
        "cifar.npz",
        "--train",
        "400",
        "--test",
        "100",
        "--size",
        "16",
    ]
    subprocess.run(join, cwd=tmp_path, check=True, capture_output=True)
    overrides = [
        "data=npz",
        "data.source.path=cifar.npz",
        "size=tiny",
        "tracker=none",
        "retrain.seeds=1",
    ]
    results = results_of(
        finished("retrain", *overrides, "method=spos", "searcher.candidates=5", cwd=tmp_path)
    )
    assert results["data"] == "npz"
    assert len(results["retrain"]["accuracy"]) == 1
    assert len(results["random_baseline"]["accuracy"]) == 2


# --- how one run goes on from another


def test_a_finished_run_is_not_run_again(darts, tmp_path):
    before = content(darts)
    for command in ("search", "retrain", "run"):
        assert finished(command, f"from={darts}", cwd=tmp_path) == darts
        assert content(darts) == before
    assert wandb_rows(darts) == as_wandb(read_rows(darts / "metrics.jsonl"))


def test_what_is_lost_is_made_again(darts, tmp_path):
    before, page = content(darts), (darts / "report.html").read_bytes()
    shutil.rmtree(darts / "export")
    (darts / "report.html").unlink()
    assert finished("run", f"from={darts}", cwd=tmp_path) == darts
    again = content(darts)
    assert again.keys() == before.keys()
    assert [name for name in before if again[name] != before[name]] in (
        [],
        ["export/bundle.json", "export/model.pt2"],
    )
    assert (darts / "report.html").read_bytes() == page


def test_evaluate_judges_and_leaves_the_run_alone(darts, tmp_path):
    before = content(darts)
    derived = supernet("evaluate", f"from={darts}", cwd=tmp_path)
    assert derived.code == 0
    assert f"accuracy {results_of(darts)['derive']['inherited_accuracy']:.4f}" in derived.out
    other = supernet(
        "evaluate",
        f"from={darts}",
        "architecture=|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|",
        cwd=tmp_path,
    )
    assert other.code == 0
    assert other.out != derived.out
    assert content(darts) == before
    wrong = supernet("evaluate", f"from={darts}", "search.epochs=9", cwd=tmp_path)
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "no trained supernet of these settings" in wrong.err
    assert content(darts) == before


def test_another_retraining_starts_a_folder_that_names_its_parent_and_outlives_it(darts, tmp_path):
    before, parent = content(darts), results_of(darts)
    child = finished("retrain", f"from={darts}", "retrain.epochs=1", cwd=tmp_path)
    results = results_of(child)
    assert child.parent.parent.parent == tmp_path
    assert content(darts) == before
    assert results["parent"] == str(darts)
    for part in ("search", "derive", "architecture", "cost"):
        assert results[part] == parent[part]
    assert results["retrain"]["accuracy"] != parent["retrain"]["accuracy"]
    assert results["random_baseline"]["accuracy"] != parent["random_baseline"]["accuracy"]
    assert (child / "architecture.json").read_bytes() == (darts / "architecture.json").read_bytes()
    rows = [
        row for row in read_rows(darts / "metrics.jsonl") if row["stage"] in ("search/0", "derive")
    ]
    assert [
        row for row in read_rows(child / "metrics.jsonl") if row["stage"] in ("search/0", "derive")
    ] == rows
    # what a stage has begun in the child gives way to what the parent has finished
    state = read_json(child / "state.json")
    for name in ("search/0", "judge", "derive"):
        del state["stages"][name]
    write_json(child / "state.json", state)
    begun = child / "checkpoints" / "search-0.pt"
    begun.write_bytes((child / "checkpoints" / "retrain-0.pt").read_bytes())
    assert finished("retrain", f"from={child}", cwd=tmp_path) == child
    assert begun.read_bytes() == (darts / "checkpoints" / "search-0.pt").read_bytes()
    shutil.rmtree(darts)
    kept = content(child)
    assert finished("retrain", f"from={child}", cwd=tmp_path) == child
    assert content(child) == kept


def test_what_a_derivation_by_perturbation_logged_goes_with_it(tmp_path):
    tuned = ["searcher=perturbation", "searcher.tune_epochs=1", "search.epochs=1", "tracker=none"]
    parent = finished("derive", *TINY, "method=darts", *tuned, *ONE, cwd=tmp_path)
    child = finished("retrain", f"from={parent}", "retrain.epochs=1", cwd=tmp_path)
    rows = {
        folder: [row for row in read_rows(folder / "metrics.jsonl") if row["stage"] == "tuning"]
        for folder in (parent, child)
    }
    assert rows[child] == rows[parent] != []
    assert (child / "checkpoints" / "tuning.pt").exists()


def test_a_given_architecture_inherits_from_a_supernet_that_is_trained_first(tmp_path):
    given = f"architecture={KNOWN}"
    words = [*TINY, "tracker=none", "search.epochs=1", *ONE, "retrain.init=inherit", given]
    folder = finished("retrain", *words, cwd=tmp_path)
    results = results_of(folder)
    assert results["architecture"]["text"] == KNOWN and results["search"]["steps"] > 0


def test_more_seeds_reuse_the_first_ones(darts, tmp_path):
    child = finished("retrain", f"from={darts}", "retrain.seeds=3", cwd=tmp_path)
    before, after = results_of(darts), results_of(child)
    assert after["retrain"]["accuracy"][:2] == before["retrain"]["accuracy"]
    assert len(after["retrain"]["accuracy"]) == 3
    assert after["random_baseline"] == before["random_baseline"]


def test_inherited_weights_are_another_start(darts, tmp_path):
    child = finished(
        "retrain", f"from={darts}", "retrain.init=inherit", "baseline.architectures=0", cwd=tmp_path
    )
    results = results_of(child)
    assert results["retrain"]["init"] == "inherit"
    assert results["retrain"]["accuracy"] != results_of(darts)["retrain"]["accuracy"]
    assert "random_baseline" not in results


@pytest.mark.parametrize(("method", "other"), [("darts", "spos"), ("spos", "darts")])
def test_a_method_starts_from_the_weights_of_another(method, other, runs, tmp_path, monkeypatch):
    parent, first = runs(method), []

    def step(stage, index):
        first.append(
            (index, {name: value.clone() for name, value in stage.supernet.state_dict().items()})
        )
        raise UserError("seen enough")

    monkeypatch.setattr(SearchStage, "step", step)
    # With another seed the splits differ: images that judge now would have trained the old weights.
    # Nothing is taken over then.
    for seed in (0, 1):
        assert (
            supernet(
                "search", f"from={parent}", f"method={other}", f"seed={seed}", cwd=tmp_path
            ).code
            == 2
        )
    trained = torch.load(parent / "checkpoints" / "search-0.pt")["state"]["supernet"]
    (index, warm), (_, cold) = first
    assert index == 0
    assert all(torch.equal(warm[name], value) for name, value in trained.items())
    assert not all(torch.equal(cold[name], value) for name, value in trained.items())


def test_a_warm_start_is_on_record_and_resumes_without_its_parent(darts, tmp_path):
    child = finished("search", f"from={darts}", "method=spos", cwd=tmp_path)
    results, before = results_of(child), results_of(darts)
    assert results["search"]["warm_start"] == {"folder": str(darts)} | before["search"]
    assert (results["parent"], results["method"], before["search"]["method"]) == (
        str(darts),
        "spos",
        "steady_darts",
    )
    assert results["total_seconds"] == pytest.approx(
        before["search"]["seconds"] + results["search"]["seconds"]
    )
    third = finished("search", f"from={child}", "method=fairnas", cwd=tmp_path)
    results = results_of(third)
    # the whole chain of runs is recorded, and what all of them cost
    assert results["search"]["warm_start"]["warm_start"]["method"] == "steady_darts"
    assert results["total_seconds"] > results_of(child)["total_seconds"]
    shutil.rmtree(darts)
    # another searcher makes a new folder, a grandchild
    assert finished("derive", f"from={child}", "searcher.candidates=3", cwd=tmp_path) != child
    assert finished("search", f"from={child}", cwd=tmp_path) == child


def test_a_given_architecture_needs_no_search(tmp_path):
    words = [*TINY, "tracker=none", *ONE, f"architecture={KNOWN}"]
    folder = finished("retrain", *words, cwd=tmp_path)
    results = results_of(folder)
    assert results["architecture"]["text"] == KNOWN
    assert results["derive"]["searcher"] == "given"
    assert "search" not in results
    assert not (folder / "checkpoints" / "search-0.pt").exists()
    again = finished(
        "retrain", f"from={folder}", f"architecture={folder}/architecture.json", cwd=tmp_path
    )
    assert again == folder  # the same architecture, however it is written


def test_a_search_alone_can_be_reported(tmp_path):
    words = [*TINY, "tracker=none", "search.supernets=1"]
    folder = finished("search", *words, cwd=tmp_path)
    assert finished("report", f"from={folder}", cwd=tmp_path) == folder
    assert "Shares of the options" in (folder / "report.html").read_text()
    outcome = supernet("evaluate", f"from={folder}", cwd=tmp_path)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "no derived architecture" in outcome.err


# --- folders


def test_no_two_runs_share_a_folder(tmp_path):
    assert [made(tmp_path / "a" / "run").name for _ in range(3)] == ["run", "run-2", "run-3"]


def test_a_folder_that_holds_another_run_is_not_touched(darts, tmp_path):
    before = content(darts)
    outcome = supernet("search", *TINY, "seed=3", f"hydra.run.dir={darts}", cwd=tmp_path)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "other settings" in outcome.err
    assert content(darts) == before


def test_a_sweep_runs_every_job_in_a_folder_of_its_own(tmp_path):
    quick = ["tracker=none", "search.epochs=1", "search.supernets=1"]
    outcome = supernet("search", "-m", *TINY, *quick, "seed=0,1", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    folders = sorted(tmp_path.glob("multirun/*/*/*/results.json"))
    assert [json.loads(path.read_text())["seed"] for path in folders] == [0, 1]
    one = folders[1].parent
    assert finished("search", f"from={one}", cwd=tmp_path) == one
    sweep = supernet("export", f"from={one.parent}", cwd=tmp_path)
    assert (sweep.code, sweep.err.count("\n")) == (2, 1)
    assert one.name in sweep.err
