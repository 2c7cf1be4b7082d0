"""Searchers on a table: against an expectation that is known, and from the command line."""

import itertools
import json
import math
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from supernet import simulation
from supernet.cli.composition import composed
from supernet.cli.jobs import goes_on, simulations
from supernet.cli.line import parse
from supernet.cli.parent import with_parent
from supernet.errors import UserError
from supernet.report import regret
from supernet.report.simulation import page, write_simulation
from supernet.runs.compare import DIFFERS, SAME
from supernet.runs.executor import Here
from supernet.runs.folder import State
from supernet.runs.setup import Setup, option
from supernet.runs.work import counted_budget
from supernet.searchers.searcher import Searcher
from supernet.simulation import row as row_of
from supernet.track.console import Progress
from supernet.train.loop import StopRequest
from tests.commands import finished, supernet
from tests.report.parsed import Page

WIDTHS = [8, 16]
SPACE = ("space=nats_size", f"space.widths={WIDTHS}".replace(" ", ""), "tracker=none")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """All 32 networks of two widths, with accuracies that differ."""
    path = tmp_path_factory.mktemp("table") / "table.npz"
    texts = [":".join(map(str, widths)) for widths in itertools.product(WIDTHS, repeat=5)]
    sums = np.array([sum(map(int, text.split(":"))) for text in texts], float)
    test = sums + np.linspace(0, 5, len(texts))  # the largest is the best
    columns = {"test": test, "opposite": 100 - test, "price": sums, "params": 1000 * sums}
    np.savez(path, arch=np.array(texts), **columns)
    return path, dict(zip(texts, test, strict=True))


def simulated(table, *settings, cwd, code=0, space=SPACE):
    columns = ("study.target=test", "study.ranked_by=test")
    line = ("study", f"study.table={table[0]}", *columns, *space, *settings)
    if code:
        outcome = supernet(*line, cwd=cwd)
        assert outcome.code == code and outcome.err.count("\n") == 1
        return outcome.err
    found = json.loads((finished(*line, cwd=cwd) / "results.json").read_text())
    return {row["searcher"]: row for row in found["simulation"]}


def test_random_search_has_the_regret_that_combinatorics_say(table, tmp_path):
    """The best of k different networks of n: the i-th best is it with C(n - i, k - 1) / C(n, k)."""
    settings = ("study.searchers=[random]", "study.simulations=2000", "study.draws=4")
    row = simulated(table, *settings, cwd=tmp_path)["random"]
    ordered = sorted(table[1].values(), reverse=True)
    n = len(ordered)
    for k in (1, 2):
        chances = [math.comb(n - 1 - i, k - 1) / math.comb(n, k) for i in range(n)]
        regrets = [(ordered[0] - one) / 100 for one in ordered]
        mean = sum(c * r for c, r in zip(chances, regrets, strict=True))
        spread = math.sqrt(sum(c * (r - mean) ** 2 for c, r in zip(chances, regrets, strict=True)))
        assert abs(row["curve"][k - 1] - mean) < 4 * spread / math.sqrt(2000)


def test_every_searcher_finds_the_best_of_a_smooth_table_and_says_what_it_cost(table, tmp_path):
    names = "random,evolution,local_search,successive_halving,reinforce,tpe"
    settings = (f"study.searchers=[{names}]", "study.simulations=2", "study.draws=24")
    rows = simulated(table, *settings, "study.cost=price", "jobs=1", cwd=tmp_path)
    assert list(rows) == names.split(",")
    for name, row in rows.items():
        known = [regret for regret in row["curve"] if regret is not None]
        assert known == sorted(known, reverse=True) and row["curve"][-len(known) :] == known
        assert len(row["curve"]) == math.ceil(row["evaluations"]["most"]) <= 24
        assert row["cost"] == row["cost_curve"][-1] > 0
        assert sorted(row["cost_curve"]) == row["cost_curve"]
        assert (row["minus_random"] is None) == (name == "random")
    assert rows["local_search"]["optimum_found"] == 1
    few = ("study.searchers=[random,tpe]", *settings[1:], "study.cost=price", "jobs=2")
    again = simulated(table, *few, cwd=tmp_path)
    assert again == {name: rows[name] for name in ("random", "tpe")}


@pytest.mark.parametrize(
    ("space", "file", "few"),
    [
        ("space=nb_macro", "nb_macro_cifar10.npz", ("study.simulations=20", "study.draws=100")),
        (
            "space=nats_size space.widths=[8,16,24,32,40,48,56,64]",
            "nats_size_cifar10.npz",
            ("study.simulations=10", "study.draws=120"),
        ),
    ],
    ids=["nb_macro", "nats_size"],
)
def test_evolution_and_local_search_are_above_random(space, file, few, shared, tmp_path):
    """As Ying et al. (ICML 2019) and White et al. (UAI 2021) have found."""
    searchers = "study.searchers=[random,evolution,local_search]"
    place = (*space.split(), "tracker=none", "jobs=1")
    rows = simulated([shared / file], searchers, *few, cwd=tmp_path, space=place)
    for name in ("evolution", "local_search"):
        assert rows[name]["minus_random"]["ci95"][1] < 0


class Scripted(Searcher):
    """Asks for the networks of a list, each on its share of the images."""

    def __init__(self, asked):
        self.asked = list(asked)

    def ask(self):
        if not self.asked:
            return []
        text, self.share = self.asked.pop(0)
        return [self.space.decode(text)]


def test_nothing_is_found_before_the_first_whole_evaluation(table, monkeypatch):
    """By hand: 1.25 evaluations on shares of the images, then two whole ones and one that is known
    already.
    """
    names = (f"study.table={table[0]}", "study.target=test", "study.ranked_by=test")
    setup = Setup(composed([*SPACE, *names, "study.cost=price"]))
    low, high = "8:8:8:8:8", "16:8:8:8:8"  # which cost 40 and 48
    asked = [(high, 0.5), ("16:16:16:16:16", 0.5), (low, 0.25), (low, 1), (high, 1), (low, 1)]
    monkeypatch.setattr(setup, "fresh", lambda part: Scripted(asked))
    whole = simulation.table_of(setup)
    curve, paid, spent = simulation.simulated(setup, counted_budget(setup), whole, seed=0)
    first, second = (table[1][text] / 100 for text in (low, high))
    assert (curve, spent) == ([None, None, pytest.approx(first), pytest.approx(second)], 3.25)
    assert paid == [24 + 40, 74, 114, 162]  # what the judgements within so many evaluations cost

    other = {"curves": [[0.1, *9 * [0.2]]], "costs": [[*range(1, 11)]], "spent": [10]}
    row = row_of("one", {"curves": [curve], "costs": [paid], "spent": [spent]}, other, 0.9)
    assert row["curve"][:2] == [None, None] and row["evaluations"]["most"] == 3.25
    less = {"after": 4, "difference": pytest.approx(0.2 - second), "ci95": None}
    assert row["minus_random"] == less  # after as many evaluations as both have spent
    shown = regret.found([row, row_of("two", other, None, 0.9)])
    cells = {one[0]: dict(zip(shown.columns, one, strict=True)) for one in shown.rows}
    after = [cells["one"][f"regret after {place}"] for place in (1, 2, 5)]
    assert after == ["–", "–", "–"] and cells["two"]["regret after 5"] == "70.00%"
    assert (cells["one"]["evaluations"], cells["two"]["evaluations"]) == ("3.2", "10")


def test_what_is_simulated_is_kept_and_can_be_repeated(table, tmp_path, monkeypatch):
    """A Gaussian process is the second of two searchers; a stop comes when it begins."""
    begun, one_search = [], simulation.simulated

    def counted(setup, *rest):
        begun.append(option(setup.searcher))
        if begun == ["random", "random", "gp"]:
            signal.raise_signal(signal.SIGTERM)
        return one_search(setup, *rest)

    monkeypatch.setattr(simulation, "simulated", counted)
    few = ("study.searchers=[random,gp]", "study.simulations=2", "study.draws=12", "jobs=1")
    names = (f"study.table={table[0]}", "study.target=test", "study.ranked_by=test")
    stopped = supernet("study", *names, *SPACE, *few, cwd=tmp_path)
    assert stopped.code == 143
    folder = Path(re.search(r"go on with: supernet study from=(.*)", stopped.out)[1])
    begun.clear()
    assert finished("study", f"from={folder}", cwd=tmp_path) == folder and begun == ["gp", "gp"]
    results = (folder / "results.json").read_bytes()
    rows = json.loads(results)["simulation"]
    assert [row["searcher"] for row in rows] == ["random", "gp"]
    assert rows[1]["evaluations"]["most"] == len(rows[1]["curve"]) <= 12
    assert rows[1]["regret"] < 0.2

    # Everything again, bit for bit: what was changed since is found, and nothing else.
    kept = folder / "gp" / "state.json"
    state = json.loads(kept.read_text())
    state["stages"]["simulation"]["result"]["curves"][1][3] = 0.5
    kept.write_text(json.dumps(state))
    repeated = supernet("reproduce", f"from={folder}", cwd=tmp_path)
    assert (repeated.code, repeated.err) == (1, "") and repeated.folder != folder
    assert begun[2:] == ["random", "random", "gp", "gp"]
    found = [State.read(repeated.folder / name).reproduction for name in ("random", "gp")]
    assert [one["verdict"] for one in found] == [SAME, DIFFERS] and SAME in repeated.out
    assert found[1]["different"] == 1 and found[1]["first_difference"]["recorded"] == 0.5

    # Other settings are another simulation.
    fewer = with_parent(parse(["study", f"from={folder}", "study.searchers=[random]"]))
    assert goes_on(fewer, folder)
    for other in ("study.draws=11", "space.widths=[16,8]"):
        line = with_parent(parse(["study", f"from={folder}", other]))
        assert not goes_on(line, folder)
    configs = simulations(line.overrides, line.folders)
    with pytest.raises(UserError, match="choose a new folder"):
        simulation.run(configs, folder, Here(), Progress(quiet=True), StopRequest())
    assert (folder / "results.json").read_bytes() == results


def test_what_a_searcher_sees_decides_and_the_truth_judges(table, tmp_path):
    """It sees the opposite of the truth, and so it finds the worst network."""
    settings = ("study.searchers=[local_search]", "study.simulations=2", "study.draws=60")
    row = simulated(table, *settings, "study.ranked_by=opposite", cwd=tmp_path)["local_search"]
    worst = max(table[1].values()) - min(table[1].values())
    assert row["regret"] == pytest.approx(worst / 100)


def test_only_what_is_within_the_budget_counts(table, tmp_path):
    limit = 20_000  # between the smallest and the largest
    settings = ("study.searchers=[tpe]", "study.simulations=2", "study.draws=32")
    row = simulated(table, *settings, f"budget.params={limit}", cwd=tmp_path)["tpe"]
    assert row["regret"] < 0.01 and min(row["curve"]) >= -1e-9


# --- intervals, and the page


def drawn(searches, draws, worst):
    """Curves as searches leave them: the best so far of figures that begin at ``worst`` in 1000."""
    figures = worst / 1000 + 0.1 * np.random.default_rng(worst).random((searches, draws))
    curves = np.maximum.accumulate(figures, axis=1)
    costs = np.cumsum(np.ones_like(curves), 1)
    return {"curves": curves.tolist(), "costs": costs.tolist(), "spent": [draws] * searches}


@pytest.mark.parametrize("draws", [7, 1234])
def test_the_interval_along_the_curve_is_that_of_scipy(draws):
    searches = drawn(20, draws, 800)
    row = row_of("one", searches, None, 0.95)
    band, regrets = row["curve_ci95"], 0.95 - np.array(searches["curves"])
    after = band["after"]
    assert after[0] == 1 and after[-1] == draws and len(after) == min(draws, 100)
    assert len(set(np.diff(after))) <= 2  # evenly spread
    known = regrets[:, np.array(after) - 1]
    wanted = stats.t.interval(0.95, 19, known.mean(axis=0), stats.sem(known))
    assert np.allclose([band["low"], band["high"]], np.clip(wanted, 0, 1))
    assert [band["low"][-1], band["high"][-1]] == pytest.approx(row["ci95"])
    assert row_of("two", drawn(2, draws, 800), None, 0.95)["curve_ci95"] is None


def drawn_points(parsed, name):
    """The points of a line of the picture: their places from the left, and from above."""
    (path,) = parsed.paths[name]
    return np.array(re.findall(r"[ML] (\S+) (\S+)", path), float).T


def test_the_page_holds_what_the_results_say(table, tmp_path):
    searchers = "study.searchers=[random,local_search,tpe,successive_halving]"
    settings = (searchers, "study.simulations=4", "jobs=1")
    settings += ("study.cost=price",)
    line = (f"study.table={table[0]}", "study.target=test", "study.ranked_by=test", *SPACE)
    said = supernet("study", *line, *settings, "study.draws=8", cwd=tmp_path).out
    report = Path(re.search("^report: (.*)$", said, re.M)[1])
    parsed = Page(report.read_text())
    results = json.loads((report.parent / "results.json").read_text())
    rows = {row["searcher"]: row for row in results["simulation"]}
    headings, *cells = parsed.tables[0]
    shown = {cell[0]: dict(zip(headings, cell, strict=True)) for cell in cells}
    assert list(shown) == sorted(rows, key=lambda name: rows[name]["curve"][-1])
    chance = rows["random"]["curve"]
    assert rows["successive_halving"]["curve"][0] is None
    for name, row in rows.items():
        for place in (1, 2, 4):
            there = [one for one in row["curve"][place - 1 : place] if one is not None]
            said = f"{100 * there[0]:.2f}%" if there else "–"
            assert shown[name][f"regret after {place}"] == said
        low, high = (100 * row["curve_ci95"][end][-1] for end in ("low", "high"))
        assert shown[name]["95% interval"] == f"{low:.2f}% to {high:.2f}%"
        if name != "random":
            less, *_, after = shown[name]["minus random, points"].split()
            place = int(after) - 1
            wanted = 100 * (row["curve"][place] - chance[place])
            assert float(less) == pytest.approx(wanted, abs=0.0051)
        # the axis is logarithmic, so that equal ratios have equal distances
        drawn_at = [place for place, regret in enumerate(row["curve"], 1) if regret]
        if len(drawn_at) < 2:  # a point, and no line
            continue
        logs = np.log([row["curve"][place - 1] for place in drawn_at])
        paid = [row["cost_curve"][place - 1] for place in drawn_at]
        for picture, wanted in (("regret", drawn_at), ("regret-cost", paid)):
            x, y = drawn_points(parsed, f"{picture}-curve-{name}")[:, : len(logs)]
            assert np.allclose(np.polyval(np.polyfit(wanted, x, 1), wanted), x, atol=1e-3)
        slope, start = np.polyfit(logs, y, 1)
        assert slope < 0 and np.allclose(start + slope * logs, y, atol=1e-3)
    assert f"The least regret at the end: {cells[0][0]}, " in parsed.text
    page_before = report.read_text()
    report.unlink()
    assert finished("report", f"from={report.parent}", cwd=tmp_path) == report.parent
    assert report.read_text() == page_before
    assert f"study.table={table[0]}" in parsed.text and "Checklist" in parsed.text
    assert len(parsed.ids) == len(set(parsed.ids))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"curve_ci95": {"after": [9], "low": [0.1], "high": [0.2]}}, "lie along the curve"),
        ({"curve_ci95": {"after": [1], "low": [], "high": [0.2]}}, "lie along the curve"),
        ({"curve": [0.1, 0.1, 0.1]}, "must be as long"),
        ({"curve": [0.1, None]}, "must end with figures"),
        ({"curve": [None, 0.1]}, "lie along the curve"),
        ({"regret": "x"}, "simulation.0.regret"),
    ],
    ids=["far", "short", "long", "gap", "before", "text"],
)
def test_damaged_results_are_one_line(change, said, tmp_path):
    rows = [row_of(name, drawn(3, 2, 800), None, 0.95) for name in ("one", "two")]
    results = {"table": "a.npz", "target": "a", "ranked_by": "a", "cost": None, "optimum": 0.95}
    results |= {"simulations": 3, "simulation": [rows[0] | change, rows[1]]}
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match=said):
        write_simulation(tmp_path)


def test_a_difference_is_shown_where_the_test_of_welch_shows_it():
    chance = drawn(30, 9, 800)
    searches = {str(worst): drawn(30, 9, worst) for worst in range(790, 811, 4)}
    rows = [row_of(name, one, chance, 0.95) for name, one in searches.items()]
    table = regret.found([row_of("random", chance, chance, 0.95), *rows])
    said = {cells[0]: cells[table.columns.index("verdict")] for cells in table.rows}
    first, *others = regret.claims(rows, 30)
    best = min(rows, key=lambda row: row["curve"][-1])["searcher"]
    assert first.startswith(f"The least regret at the end: {best}, ")
    members = {verdict: [] for verdict in ("better", "worse", "no difference shown")}
    for name, one in searches.items():
        ends = [[curve[-1] for curve in each["curves"]] for each in (one, chance)]
        test = stats.ttest_ind(*ends, equal_var=False)
        word = "better" if test.statistic > 0 else "worse"  # of accuracies
        assert said[name] == (word if test.pvalue < 0.05 else "no difference shown")
        members[said[name]].append(name)
    assert all(members.values()) and said["random"] == "–"
    for sentence, names in zip(others, members.values(), strict=True):
        assert re.findall(r"(?:: |, )(\S+) [+-]", sentence) == names


def test_a_page_of_few_searches_compares_nothing_and_runs_no_code_of_a_name():
    hostile, two = "<img src=x onerror=alert(1)>", drawn(2, 5, 800)
    results = {"table": f"a/{hostile}.npz", "target": hostile, "ranked_by": "b", "cost": hostile}
    results |= {"optimum": 0.95, "simulations": 2}
    alone, both = (
        page("p", results | {"simulation": [row_of(name, two, chance, 0.95)]}, {}, ["a=b c"])
        for name, chance in ((hostile, None), ("tpe", drawn(2, 5, 700)))
    )
    assert "<img" not in alone and "&lt;img" in alone
    assert "Nothing is compared with random search." in alone
    assert "minus random" not in alone and "95% interval" not in Page(alone).tables[0][0]
    assert "Too few simulations to compare with random search" in both
    assert "supernet study &#39;a=b c&#39;</pre>" in both


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        *(
            ([f"study.searchers=[{name}]"], f"{name} reads what a supernet has learnt")
            for name in ("sampled", "logits", "perturbation")
        ),
        (["study.ranked_by=params"], "column params has figures from 40000 to 80000"),
        (["study.target=params"], "percentages"),
        (["study.searchers=[]"], "at least one"),
        (["study.searchers=[nothing]"], "nothing"),
        (["study.target=other"], "other"),
        (["space.widths=[8,24]"], "it must hold every architecture"),
        (["study.cost=prices"], "prices"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_does_not_fit_is_refused_in_one_line(settings, said, table, tmp_path):
    one = "study.searchers=[random]"
    assert said in simulated(table, one, *settings, "jobs=1", cwd=tmp_path, code=2)
