"""Searches without a supernet: architectures are judged by training them."""

import json

import pytest

from supernet.runs.trial import epochs_of
from supernet.track.jsonlines import read_rows
from supernet.train.settings import RetrainSettings
from tests.commands import TINY, finished, supernet

LINE = [*TINY, "tracker=none", "method=random_search"]


def test_the_best_on_validation_images_is_taken(tmp_path):
    line = ["derive", *LINE, "searcher.candidates=3", "retrain.epochs=1"]
    folder = finished(*line, cwd=tmp_path)
    results = json.loads((folder / "results.json").read_text())
    rows = [row for row in read_rows(folder / "metrics.jsonl") if row["stage"] == "derive"]
    assert len(rows) == results["derive"]["judgements"] == 3
    best = min(rows, key=lambda row: (-row["accuracy"], row["loss"]))
    assert results["derive"]["inherited_accuracy"] == best["accuracy"]
    assert {name: best[name] for name in ("params", "madds")} == results["cost"]
    assert "search" not in results and not list(folder.glob("checkpoints/search*"))
    # a training decides the judgement, so another recipe judges anew
    other = finished("derive", f"from={folder}", "retrain.lr=0.2", cwd=tmp_path)
    again = [row for row in read_rows(other / "metrics.jsonl") if row["stage"] == "derive"]
    assert other != folder and [row["loss"] for row in again] != [row["loss"] for row in rows]
    assert [row["params"] for row in again] == [row["params"] for row in rows]


@pytest.mark.parametrize(("share", "epochs"), [(1.0, 20), (1 / 3, 7), (1 / 27, 1), (0.001, 1)])
def test_a_share_of_a_training_is_whole_epochs(share, epochs):
    assert epochs_of(RetrainSettings(epochs=20, batch_size=8), share) == epochs


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "method=darts", "search.supernets=0"], "reads what one has learnt"),
        (["run", "method=darts_pt", "search.supernets=0"], "reads what one has learnt"),
        (["run", "method=random_search", "retrain.init=inherit"], "retrain.init=inherit"),
        (["rank", "method=random_search"], "there is no supernet"),
    ],
    ids=lambda value: value[1] if isinstance(value, list) else "",
)
def test_what_needs_a_supernet_is_refused_in_one_line(words, said, tmp_path):
    outcome = supernet(words[0], *TINY, "tracker=none", *words[1:], cwd=tmp_path)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1) and said in outcome.err
