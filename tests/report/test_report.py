"""The report, read back: as HTML by the standard library's parser, its figures as SVG."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from supernet.errors import UserError
from supernet.report.cell import levels, nodes_of
from supernet.report.page import write_report
from supernet.report.plots import COLLAPSE, POINTS, logit_shares, pareto, search_curves
from tests.report.conftest import RETRAIN_EPOCHS, SEARCH_EPOCHS, SPACES, results, rows, write

VOID = {"meta", "br", "img", "hr", "link", "input"}


class Page(HTMLParser):
    """The elements by id with all that lies in them, the visible text, and whether every tag is
    closed in its place.
    """

    def __init__(self, html: str):
        super().__init__()
        self.open: list[tuple[str, str | None]] = []
        self.ids: list[str] = []
        self.paths: dict[str, list[str]] = {}
        self.attributes: list[tuple[str, str]] = []
        self.pieces: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(self.pieces)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.attributes += attrs
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "path":
            for _, within in [*self.open, (tag, found.get("id"))]:
                if within:
                    self.paths.setdefault(within, []).append(found["d"])
        if tag not in VOID:
            self.open.append((tag, found.get("id")))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if not self.open or self.open[-1][0] != "style":
            self.pieces.append(data)


def read(folder: Path) -> tuple[Page, str]:
    html = write_report(folder).read_text(encoding="utf-8")
    return Page(html), html


@pytest.fixture(scope="module")
def report(run_folder) -> tuple[Page, str]:
    return read(run_folder)


@pytest.fixture
def page(report) -> Page:
    return report[0]


def points(path: str) -> int:
    """Corners of an SVG path."""
    return len(re.findall(r"[ML]", path))


def test_the_page_is_whole_and_loads_nothing(report):
    page, html = report
    assert html.startswith("<!doctype html>")
    assert len(page.ids) == len(set(page.ids))
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert value.startswith("#"), (name, value)
            assert value[1:] in page.ids
    for target in re.findall(r"url\(([^)]*)\)", html):
        assert target.startswith("#")
        assert target[1:] in page.ids
    assert not re.search(r"@import|<script|<link|<iframe|<img", html)


def test_every_figure_is_shown(run_folder, page):
    value = json.loads((run_folder / "results.json").read_text())
    assert page.text.count(value["name"]) == 2  # title and heading
    assert page.text.count(value["architecture"]["text"]) == 2
    for shown in (
        "73,754",
        "1,234,567",
        "97.96%",
        "96.29% to 99.63%",
        "40.1",
        "98.11%, 97.22%, 98.55%",
    ):  # found
        assert shown in page.text
    for shown in (
        "70,020",
        "1,250,030",
        "96.39%",
        "82.98% to 109.79%",
        "35.6",
    ):  # the mean of the random ones
        assert shown in page.text
    for shown in ("50,010", "1,000,020", "95.33%", "90,030", "1,500,040", "97.44%"):  # each of them
        assert shown in page.text
    for shown in (
        "91.23%",
        "31.2",
        "search before, spos",
        "17.7",
        "132",
        "775 MiB",
        "107.3",
        "2.15.0",
        "search.lr",
        "0.0517",
        "['a', 'b']",
    ):
        assert shown in page.text


def test_the_front_is_shown_as_table_and_as_a_line_among_all_that_was_judged(run_folder, page):
    value = json.loads((run_folder / "results.json").read_text())
    front = value["derive"]["pareto"]
    for shown in (
        "pareto/01.json",
        "pareto/03.json",
        "front 10",
        "50,101",
        "2,000,221",
        "61.12%",
        "0.8700",
    ):
        assert shown in page.text
    assert {"pareto-judged", "pareto-front"} <= set(page.ids)
    derived = [row for row in rows(value["space"]) if row["stage"] == "derive"]
    for cost in ("params", "madds"):
        (axes,) = pareto(derived, front, cost).axes
        np.testing.assert_allclose(
            axes.collections[0].get_offsets(),
            [[row[cost], 100 * row["accuracy"]] for row in derived],
        )
        np.testing.assert_allclose(
            axes.lines[0].get_xydata(), [[one[cost], 100 * one["accuracy"]] for one in front]
        )


def test_how_cheap_the_judgement_was_is_shown_by_setting(page):
    for shown in (
        f"{SEARCH_EPOCHS} of 50 (search.epochs)",
        f"{RETRAIN_EPOCHS} of 600 (retrain.epochs)",
        "10,000 of 50,000 (data.train_limit)",
        "16×16 of 32×32 (data.image_size)",
    ):
        assert shown in page.text
    assert page.text.count("16×16 of 32×32") == 2  # in the search and in the retraining


def test_what_was_ended_early_and_what_was_started_warm_says_so(tmp_path):
    value = results("nb201")
    one = {
        "text": "first",
        "epochs": 20,
        "ended": False,
        "held_out_accuracy": 0.9123,
        "upper_bound": None,
    }
    two = {
        "text": "second",
        "epochs": 13,
        "ended": True,
        "held_out_accuracy": 0.8011,
        "upper_bound": 0.8555,
    }
    value["shortlist"] = {"best": "first", "seconds": 17.5, "candidates": [one, two]}
    value["retrain"]["warm_start"] = {"from": "runs/earlier", "weights": 1200, "of": 73754}
    page, _ = read(write(tmp_path / "run", value, rows("nb201")))
    for shown in (
        "first",
        "91.23%",
        "chosen",
        "second",
        "80.11%",
        "ended early: at most 85.55% to come",
        "17.5",
    ):
        assert shown in page.text
    assert (
        "trained from 1,200 of 73,754 weights of runs/earlier and the rest from scratch"
        in page.text
    )
    assert (
        "held-out" not in read(write(tmp_path / "other", results("nb201"), rows("nb201")))[0].text
    )


def test_one_architecture_has_no_front(tmp_path):
    value = results("nb201")
    value["derive"]["pareto"] = []
    page, _ = read(write(tmp_path / "run", value, rows("nb201")))
    assert "inherited weights (%)" not in page.text and "pareto" not in page.text


def test_special_characters_are_escaped(report):
    page, html = report
    for text in ("random & first", "random <second>", "Linux <x86>", "digits & <co>"):
        assert text in page.text
        assert text not in html


def test_the_drawn_graph_has_the_edges_of_the_architecture(run_folder, page):
    for cell, edges in SPACES[json.loads((run_folder / "results.json").read_text())["space"]][
        "graph"
    ].items():
        drawn = [name for name in page.ids if name.startswith(f"cell-{cell}-edge-")]
        assert sorted(drawn) == sorted(
            f"cell-{cell}-edge-{source}-{target}" for source, target, _ in edges
        )
        outputs = [name for name in page.ids if name.startswith(f"cell-{cell}-output-")]
        assert len(outputs) == (0 if cell == "cell" else 4)


def test_curves_have_a_point_for_each_row(run_folder, page):
    for name in ("loss", "architecture_loss", "accuracy"):
        (path,) = page.paths[f"search-curve-{name}"]
        assert points(path) == 2 * SEARCH_EPOCHS
    for stage in ("retrain-0", "retrain-1", "retrain-2", "random-0", "random-1"):
        for name in ("loss", "accuracy"):
            (path,) = page.paths[f"retrain-curve-{stage}-{name}"]
            assert points(path) == RETRAIN_EPOCHS
    for group, (slots, options) in SPACES[
        json.loads((run_folder / "results.json").read_text())["space"]
    ]["groups"].items():
        (path,) = page.paths[f"search-curve-entropy-{group}"]
        assert points(path) == SEARCH_EPOCHS
        shares = [name for name in page.ids if name.startswith(f"logits-{group}-share-")]
        assert len(shares) == slots * len(options)
        assert all(points(path) == SEARCH_EPOCHS for name in shares for path in page.paths[name])


def test_every_instrument_is_drawn_and_every_guard_named(run_folder, page):
    groups = SPACES[json.loads((run_folder / "results.json").read_text())["space"]]["groups"]
    each_epoch = ["share-skip", "share-parameter_free", "gradient_cosine"]
    each_epoch += [f"gradient_norm-{group}-{options[-1]}" for group, (_, options) in groups.items()]
    for names, expected in (
        (each_epoch, SEARCH_EPOCHS),
        (["eigenvalue", "gap-mixture", "gap-derived"], SEARCH_EPOCHS // 4),
    ):
        for name in names:
            assert points(page.paths[f"collapse-curve-{name}"][0]) == expected
    assert (
        len(
            [
                name
                for name in page.ids
                if name.startswith("collapse-guard-") and name.endswith("-8")
            ]
        )
        == 5
    )
    assert (
        "Guard early_stop, epoch 8: grew & <ended>." in page.text and "eigenvalue 4.6" in page.text
    )
    assert all(COLLAPSE[title][1] in page.text for title in list(COLLAPSE)[:5])


def test_a_search_without_instruments_has_no_such_section(tmp_path):
    value, logged = results("nb201"), [{"stage": "search", "step": 1, "epoch": 1.0, "loss": 2.0}]
    value["search"] |= {"guards": [], "parts": {}}
    page, _ = read(write(tmp_path / "run", value, logged))
    assert "Collapse" not in page.text


def test_shares_are_the_softmax_of_the_logits():
    logged = [row for row in rows("nb201") if row["stage"] == "search"]
    epochs, shares = logit_shares(logged, "edges")[4]
    last = {name: value for name, value in logged[-1].items() if name.startswith("logits/edges/4/")}
    assert [f"logits/edges/4/{option}" for option in shares] == list(last)
    np.testing.assert_allclose(
        [share[-1] for share in shares.values()], softmax(list(last.values()))
    )
    assert epochs.tolist() == list(range(1, SEARCH_EPOCHS + 1))


def test_long_curves_are_thinned_to_their_means():
    logged = [{"stage": "search", "step": i, "loss": float(i % 2)} for i in range(4 * POINTS)]
    (line,) = search_curves(logged).axes[0].lines
    np.testing.assert_array_equal(line.get_ydata(), np.full(POINTS, 0.5))  # every mean of four rows


@pytest.mark.parametrize(
    "missing",
    [
        "search",
        "derive",
        "retrain",
        "random_baseline",
        "architecture",
        "cost",
        "environment",
        "name",
    ],
)
def test_a_stage_that_was_not_run_has_no_section(tmp_path, missing):
    value = results("nb201")
    del value[missing]
    logged = [
        row for row in rows("nb201") if not row["stage"].startswith(missing.partition("_")[0])
    ]
    page, _ = read(write(tmp_path / "run", value, logged))
    assert ("loss on the training images" in page.text) == any(
        "/" in row["stage"] for row in logged
    )
    assert ("entropy of the logits" in page.text) == (missing != "search")
    if missing == "name":
        assert page.text.count("run") >= 2  # the name of the folder


def test_the_entropy_of_a_policy_is_not_called_that_of_logits(tmp_path):
    logged = [
        {"stage": "search", "step": i, "epoch": i, "loss": 1 / i, "entropy/policy": 9.0 - i}
        for i in (1, 2, 3)
    ]
    page, _ = read(write(tmp_path / "run", results("nb201"), logged))
    assert "entropy of the policy (nats)" in page.text and "of the logits" not in page.text
    (line,) = search_curves(logged).axes[1].lines
    assert line.get_ydata().tolist() == [8.0, 7.0, 6.0]


def test_a_run_that_has_only_begun(tmp_path):
    (tmp_path / "results.json").write_text(
        '{"schema": 1, "seed": 0, "space": "nb201", "method": "spos", "data": "digits"}'
    )
    page, _ = read(tmp_path)
    assert tmp_path.name in page.text
    assert "spos" in page.text
    with pytest.raises(UserError, match=r"no such file: .*results\.json"):
        write_report(tmp_path / "nowhere")


def test_one_seed_has_no_interval_and_an_empty_cell_is_drawn(tmp_path):
    value = results("nb201")
    value["retrain"] |= {"accuracy": [0.5], "mean": 0.5, "ci95": None}
    value["random_baseline"] |= {"ci95": None}
    value["architecture"]["graph"] = {"cell": []}
    page, _ = read(write(tmp_path / "run", value, []))
    assert "50.00%" in page.text
    assert not [name for name in page.ids if "-edge-" in name]


def test_the_same_folder_gives_the_same_page(run_folder, report):
    assert read(run_folder)[1] == report[1]


def test_nodes_from_left_to_right():
    assert nodes_of([["0", "3", "skip_connect"]]) == ["0", "1", "2", "3"]
    assert nodes_of([]) == ["0", "1", "2", "3"]
    assert nodes_of([["c_{k-1}", "0", "a"], ["0", "1", "b"]]) == [
        "c_{k-2}",
        "c_{k-1}",
        "0",
        "1",
        "2",
        "3",
        "c_k",
    ]


def test_labels_never_overlap():
    """Over random DARTS cells: labels on one level are a label's width apart, and no arc passes
    below one inside it.
    """
    rng = np.random.default_rng(0)
    for _ in range(300):
        spans = [(int(s), t) for t in range(2, 6) for s in rng.choice(t, size=2, replace=False)]
        chosen = levels(spans, width=0.9)
        for i, j in combinations(range(len(spans)), 2):
            if chosen[i] == chosen[j]:
                assert abs(sum(spans[i]) - sum(spans[j])) / 2 > 0.9
            if (
                chosen[i] * chosen[j] > 0
                and spans[i][0] <= spans[j][0]
                and spans[j][1] <= spans[i][1]
            ):
                assert abs(chosen[i]) > abs(chosen[j])


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
def test_a_browser_keeps_every_picture(tmp_path):
    path = write_report(write(tmp_path / "run", results("nb201"), rows("nb201")))
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]
    flags += [
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
    ]
    done = subprocess.run(
        ["chromium", *flags, path.as_uri()], capture_output=True, text=True, timeout=60, check=True
    )
    assert (
        done.stdout.count("<svg")
        == done.stdout.count("</svg>")
        == path.read_text().count("<svg")
        == 7
    )
