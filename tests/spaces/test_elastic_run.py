"""A user's own space, from the command line: search, derivation, retraining, budgets, export,
report and latency. No line of the package knows this space.
"""

import json

import pytest
import torch

from supernet.cost.count import count
from supernet.export import load_bundle
from supernet.files import read_json
from supernet.mixture import Architecture
from tests.commands import TINY, finished, supernet
from tests.spaces.elastic import Elastic, PlainNet
from tests.tasks import task_of

SPACE = Elastic(blocks=2)
TASK = task_of(10, 1)
OWN = ["space._target_=tests.spaces.elastic.Elastic", "+space.blocks=2"]
QUICK = [*TINY, "tracker=none", "search.epochs=1", "retrain.epochs=1", "retrain.seeds=1"]
QUICK += ["baseline.architectures=1"]
LIMIT = 30_000
EVOLUTION = ["searcher=evolution", "searcher.candidates=6", "searcher.population=3"]
RUNS = {
    "softmax": ["method=darts"],
    "uniform": ["method=spos", *EVOLUTION, "searcher.sample=2"],
    "inherited": [
        "method=spos",
        "searcher=random",
        "searcher.candidates=3",
        "retrain.init=inherit",
    ],
}


@pytest.mark.parametrize("name", RUNS)
def test_a_whole_run(name, tmp_path):
    folder = finished(*OWN, *QUICK, *RUNS[name], f"budget.madds={LIMIT}", cwd=tmp_path)
    results, found = (read_json(folder / f"{n}.json") for n in ("results", "architecture"))
    architecture = SPACE.validate(Architecture.from_dict(found))
    assert SPACE.decode(found["text"]) == architecture and "graph" not in found
    cost = count(SPACE.standalone(architecture, TASK), TASK)
    assert results["cost"] == {"params": cost.params, "madds": cost.madds}
    assert 0 < cost.madds <= LIMIT
    assert all(one["madds"] <= LIMIT for one in results["random_baseline"]["architectures"])
    assert results["retrain"]["architectures"][0]["text"] == found["text"]

    about = read_json(folder / "export" / "architecture.json")
    network, exported = (
        PlainNet(**about["network"]["settings"]),
        load_bundle(folder / "export", trust=True),
    )
    network.load_state_dict(exported.state_dict())
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert type(exported) is not PlainNet and torch.equal(network.eval()(images), exported(images))

    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logits = {key for row in rows for key in row if key.startswith("logits/")}
    assert bool(logits) == (name == "softmax")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert found["text"] in page and ("logits-kernel" in page) == (name == "softmax")


def test_a_latency_table_and_what_the_space_cannot_do(tmp_path):
    folder = finished("latency", *OWN, *QUICK, cwd=tmp_path)
    assert (folder / "latency.csv").read_text().startswith("group,slot,option,ms\nfixed,,,")
    for setting, words in {
        "guard=[oles]": "guard=[oles]: the space elastic does not hold each option as a module",
        "search.depths=[[0,0.5],[0.5,1]]": (
            "search.depths: the space elastic cannot change the size"
        ),
        "modifier=auxiliary_skip": "the space elastic has no skip option",
    }.items():
        outcome = supernet(*OWN, *QUICK, "method=darts", setting, cwd=tmp_path)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1) and words in outcome.err
