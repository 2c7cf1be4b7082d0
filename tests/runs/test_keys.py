"""Keys: two configurations share a result exactly if their difference cannot change it."""

import dataclasses

import pytest
import torch

from supernet.cli.composition import composed
from supernet.run import plan_of
from supernet.runs.candidate import Candidate
from supernet.runs.derive import Derive
from supernet.runs.executor import Here
from supernet.runs.export import Export
from supernet.runs.folder import State
from supernet.runs.judge import Judge
from supernet.runs.latency import Latency
from supernet.runs.search import Search
from supernet.runs.setup import CHANGE_NOTHING, Setup
from supernet.runs.training import Train
from supernet.runs.work import Work
from tests.commands import TINY

CELL = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"

# A change of the configuration -> the jobs whose result depends on it.
CHANGES = {
    "seed=1": {"search", "judge", "derive", "retrain", "random", "candidate", "export"},
    "space.search.channels=6": {
        "search",
        "judge",
        "derive",
        "retrain",
        "random",
        "candidate",
        "export",
        "latency",
    },
    "data.train_limit=200": {
        "search",
        "judge",
        "derive",
        "retrain",
        "random",
        "candidate",
        "export",
    },
    "search.lr=0.1": {"search", "judge", "derive"},
    "learner.lr=0.1": {"search", "judge", "derive"},
    "sampler=gdas": {"search", "judge", "derive"},
    "budget.params=1e6": {"search", "judge", "derive"},
    "judge.batch_size=10": {"judge", "derive"},
    "searcher=sampled": {"judge", "derive"},
    "retrain.lr=0.3": {"retrain", "random", "candidate", "export"},
    "retrain.seeds=1": set(),
    "retrain.init=inherit": {"export"},
    "baseline.architectures=5": set(),
    "rank.architectures=5": set(),
    "shortlist.held_out=0.3": {"candidate"},
    "distinct=true": {"judge", "derive"},
    "search.recompute=true": set(),
    "search.supernets=1": {"judge", "derive"},
    "jobs=2": set(),
    "checkpoint.every_seconds=1": set(),
    "tracker=none": set(),
    "memory=ignore": set(),
    "name=other": set(),
    "budget.latency_batch=2": {"latency", "search", "judge", "derive"},
}


def keys(*overrides):
    setup = Setup(composed([*TINY, "search.supernets=2", *overrides]))
    work = Work(setup, State("nowhere"))
    architecture = setup.space.decode(CELL)
    jobs = {
        "search": Search(0),
        "judge": Judge(),
        "derive": Derive(),
        "retrain": Train("retrain", 0, architecture),
        "random": Train("random", 0, architecture),
        "candidate": Candidate((CELL,)),
        "export": Export(architecture),
        "latency": Latency(),
    }
    return {name: work.key(job) for name, job in jobs.items()}


@pytest.mark.parametrize("change", CHANGES)
def test_a_key_changes_where_the_result_does(change):
    before, after = keys(), keys(change)
    assert {name for name in before if before[name] != after[name]} == CHANGES[change]


GIVEN = {
    "data.train_limit=200": True,  # the data decide on the costs
    "budget.params=1e6": True,
    "judge.batch_size=10": False,
    "search.lr=0.1": False,
}


@pytest.mark.parametrize("change", GIVEN)
def test_the_key_of_a_given_architecture_changes_where_its_costs_may(change):
    given = f"architecture='{CELL}'"
    assert (keys(given)["derive"] != keys(given, change)["derive"]) == GIVEN[change]


@pytest.mark.parametrize("change", ["threads=2", "device=meta"])
@pytest.mark.parametrize("budget", ["budget.latency_ms=9", "budget.params=1e6"])
def test_a_measured_budget_is_that_of_one_device_and_number_of_threads(change, budget, monkeypatch):
    monkeypatch.setattr("supernet.runs.setup.choose_device", lambda _: torch.device("cpu"))
    before, after = (plan_of(Setup(composed([*TINY, budget, *more]))) for more in ([], [change]))
    assert (before != after) == budget.startswith("budget.latency_ms")


def test_jobs_of_one_kind_have_keys_of_their_own():
    setup = Setup(composed(TINY))
    work, one = Work(setup, State("nowhere")), setup.space.decode(CELL)
    jobs = [
        Search(0),
        Search(1),
        Train("retrain", 0, one),
        Train("retrain", 1, one),
        Train("random", 0, one),
        Train("retrain", 0, one, "inherit"),
    ]
    assert len({work.key(job) for job in jobs}) == len(jobs)


def test_every_setting_is_part_of_the_plan_unless_it_is_named_as_one_that_changes_nothing():
    """Every section of the configuration. A new section is part of the plan automatically."""
    config = composed(TINY)
    before = plan_of(Setup(config))
    for name in {field.name for field in dataclasses.fields(config)}:
        setup = Setup(config)
        setup.settings = setup.settings | {name: "something else"}
        if name in ("search", "measure"):  # only parts of these are in the plan
            setup.settings[name] = {"something": "else", "images": 1}
        assert (plan_of(setup) == before) == (name in CHANGE_NOTHING), name


def test_constructors_set_nothing_global_and_write_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads(), torch.backends.cudnn.deterministic
    setup = Setup(composed([*TINY, "threads=7"]))
    Work(setup, State(tmp_path / "run"))
    Here()
    assert (torch.get_num_threads(), torch.backends.cudnn.deterministic) == before
    assert not list(tmp_path.rglob("*"))
