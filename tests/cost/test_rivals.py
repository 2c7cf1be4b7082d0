"""Rivals that need no search: which architectures they are, and that a run trains them."""

import itertools

import pytest

from supernet import shapes
from supernet.cli.composition import composed
from supernet.config import StudySettings
from supernet.cost.budget import Budget
from supernet.cost.count import count
from supernet.cost.latency import read_table
from supernet.cost.rivals import RIVALS, rival, uniform
from supernet.errors import UserError
from supernet.files import read_json
from supernet.runs.folder import State
from supernet.runs.setup import Setup
from supernet.runs.training import rival_trainings
from supernet.runs.work import Work
from supernet.spaces.cells import Geometry
from supernet.spaces.nats_size import NATSSize
from supernet.spaces.nb201 import NB201
from supernet.study.cells import cells_of
from tests.commands import TINY, finished, supernet
from tests.tasks import task_of

TASK = task_of(3, 1)
WIDTHS = [4, 8, 12, 16]


def everything(space):
    return [space.express(v) for v in itertools.product(*(gene.values for gene in space.genes))]


def test_the_uniform_architectures_of_equal_widths_by_hand():
    space = NATSSize(WIDTHS)
    texts = [space.encode(one) for one in uniform(space)]
    assert texts == [":".join([str(width)] * 5) for width in WIDTHS]


def test_rivals_within_a_budget_are_those_of_brute_force():
    space = NATSSize(WIDTHS[:3])
    budget = Budget(space, TASK)
    cost = budget.tables["madds"].of
    costs = {one: cost(one) for one in everything(space)}
    for share in (1.0, 0.6, 0.3):
        limit = budget.limits["madds"] = share * max(costs.values())
        fitting = [one for one in costs if costs[one] <= limit]
        alike = [one for one in fitting if len(set(space.values(one))) == 1]
        assert costs[rival("largest", budget)] == max(map(costs.get, fitting))
        assert rival("uniform", budget) == max(alike, key=costs.get)
    assert costs[rival("whole", budget)] == max(costs.values())


def test_the_cell_that_people_made_has_the_published_parameters():
    """559,386 with 16 channels and 5 cells in a stage, in the published table."""
    space = NB201(Geometry(16, 5), Geometry(16, 5))
    made = rival("hand_made", Budget(space, task_of(10, 3, (32, 32))))
    network = space.standalone(made, task_of(10, 3, (32, 32)))
    assert count(network, task_of(10, 3, (32, 32))).params == 559_386


@pytest.mark.parametrize(
    ("more", "skips", "expected"),
    [(0, "null", "hand_made"), (0, "0", "hand_made"), (-1, "null", "largest")],
)
def test_beyond_the_budget_the_largest_takes_the_place_of_what_people_made(
    more, skips, expected, tmp_path
):
    """In a run and in a study, which both say so. How many skips a method may have is no matter."""
    line = [*TINY, "method=spos", "baseline.rivals=[hand_made]"]
    free = Setup(composed(line))
    cost = count(free.space.standalone(free.space.decode(NB201.hand_made), free.task), free.task)
    config = composed([*line, f"budget.params={cost.params + more}", f"budget.skips={skips}"])
    work = Work(Setup(config), State(tmp_path))
    trained = rival_trainings(work)
    assert [job.name for job in trained] == [f"{expected}/{n}" for n in range(len(trained))] != []
    trained_costs = [work.budget.costs(job.architecture)["params"] for job in trained]
    assert max(trained_costs) <= cost.params + more
    study = StudySettings(methods=["spos"], seeds=[0])
    made = [cell.name for cell in cells_of(study, lambda cell: config) if cell.made]
    assert made == [f"{expected}-0"]


def test_where_no_uniform_architecture_fits_it_is_one_line():
    space = NATSSize(WIDTHS)
    budget = Budget(space, TASK)
    budget.limits = {"params": 1.0}
    with pytest.raises(UserError, match="no such architecture is within the budget"):
        rival("uniform", budget)


@pytest.mark.parametrize(
    ("rivals", "said"),
    [("[largst]", "did you mean 'largest'"), ("[hand_made]", "nats_size has no such")],
)
def test_a_rival_that_does_not_exist_is_one_line(rivals, said, tmp_path):
    words = ("space=nats_size", f"baseline.rivals={rivals}", "method=spos", *TINY)
    outcome = supernet("check", *words, cwd=tmp_path)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1) and said in outcome.err


def test_that_a_rival_is_missing_is_said_before_the_search(tmp_path, monkeypatch):
    monkeypatch.setattr("supernet.cost.rivals.uniform", lambda space: iter(()))
    words = ["space=nats_size", "method=spos", "baseline.rivals=[uniform]", *TINY]
    outcome = supernet(*words, "tracker=none", cwd=tmp_path)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "no such architecture is within the budget" in outcome.err
    assert "search: step" not in outcome.out


def test_a_run_trains_its_rivals_like_the_architecture_that_it_found(tmp_path):
    """With the same seeds, and the same weights to start from."""
    names = [name for name in RIVALS if name != "hand_made"]
    words = ["space=nats_size", "space.widths=[4,8]", "method=spos", "searcher.candidates=2"]
    words += [
        f"baseline.rivals=[{','.join(names)}]",
        "budget.madds=200000",
        "budget.latency_ms=50",
        "retrain.seeds=2",
        "retrain.epochs=1",
    ]
    folder = finished(
        *words, "retrain.init=inherit", "baseline.architectures=0", *TINY, cwd=tmp_path
    )
    results = read_json(folder / "results.json")
    found = results["rivals"]
    assert list(found) == names and set(RIVALS) == set(shapes.RIVALS)
    assert all(len(one["accuracy"]) == 2 for one in found.values())
    whole, largest = (found[name]["architectures"][0] for name in ("whole", "largest"))
    assert whole["text"] == "8:8:8:8:8" and whole["madds"] > 200_000 >= largest["madds"]
    table = read_table(folder / "latency.csv", NATSSize([4, 8]))
    for one in found.values():
        (each, *_) = one["architectures"]
        assert each["latency_ms"] == table.of(NATSSize([4, 8]).decode(each["text"]))
    page = (folder / "report.html").read_text()
    assert all(one["architectures"][0]["text"] in page for one in found.values())
    own = results["architecture"]["text"]
    same = [one for one in found.values() if one["architectures"][0]["text"] == own]
    for one in same:
        assert one["accuracy"] == results["retrain"]["accuracy"]
