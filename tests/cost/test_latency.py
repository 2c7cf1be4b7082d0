"""Latency tables: they are exact if the clock is exact, they measure their own error, files keep
them completely, and they can limit a budget.
"""

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from supernet.cost.budget import Budget
from supernet.cost.latency import WARM_UP, Bench, latency_error, measured, read_table, write_table
from supernet.cost.table import CostTable
from supernet.errors import UserError
from supernet.ops import DropPath, Pool
from supernet.randomness import Streams
from supernet.track.jsonlines import read_rows
from tests.commands import TINY, finished, supernet
from tests.tasks import task_of
from tests.variants import CELL_SPACES

TASK = task_of(10, 3)
SHAPE = (3, 8, 8)
CPU = torch.device("cpu")


class PlantedClock:
    """A clock that moves only when a module without children runs. The time that it adds depends on
    the module's kind, its size and the size of its image.

    Every ``slow``-th measurement takes a thousand times as long. ``calls`` lists for each
    measurement what ran in it.
    """

    def __init__(self, slow: int = 0):
        self.now, self.readings, self.slow, self.calls = 0.0, 0, slow, {}

    def __call__(self) -> float:
        self.readings += 1
        return self.now

    def planted(self, module: nn.Module, image: torch.Tensor) -> float:
        weight = getattr(module, "weight", None)
        kind = sum(map(ord, type(module).__name__ + str(getattr(module, "kernel_size", "")))) % 97
        return (1 + kind + (0 if weight is None else weight.numel()) + image[0].numel()) / 2**20

    def hook(self, module, inputs, output):
        if isinstance(module, Pool) or not (
            isinstance(module, nn.Identity | DropPath) or any(True for _ in module.children())
        ):
            if self.readings % 2:  # between the two readings of a measurement
                self.calls.setdefault(self.readings // 2, []).append(
                    (type(module).__name__, tuple(inputs[0].shape))
                )
            pace = 1000 if self.slow and (self.readings // 2) % self.slow == 0 else 1
            self.now += pace * self.planted(module, inputs[0])


@pytest.fixture
def planted():
    """Makes a bench of a space, with a clock of planted times."""
    handles = []

    def make(name, slow=0, **settings):
        clock = PlantedClock(slow)
        handles.append(register_module_forward_hook(clock.hook))
        return Bench(CELL_SPACES[name](), TASK, CPU, Streams(0), clock=clock, **settings)

    yield make
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("name", CELL_SPACES)
@pytest.mark.parametrize("slow", [0, 7])
def test_the_table_adds_up_to_whole_networks_exactly(name, slow, planted):
    """The table is compared with the standalone networks, which other code builds and runs. Single
    slow measurements change nothing.
    """
    bench = planted(name, slow)
    table = measured(bench)
    rng = np.random.default_rng(1)
    drawn = [bench.space.random(rng) for _ in range(5)]
    bench.clock.slow = 0
    for architecture in drawn:
        network = bench.space.standalone(architecture, task_of(10, 3)).eval()
        started = bench.clock.now
        with torch.no_grad():
            network(torch.zeros(1, *SHAPE))
        assert table.of(architecture) == pytest.approx(
            1000 * (bench.clock.now - started), rel=1e-12
        )
    error = latency_error(table, bench, 10)
    assert error.rank_correlation == pytest.approx(1)
    assert error.mean_relative_error == pytest.approx(0, abs=1e-12)


def test_each_operation_has_the_time_that_was_planted(planted):
    """NAS-Bench-201 by hand: three cells of 4, 8 and 16 channels at 8, 4 and 2 pixels."""
    bench = planted("nb201")
    options = measured(bench).options["edges"]
    clock, expected = bench.clock, dict.fromkeys(bench.space.groups[0].options, Fraction(0))
    for channels, size in ((4, 8), (8, 4), (16, 2)):
        image = torch.zeros(1, channels, size, size)
        norm = Fraction(clock.planted(nn.BatchNorm2d(channels), image))
        for kernel in (1, 3):
            convolution = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
            expected[f"nor_conv_{kernel}x{kernel}"] += (
                Fraction(clock.planted(convolution, image)) + norm
            )
        expected["avg_pool_3x3"] += Fraction(clock.planted(Pool(channels, "avg"), image))
    for column, option in enumerate(bench.space.groups[0].options):
        np.testing.assert_allclose(options[:, column], 1000 * float(expected[option]), rtol=1e-12)


def test_measurements_take_turns(planted):
    """Every round runs each thing once, in the same order. Nothing is measured several times in a
    row.
    """
    bench = planted("nb201", rounds=4)
    measured(bench)
    calls, each = bench.clock.calls, bench.clock.readings // 2 // (WARM_UP + 4)
    assert each > 5  # the number of things
    assert [calls.get(number) for number in range(each)] * (WARM_UP + 4) == [
        calls.get(n) for n in range(each * (WARM_UP + 4))
    ]
    assert len({str(calls.get(number)) for number in range(each)}) > each / 2


@pytest.mark.parametrize("batch_size", [1, 2])
def test_real_times_are_positive_and_the_error_is_a_figure(batch_size):
    for make in CELL_SPACES.values():
        bench = Bench(make(), task_of(3, 1), CPU, Streams(0), batch_size, rounds=2)
        before = torch.random.get_rng_state()
        table = measured(bench)
        error = latency_error(table, bench, 4)
        # the run's own random numbers are not used
        assert torch.equal(torch.random.get_rng_state(), before)
        for group in bench.space.groups:
            times, none = table.options[group.name], group.options.index("none")
            assert torch.isfinite(times).all() and (times[:, none] == 0).all()
            assert (times[:, [i for i in range(len(group.options)) if i != none]] > 0).all()
        assert 0 <= table.fixed < math.inf
        assert (
            -1 <= error.rank_correlation <= 1
            and 0 <= error.mean_relative_error < math.inf
            and error.architectures == 4
        )


# --- as a file


def random_table(name: str, seed: int = 0):
    """A table of random numbers."""
    noise, space = torch.Generator().manual_seed(seed), CELL_SPACES[name]()
    options = {
        g.name: torch.rand(g.shape, generator=noise, dtype=torch.float64) / 30 for g in space.groups
    }
    return CostTable(space, 0.1 + seed / 3, options)


@pytest.fixture(params=CELL_SPACES)
def filed(request, tmp_path):
    """A table, and the file that holds it."""
    write_table(tmp_path / "times.csv", table := random_table(request.param))
    return table, tmp_path / "times.csv"


def test_a_file_gives_back_every_bit(filed):
    table, path = filed
    again = read_table(path, table.space)
    assert again.fixed == table.fixed
    assert all(torch.equal(again.options[name], times) for name, times in table.options.items())


def test_a_file_saved_by_a_spreadsheet_is_read(filed):
    table, path = filed
    path.write_bytes(b"\xef\xbb\xbf" + path.read_text().replace("\n", "\r\n").encode() + b"\r\n")
    assert read_table(path, table.space).fixed == table.fixed


# what is replaced in the file of NAS-Bench-201, by what, and what the error says
MISTAKES = {
    "header": (["group,slot", "groups,slot"], ["line 1", "groups,slot", "group,slot,option,ms"]),
    "group": (["edges,0,none", "egdes,0,none"], ["line 3", "'egdes'", "did you mean 'edges'"]),
    "slot": (["edges,5,none", "edges,6,none"], ["line 28", "slot '6'", "0 to 5"]),
    "option": (["edges,0,none", "edges,0,nine"], ["line 3", "'nine'", "did you mean 'none'"]),
    "fixed": (["fixed,,", "fixed,0,"], ["line 2", "fixed,,,MS"]),
    "number": (["fixed,,,0.1", "fixed,,,fast"], ["line 2", "'fast'", "milliseconds"]),
    "negative": (["fixed,,,0.1", "fixed,,,-0.1"], ["line 2", "'-0.1'", "at least 0"]),
    "infinite": (["fixed,,,0.1", "fixed,,,inf"], ["line 2", "'inf'"]),
    "twice": (["edges,1,none", "edges,0,none"], ["line 8", "edges,0,none", "twice"]),
    "missing": (["fixed,,,0.1\n", ""], ["no row fixed,,", "1 of 31"]),
    "a value more": (["fixed,,,0.1", "fixed,,,0.1,0.2"], ["line 2", "5 values", "4"]),
    "quotes": (["fixed,,,0.1", 'fixed,,,"0.1'], ["not CSV", "group,slot,option,ms"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_file_is_one_line_that_says_where(mistake, tmp_path):
    (old, new), words = MISTAKES[mistake]
    table, path = random_table("nb201"), tmp_path / "times.csv"
    write_table(path, table)
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError) as error:
        read_table(path, table.space)
    assert "\n" not in str(error.value)
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_a_missing_empty_or_foreign_file_is_one_line(tmp_path):
    space, path = CELL_SPACES["nb201"](), tmp_path / "times.csv"
    with pytest.raises(UserError, match="cannot read the latency table"):
        read_table(path, space)
    for content in (b"", b"\xff\xfe\x00"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="group,slot,option,ms"):
            read_table(path, space)
    write_table(path, random_table("darts"))
    with pytest.raises(UserError, match="line 3: group: unknown 'normal'"):
        read_table(path, space)


# --- as a budget


def test_derivation_within_a_latency_is_optimal_among_all_15625_cells(tmp_path):
    table = random_table("nb201")
    write_table(tmp_path / "times.csv", table)
    every = np.array(list(itertools.product(range(5), repeat=6)))
    cost = table.fixed + table.options["edges"].numpy()[np.arange(6), every].sum(1)
    budget = Budget(
        table.space,
        TASK,
        measured={"latency_ms": read_table(tmp_path / "times.csv", table.space)},
    )
    rng = np.random.default_rng(0)
    for seed in range(30):
        scores = {
            "edges": torch.randn(
                6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
            )
        }
        budget.limits = {"latency_ms": float(rng.choice(cost))}
        found = budget.best(scores)
        chosen = [table.space.groups[0].options.index(option) for option in found["edges"]]
        gains = scores["edges"].numpy()
        best = gains[np.arange(6), every].sum(1)[cost <= budget.limits["latency_ms"]].max()
        assert budget.costs(found)["latency_ms"] <= budget.limits["latency_ms"]
        assert gains[np.arange(6), chosen].sum() == pytest.approx(best, abs=1e-9)


def test_nothing_drawn_or_derived_is_slower_than_allowed(filed):
    table, _ = filed
    rng = np.random.default_rng(0)
    times = [table.of(table.space.random(rng)) for _ in range(50)]
    limits = {"latency_ms": float(np.quantile(times, 0.3))}
    budget = Budget(table.space, TASK, limits, {"latency_ms": table})
    scores = {g.name: torch.from_numpy(rng.random(g.shape)) for g in table.space.groups}
    for architecture in [
        budget.best(scores),
        budget.largest(),
        *(budget.random(rng) for _ in range(10)),
    ]:
        assert table.of(table.space.validate(architecture)) <= limits["latency_ms"]


def test_an_impossible_latency_names_the_cheapest_architecture(filed):
    table, _ = filed
    cheapest = Budget(table.space, TASK, measured={"latency_ms": table}).cheapest("latency_ms")
    with pytest.raises(UserError, match=r"budget\.latency_ms=0\.0625: no architecture") as error:
        Budget(table.space, TASK, {"latency_ms": 0.0625}, {"latency_ms": table})
    assert table.space.encode(cheapest) in str(error.value)
    assert f"{table.of(cheapest):.6g}" in str(error.value)


# --- in a run

FEW = (
    *TINY,
    "tracker=none",
    "retrain.seeds=1",
    "retrain.epochs=1",
    "baseline.architectures=1",
    "search.epochs=1",
    "search.supernets=1",
)


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def middling(table) -> float:
    """A limit that about half of all architectures meet."""
    rng = np.random.default_rng(0)
    return float(np.median([table.of(table.space.random(rng)) for _ in range(100)]))


def test_a_run_keeps_within_a_table_of_ones_own(tmp_path):
    """From the command line. The run then does not need the file any more, and a child run takes
    over the table.
    """
    table = random_table("nb201")
    write_table(tmp_path / "times.csv", table)
    limit = middling(table)
    asked = (f"budget.latency_ms={limit}", "budget.latency_table=times.csv")
    folder = finished("retrain", *FEW, *asked, cwd=tmp_path)
    assert finished("report", f"from={folder}", cwd=tmp_path) == folder
    results = results_of(folder)
    found = table.space.decode(results["architecture"]["text"])
    chance = table.space.decode(results["random_baseline"]["architectures"][0]["text"])
    assert table.of(found) <= limit and table.of(chance) <= limit
    assert results["cost"]["latency_ms"] == table.of(found)
    path = str(tmp_path / "times.csv")
    assert results["latency"]["table"] == path
    assert f"ms by the table {path}" in (folder / "report.html").read_text()
    assert (folder / "latency.csv").read_bytes() == (tmp_path / "times.csv").read_bytes()
    (tmp_path / "times.csv").unlink()
    (folder / "architecture.json").unlink()
    assert finished("retrain", f"from={folder}", cwd=tmp_path) == folder
    child = finished(
        "derive", f"from={folder}", "searcher=random", "searcher.candidates=2", cwd=tmp_path
    )
    assert child != folder
    assert (child / "latency.csv").read_bytes() == (folder / "latency.csv").read_bytes()
    assert results_of(child)["cost"]["latency_ms"] <= limit


def test_a_run_measures_once_and_goes_on_with_what_it_measured(tmp_path, monkeypatch):
    folder = finished("latency", *FEW, cwd=tmp_path)
    error = results_of(folder)["latency"]
    assert (
        -1 <= error["rank_correlation"] <= 1
        and error["mean_relative_error"] >= 0
        and error["architectures"] == 20
    )
    table = read_table(folder / "latency.csv", CELL_SPACES["nb201"]())
    before = (folder / "latency.csv").read_bytes()

    def again(*arguments):
        raise AssertionError("measured a second time")

    monkeypatch.setattr("supernet.runs.latency.measured", again)
    assert finished("latency", f"from={folder}", cwd=tmp_path) == folder
    limit = middling(table)
    child = finished("derive", f"from={folder}", f"budget.latency_ms={limit}", cwd=tmp_path)
    assert finished("report", f"from={child}", cwd=tmp_path) == child
    results = results_of(child)
    assert (child / "latency.csv").read_bytes() == before
    assert results["latency"] == error
    assert (
        results["cost"]["latency_ms"]
        == table.of(table.space.decode(results["architecture"]["text"]))
        <= limit
    )
    page = (child / "report.html").read_text()
    assert "Kendall" in page and "latency table" in page
    assert finished("search", f"from={child}", cwd=tmp_path) == child


def test_a_table_without_a_limit_is_a_cost_to_weigh_accuracy_against(tmp_path):
    table = random_table("nb201")
    write_table(tmp_path / "times.csv", table)
    wanted = ("method=spos", "searcher=nsga2", "searcher.cost=latency_ms", "judge.cost=latency_ms")
    folder = finished("derive", *FEW, *wanted, "budget.latency_table=times.csv", cwd=tmp_path)
    assert finished("report", f"from={folder}", cwd=tmp_path) == folder
    rows = [row for row in read_rows(folder / "metrics.jsonl") if row["stage"] == "derive"]
    points = {(row["latency_ms"], row["accuracy"]) for row in rows}
    undominated = {
        (m, a)
        for m, a in points
        if not any(n <= m and b >= a and (n, b) != (m, a) for n, b in points)
    }
    front = results_of(folder)["derive"]["pareto"]
    assert [(one["latency_ms"], one["accuracy"]) for one in front] == sorted(undominated)
    assert all(one["latency_ms"] == table.of(table.space.decode(one["text"])) for one in front)
    page = (folder / "report.html").read_text()
    assert page.count("latency (ms)") == 3  # columns of two tables, and an axis
    for key in ("searcher.cost", "judge.cost"):
        outcome = supernet(
            "derive", *FEW, "method=spos", "searcher=nsga2", f"{key}=latency_ms", cwd=tmp_path
        )
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert outcome.err.startswith(
            f"supernet: {key}=latency_ms: there is no latency table; set budget.latency_ms"
        )


def test_a_budget_that_cannot_be_is_one_line(tmp_path):
    write_table(tmp_path / "times.csv", random_table("nb201"))
    asked = ("budget.latency_ms=0.01", "budget.latency_table=times.csv")
    for command in ("search", "check"):
        outcome = supernet(command, *FEW, *asked, cwd=tmp_path)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert "budget.latency_ms=0.01" in outcome.err and "the cheapest" in outcome.err
    outcome = supernet("search", *FEW, "budget.latency_ms=0", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (
        2,
        "supernet: budget.latency_ms=0.0: must be greater than 0\n",
    )
