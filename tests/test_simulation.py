"""Searchers on a table: against an expectation that is known, and from the command line."""

import itertools
import json
import math

import numpy as np
import pytest

from tests.commands import finished, supernet

WIDTHS = [8, 16]
SPACE = ("space=nats_size", f"space.widths={WIDTHS}".replace(" ", ""), "tracker=none")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """All 32 networks of two widths, with accuracies that differ."""
    path = tmp_path_factory.mktemp("table") / "table.npz"
    texts = [":".join(map(str, widths)) for widths in itertools.product(WIDTHS, repeat=5)]
    sums = np.array([sum(map(int, text.split(":"))) for text in texts], float)
    test = sums + np.linspace(0, 5, len(texts))  # the largest is the best
    np.savez(path, arch=np.array(texts), test=test, noisy=-test, price=sums)
    return path, dict(zip(texts, test, strict=True))


def simulated(table, *settings, cwd, code=0):
    columns = ("study.target=test", "study.ranked_by=test")
    line = ("study", f"study.table={table[0]}", *columns, *SPACE, *settings)
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
        assert len(row["curve"]) == 24 and row["curve"] == sorted(row["curve"], reverse=True)
        assert row["cost"] > 0 and (row["minus_random"] is None) == (name == "random")
    assert rows["local_search"]["optimum_found"] == 1
    few = ("study.searchers=[random,tpe]", *settings[1:], "study.cost=price", "jobs=2")
    again = simulated(table, *few, cwd=tmp_path)
    assert again == {name: rows[name] for name in ("random", "tpe")}


def test_what_a_searcher_sees_decides_and_the_truth_judges(table, tmp_path):
    """It sees the opposite of the truth, and so it finds the worst network."""
    settings = ("study.searchers=[local_search]", "study.simulations=2", "study.draws=60")
    row = simulated(table, *settings, "study.ranked_by=noisy", cwd=tmp_path)["local_search"]
    worst = max(table[1].values()) - min(table[1].values())
    assert row["regret"] == pytest.approx(worst / 100)


def test_only_what_is_within_the_budget_counts(table, tmp_path):
    limit = 20_000  # between the smallest and the largest
    settings = ("study.searchers=[tpe]", "study.simulations=2", "study.draws=32")
    row = simulated(table, *settings, f"budget.params={limit}", cwd=tmp_path)["tpe"]
    assert row["regret"] < 0.01 and min(row["curve"]) >= -1e-9


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["study.searchers=[sampled]"], "reads what a supernet has learnt"),
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
