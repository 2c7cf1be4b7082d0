"""``method=petridish``, from the command line."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from supernet.cost.count import count
from supernet.export import load_bundle
from supernet.spaces.declared import declared
from supernet.spaces.growing.cells import Geometry, GrowingCells
from supernet.spaces.space import read_architecture
from supernet.study.comparison import Outcome, compare
from supernet.task import Classification
from tests.commands import TINY, finished, process, supernet
from tests.spaces import net
from tests.tasks import task_of

GROWTH = (
    *("method=petridish", "size=tiny", "data.train_limit=160", "tracker=none"),
    *("search.batch_size=32", "retrain.epochs=1", "retrain.seeds=1", "growth.models=5"),
)


def results(folder):
    return json.loads((folder / "results.json").read_text())


def models_of(folder):
    """The networks that have grown, without the times."""
    return [
        {name: value for name, value in one.items() if not name.endswith("seconds")}
        for one in results(folder)["growth"]["models"]
    ]


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """The folder of a run whose jobs ran one after the other."""
    return finished(*GROWTH, "jobs=1", cwd=tmp_path_factory.mktemp("grown"))


def test_every_network_says_where_it_comes_from_and_what_was_added(grown):
    models = results(grown)["growth"]["models"]
    assert len(models) == 5 and models[0]["parent"] is None and models[0]["added"] == {}
    for one in models[1:]:
        parent = models[one["parent"]]
        assert one["steps_of_growth"] == parent["steps_of_growth"] + 1
        assert one["params"] > parent["params"] and set(one["added"]) == {"normal", "reduce"}
        before = dict(word.split("=") for word in parent["text"].split())
        after = dict(word.split("=") for word in one["text"].split())
        for place, added in one["added"].items():
            assert after[place] == ",".join(filter(None, [before[place], added]))
    assert len({one["text"] for one in models}) == 5


def test_the_network_of_least_validation_error_is_retrained_and_exported(grown):
    found = results(grown)
    best = min(found["growth"]["models"], key=lambda one: (one["error"], one["madds"]))
    assert found["architecture"]["text"] == best["text"]
    assert found["derive"]["inherited_accuracy"] == pytest.approx(1 - best["error"])
    bundle = json.loads((grown / "export" / "bundle.json").read_text())
    assert {"network.py", "model.onnx", "model.pt2"} <= bundle["files"].keys()
    counted = found["growth"]["seconds"]
    assert counted < found["total_seconds"]


def test_the_report_shows_each_generation(grown):
    page = (grown / "report.html").read_text()
    assert "<h2>Growth</h2>" in page and 'id="growth-hull"' in page
    for number, one in enumerate(results(grown)["growth"]["models"]):
        if one["parent"] is not None:
            assert f'id="growth-child-{number}"' in page
            assert all(added in page for added in one["added"].values())


def test_how_many_jobs_run_at_once_changes_nothing(grown, tmp_path):
    other = finished("search", *GROWTH, "jobs=2", cwd=tmp_path)
    assert models_of(other) == models_of(grown)


@pytest.mark.parametrize("lost", ["model/1", "shortcuts/4"])
def test_what_is_finished_is_kept_and_what_is_missing_comes_out_the_same(grown, lost, tmp_path):
    """As after a crash of the machine: the job and all after it are missing."""
    folder = tmp_path / "run"
    shutil.copytree(grown, folder)
    state = json.loads((folder / "state.json").read_text())
    names = list(state["stages"])
    for name in names[names.index(lost) :]:
        del state["stages"][name]
        (folder / "checkpoints" / f"{name.replace('/', '-')}.pt").unlink(missing_ok=True)
    (folder / "state.json").write_text(json.dumps(state))
    outcome = supernet("search", f"from={folder}", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert models_of(folder) == models_of(grown)


def test_killed_in_the_middle_it_goes_on(grown, tmp_path):
    folder = tmp_path / "run"
    child = process(*GROWTH, "jobs=1", f"hydra.run.dir={folder}", cwd=tmp_path)
    state = folder / "state.json"
    while not (state.exists() and "model/1" in json.loads(state.read_text())["stages"]):
        assert child.poll() is None, child.communicate()
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    outcome = supernet("search", f"from={folder}", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert models_of(folder) == models_of(grown)


@pytest.mark.parametrize(
    "settings",
    [
        ["growth.by_chance=true"],
        [
            *("growth.warm_start=false", "space.macro=true", "space.places_a_step=1"),
            *("sampler.signed=true", "learner.weight=0", "space.scale=0.01"),
        ],
    ],
    ids=lambda settings: settings[0],
)
def test_every_way_of_growing_runs(settings, tmp_path):
    folder = finished("search", *GROWTH, *settings, "growth.models=3", cwd=tmp_path)
    assert len(results(folder)["growth"]["models"]) == 3


OWN = """
from torch import nn


class Block(nn.Module):
    def __init__(self, read, width, stride):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(read, width, 3, stride, 1), nn.BatchNorm2d(width)

    def forward(self, x):
        return self.norm(self.conv(x)).relu()


class Own(nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.blocks = nn.Sequential(Block(channels, 4, 1), Block(4, 8, 2), Block(8, 8, 1))
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        return self.head(self.blocks(x).mean((2, 3)))
"""


def test_a_model_of_ones_own_grows_and_is_exported_with_its_source(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    own = ("space=growing_module", "space.model=own.py:Own", "baseline.architectures=1")
    folder = finished(*GROWTH, *own, "growth.models=3", cwd=tmp_path)
    found = results(folder)
    assert all(len(one["added"]) == 1 for one in found["growth"]["models"][1:])
    network = load_bundle(folder / "export", trust=True)
    source = (folder / "export" / "network.py").read_text()
    assert (
        "class Own" in source
        and "class Grown" in source
        and "supernet" not in source.split('"""')[2]
    )
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_a_found_network_of_a_model_with_choices_grows(tmp_path):
    """A child of it computes at first what the found network does, so it is its seed."""
    model = ("space.model=net.py:Net", "baseline.architectures=1")
    (tmp_path / "net.py").write_text(Path(net.__file__).read_text())
    found = (
        finished(
            "derive", *TINY, "tracker=none", "method=spos", "space=module", *model[:1], cwd=tmp_path
        )
        / "architecture.json"
    )
    grows = (*GROWTH, "space=growing_module", *model)
    for setting, said in (
        ("space.model=net.py:Net", "space.architecture=RUN_DIR"),
        ("space.model=resnet10t", "leave it out"),
    ):
        with_found = [] if "net.py" in setting else [f"space.architecture={found}"]
        outcome = supernet("check", *grows, setting, *with_found, cwd=tmp_path)
        assert outcome.code == 2 and said in outcome.err
    folder = finished(*grows, f"space.architecture={found}", "growth.models=2", cwd=tmp_path)
    space = declared(net.Net)
    task = Classification((1, 8, 8), 10)
    alone = space.standalone(read_architecture(space, str(found)), task)
    seed, child = results(folder)["growth"]["models"]
    assert seed["params"] == sum(one.numel() for one in alone.parameters())
    assert child["params"] > seed["params"]
    assert load_bundle(folder / "export", trust=True)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_a_decoder_of_text_grows(tmp_path):
    text = tmp_path / "book.txt"
    text.write_text("the cat sat on the mat. " * 800)
    source = ("data=text", f"data.source.path={text}", "space=growing_text")
    folder = finished(*GROWTH, *source, "growth.models=3", "baseline.architectures=1", cwd=tmp_path)
    added = [one["added"] for one in results(folder)["growth"]["models"][1:]]
    assert all("@" in text for one in added for text in one.values())


def test_check_says_what_can_be_added(tmp_path):
    outcome = supernet("check", *GROWTH, cwd=tmp_path)
    assert outcome.code == 0 and "seed 1x1x1: " in outcome.out and "normal: 14" in outcome.out


def test_a_study_compares_growth_with_searches(grown):
    found = results(grown)
    other = {"method": "darts", "seed": 0, "retrain": {"mean": 0.5}, "search": {"seconds": 1.0}}
    both = [found, other | {"derive": {"seconds": 2.0}}]
    compared = compare([Outcome(one["method"], 0, "s", "d", 0.5, one) for one in both])
    rows = {row["method"]: row for row in compared}
    assert rows.keys() == {"petridish", "darts", "random architectures"}
    assert rows["petridish"]["search_seconds"] == pytest.approx(found["growth"]["seconds"])
    assert rows["darts"]["search_seconds"] == 3.0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["space=nb201"], "does not grow"),
        (["growth.models=0"], "choose method=petridish"),
        (["method=spos", "space=growing_cells", "growth.models=0"], "choose method=petridish"),
        (["retrain.init=inherit"], "retrain.init=inherit"),
        (["search.supernets=2"], "search.supernets"),
        (["space.seeds=[3x2]"], "CELLSxREDUCTIONSxNODES"),
        (["space.seeds=[0x2x1]"], "at least one cell"),
        (["space.keep=0"], "space.keep=0"),
        (["budget.latency_ms=1"], "budget.latency_ms"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_does_not_fit_is_refused_in_one_line(settings, said, tmp_path):
    outcome = supernet(*GROWTH, *settings, cwd=tmp_path)
    assert outcome.code == 2 and said in outcome.err
    assert outcome.err.startswith("supernet: ") and outcome.err.count("\n") == 1


def test_the_best_within_the_budget_is_taken(grown, tmp_path):
    models = results(grown)["growth"]["models"]
    text = min(models, key=lambda one: one["params"])["text"]
    geometry = Geometry(4)
    space = GrowingCells(geometry, geometry, ["1x1x1"], keep=1, steps=2)
    task = task_of(10, 1)
    limit = count(space.standalone(space.decode(text), task), task).params
    found = results(finished("derive", f"from={grown}", f"budget.params={limit}", cwd=tmp_path))
    assert found["architecture"]["text"] == text
    outcome = supernet("derive", f"from={grown}", "budget.params=10", cwd=tmp_path)
    assert outcome.code == 2 and "none of the 5 networks" in outcome.err
