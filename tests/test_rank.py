"""``supernet rank`` from a trained supernet: what it compares, that it can be stopped and resumed,
and what it refuses.
"""

import json

import numpy as np
import pytest
from scipy.stats import kendalltau

from supernet.evaluate.untrained import SCORES
from supernet.spaces.cells import Geometry
from supernet.spaces.nb201 import NB201
from supernet.train.retrain import RetrainStage
from tests.commands import TINY, finished, supernet

SEARCH = [*TINY, "tracker=none", "search.epochs=1"]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Intervals are tested in ``tests/evaluate/test_ranking.py``."""
    monkeypatch.setattr("supernet.evaluate.ranking.RESAMPLES", 50)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The folders of two runs with the same space and images. The second has two supernets."""
    cwd = tmp_path_factory.mktemp("rank")
    return [
        finished("search", *SEARCH, *settings, cwd=cwd)
        for settings in (["method=spos"], ["method=fairnas", "search.supernets=2"])
    ]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A published table of the whole space, with meaningless figures."""
    space = NB201(Geometry(4, 1), Geometry(4, 1))
    rng, texts = np.random.default_rng(0), set()
    while len(texts) < 12_000:  # nearly all of 15,625
        texts.add(space.encode(space.random(rng)))
    path = tmp_path_factory.mktemp("table") / "table.npz"
    figures = rng.uniform(0, 100, (2, len(texts)))
    np.savez(
        path,
        arch=np.array(sorted(texts)),
        test_200=figures[0],
        test_12=figures[1],
        index=np.arange(len(texts)),
    )
    return path


def test_ranks_of_two_supernets_against_both_truths(searched, tmp_path, table, monkeypatch):
    spos, fair = searched
    arguments = [
        f"from={spos}",
        f"rank.beside=[{fair}]",
        "rank.architectures=4",
        "rank.scratch=3",
        "retrain.epochs=1",
    ]
    arguments.append(f"rank.published={table}")

    step, stopped = RetrainStage.step, []

    def stop_once(stage, index):
        if stage.name == "rank/1" and not stopped:
            stopped.append(index)
            raise KeyboardInterrupt
        return step(stage, index)

    monkeypatch.setattr(RetrainStage, "step", stop_once)
    outcome = supernet("rank", *arguments, cwd=tmp_path)
    assert outcome.code == 130
    (folder,) = tmp_path.glob("outputs/*/*")
    # the folder holds the settings of the comparison
    assert finished("rank", f"from={folder}", cwd=tmp_path) == folder
    results = json.loads((folder / "results.json").read_text())
    ranked = results["rank"]
    assert results["parent"] == str(spos)
    assert [one["name"] for one in ranked["supernets"]] == ["uniform", "fair"]

    points, against = ranked["points"], ranked["against"]
    assert len({point["text"] for point in points}) == 4
    assert [("trained from scratch" in point) for point in points] == [True, True, True, False]
    supernets = {
        f"{name}, {how}{ending}"
        for name in ("uniform", "fair", "fair, 2 together")
        for how in ("recalibrated", "as trained")
        for ending in ("", ", minus loss")
    }
    supernets |= {f"{name}, vote" for name in ("uniform", "fair", "fair, 2 together", "untrained")}
    supernets |= set(SCORES)
    single = {name for name in supernets if "uniform" in name or "together" in name}
    assert set(against["trained from scratch"]) == supernets | {"params", "madds"}
    assert set(against["published test_200"]) == set(against["trained from scratch"]) | {
        "published test_12"
    }
    for truth, correlations in against.items():
        known = [point for point in points if truth in point]
        for name, found in correlations.items():
            assert found["all"]["architectures"] == len(known)
            if name in single and found["all"]["tau"] is not None:
                tau = kendalltau(
                    [point[name] for point in known], [point[truth] for point in known]
                ).statistic
                assert found["all"]["tau"] == pytest.approx(tau)
    published = dict(
        zip(*(np.load(table)[name].tolist() for name in ("arch", "test_200")), strict=True)
    )
    assert all(point["published test_200"] == published[point["text"]] for point in points)
    assert any(point["uniform, recalibrated"] != point["uniform, as trained"] for point in points)
    for point in points:
        assert point["synflow"] != point["naswot"]
        assert point["fair, 2 together, recalibrated"] == pytest.approx(point["fair, recalibrated"])
    page = (folder / "report.html").read_text()
    assert "Rank correlation" in page
    assert "published test_12" in page

    before = (folder / "state.json").read_bytes()
    assert finished("rank", f"from={folder}", cwd=tmp_path) == folder  # nothing is done twice
    assert (folder / "state.json").read_bytes() == before

    # other networks are another truth
    wider = finished("rank", f"from={folder}", "space.evaluation.channels=6", cwd=tmp_path)
    again = json.loads((wider / "results.json").read_text())["rank"]
    assert [point["text"] for point in again["points"]] == [point["text"] for point in points]
    assert all(
        new["params"] >= old["params"] for new, old in zip(again["points"], points, strict=True)
    )
    assert again["points"] != points


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["rank.beside=[nowhere]"], "nowhere: not the folder of a run"),
        (["rank.published=nowhere.npz"], "no such file"),
        (["rank.architectures=2"], "rank.architectures=2"),
        (["space.search.channels=6", "rank.beside=[{fair}]"], "its space, geometry"),
    ],
)
def test_a_mistake_is_one_line(searched, tmp_path, wrong, said):
    spos, fair = searched
    words = [word.replace("{fair}", str(fair)) for word in wrong]
    outcome = supernet("rank", f"from={spos}", *words, cwd=tmp_path)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert said in outcome.err
