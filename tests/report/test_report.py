"""The report, read back: as HTML by the standard library's parser, its drawings as SVG."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import supernet.report
from supernet.errors import UserError
from supernet.report.page import page as rendered
from tests.report.conftest import (
    INSTRUMENTS,
    RETRAIN_EPOCHS,
    SEARCH_EPOCHS,
    SPACES,
    configuration,
    results,
    rows,
    write,
)
from tests.report.parsed import Page, read


@pytest.fixture(scope="module")
def report(run_folder) -> tuple[Page, str]:
    return read(run_folder)


@pytest.fixture
def page(report) -> Page:
    return report[0]


@pytest.fixture
def space(run_folder) -> str:
    return json.loads((run_folder / "results.json").read_text())["space"]


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
    assert page.text.count(value["architecture"]["text"]) == 1
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


def test_the_front_is_shown_as_table_and_as_a_line_among_all_that_was_judged(page):
    for shown in (
        "pareto/01.json",
        "pareto/03.json",
        "front 10",
        "50,101",
        "2,000,221",
        "61.12%",
        "0.8700",
        "on 180",  # validation images, all of which judged each architecture
    ):
        assert shown in page.text
    assert {"pareto-judged", "pareto-front", "pareto-front-interval"} <= set(page.ids)


def test_how_cheap_the_judgement_was_is_shown_by_setting(page):
    for shown in (
        f"{SEARCH_EPOCHS} of 50 (search.epochs)",
        f"{RETRAIN_EPOCHS} of 600 (retrain.epochs)",
        "10,000 of 50,000 (data.train_limit)",
        "16×16 of 32×32 (data.image_size)",
    ):
        assert shown in page.text
    assert page.text.count("16×16 of 32×32") == 2  # in the search and in the retraining


def shortlisted(value: dict) -> dict:
    """The results with a shortlist of two, and a retraining that was started warm."""
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
    return value


def ranked(value: dict) -> dict:
    """The results with what ``supernet rank`` adds."""
    figures = {"architectures": 3, "tau": 0.3111, "tau_ci95": [-0.52, 0.93], "rho": 0.4222}
    best = {"architectures": 1, "tau": None, "tau_ci95": None, "rho": None}
    correlations = {"all": figures, "best_tenth": best}
    names = ("uniform, recalibrated", "uniform, as trained", "params")
    value["rank"] = {
        "against": {
            truth: dict.fromkeys(names, correlations)
            for truth in ("trained from scratch", "published test_200")
        },
        "points": [
            {"text": f"point {i}", "trained from scratch": 0.6 + i / 10, "published test_200": 70.5}
            | {name: 0.1 + i / 10 for name in names}
            for i in range(3)
        ],
        "seconds": 2.5,
    }
    return value


def test_what_was_ended_early_and_what_was_started_warm_says_so(tmp_path):
    page, _ = read(write(tmp_path / "run", shortlisted(results("nb201")), rows("nb201")))
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


def test_a_rank_correlation_is_shown_for_each_truth(tmp_path):
    page, _ = read(write(tmp_path / "run", ranked(results("nb201")), rows("nb201")))
    for shown in ("Against: trained from scratch", "Against: published test_200"):
        assert shown in page.text
    assert page.text.count("0.31 (-0.52 to 0.93)") == 2 * (3 + 1)  # a row each, and one picture
    assert "judging for the rank correlation" in page.text
    for number in (0, 1):
        assert f"rank-{number}-0-architectures" in page.ids
        assert f"rank-{number}-1-architectures" not in page.ids  # only what was recalibrated


def test_one_architecture_has_no_front(tmp_path):
    value = results("nb201")
    value["derive"]["pareto"] = []
    page, _ = read(write(tmp_path / "run", value, rows("nb201")))
    assert "inherited weights (%)" not in page.text and "pareto" not in page.text


HOSTILE = """"'>--><script>alert(1)<img src="x" onerror='y'>&amp;$\\{{ 7 }}"""
KEPT = ("init", "prefixes", "unit")  # words that the report looks up; a unit is cut into lines
NAMED = {"against": 2, "choices": 1, "environment": 1, "fidelity": 1, "graph": 1, "nodes": 1}
NAMED |= {"parts": 1, "points": 1}  # so many levels below these keys the names are a user's own


def hostile(value, named: int = 0):
    """The value with hostile text before every string in it, and before every name of a user's."""
    if isinstance(value, dict):
        return {
            HOSTILE + key if named else key: one
            if key in KEPT
            else hostile(one, named - 1 if named else NAMED.get(key, 0))
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [hostile(one, named) for one in value]
    return HOSTILE + value if isinstance(value, str) else value


def hostile_row(row: dict) -> dict:
    """The row with hostile text in the names of groups and options, and a figure of such a name."""
    named = {HOSTILE: 1.0}
    for name, figure in row.items():
        kind, *parts = name.split("/")
        if kind != "share":  # by its whole name an instrument knows it
            parts = [part if part.isdigit() else HOSTILE + part for part in parts]
        named["/".join([kind, *parts])] = figure
    return named


def strings(value):
    """Every string in nested dicts and lists, names included."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from (key, *strings(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("space", SPACES)
def test_hostile_text_is_shown_and_never_acts(space):
    ordinary = ranked(shortlisted(results(space)))
    value, config = hostile(ordinary), hostile(configuration(), named=2)
    logged = [hostile_row(row) for row in rows(space)]
    text = rendered(value["name"], value, logged, config)
    page, plain = Page(text), Page(rendered("a", ordinary, rows(space), configuration()))
    assert page.tags == plain.tags and {"script", "img"}.isdisjoint(page.tags)
    assert {name for name, _ in page.attributes} == {name for name, _ in plain.attributes}
    assert "<script" not in text

    def as_shown(words: str) -> str:  # headings begin with a capital letter
        return words.replace("_", " ").lower()

    shown = [one for one in strings([value, logged, config]) if HOSTILE in one]
    missing = {one for one in shown if as_shown(one.split("/")[-1]) not in as_shown(page.text)}
    points = ("text", "point 0", "point 1", "point 2")  # of these only the figures are shown
    otherwise = ("b", "c_k", "c_{k-1}", "c_{k-2}")  # in a list: as Python writes it; c(k−1)
    assert missing <= {HOSTILE + words for words in (*points, *otherwise)}


def test_only_drawings_are_not_escaped():
    """One function makes text that the template does not escape, and the template makes none."""
    package = Path(supernet.report.__file__).parent
    code = "".join(path.read_text(encoding="utf-8") for path in package.glob("*.py"))
    assert code.count("Markup(") == 1
    templates = [path.read_text(encoding="utf-8") for path in package.glob("*.jinja")]
    assert len(templates) == 6
    assert not re.search(r"\bsafe\b|autoescape", "".join(templates))


def in_an_id(node: str) -> str:
    return re.sub(r"[^\w.]+", "-", node)


def test_the_drawn_graph_has_the_edges_of_the_architecture(space, page):
    graphs = SPACES[space].get("graph", {})
    drawn = {name for name in page.ids if name.startswith("graph-") and "-edge-" in name}
    decided = {
        f"graph-{cell}-edge-{i}-{in_an_id(source)}-{in_an_id(target)}"
        for cell, edges in graphs.items()
        for i, (source, target) in enumerate((s, t) for s, t, option in edges if option)
    }
    assert decided == drawn
    for cell, edges in graphs.items():
        plain = [name for name in page.ids if name.startswith(f"graph-{cell}-plain-")]
        assert len(plain) == sum(not option for _, _, option in edges)
        assert f"{cell[0].upper()}{cell[1:]}" in page.pieces  # a heading


def test_a_space_without_a_drawing_has_a_table_of_decisions(space, page, report):
    table = "<td class" in report[1] and ">slot</th>" in report[1]
    assert table == ("graph" not in SPACES[space])
    if table:
        cells = re.findall(r"<td[^>]*>([^<]*)</td>", report[1])
        for group, options in SPACES[space]["choices"].items():
            for slot, option in enumerate(options):
                row = [group, str(slot), option]
                assert row in [cells[i : i + 3] for i in range(len(cells))]


def test_curves_have_a_point_for_each_row(space, page):
    supernets = len(SPACES[space]["stages"])
    for name in ("loss", "architecture_loss", "accuracy"):
        for number in range(supernets):
            (path,) = page.paths[f"search-{name}-curve-{name}-{number}"]
            assert points(path) == 2 * SEARCH_EPOCHS
    for stage in ("retrain-0", "retrain-1", "retrain-2", "random-0", "random-1"):
        for name in ("loss", "accuracy"):
            (path,) = page.paths[f"retrain-{name}-curve-{stage}"]
            assert points(path) == RETRAIN_EPOCHS
    groups = SPACES[space]["groups"]
    for group, (slots, options) in groups.items():
        (name,) = {
            name
            for name in page.ids
            if re.fullmatch(rf"search-entropy-\w+-curve-entropy-{group}(-0)?", name)
        }
        assert points(page.paths[name][0]) == SEARCH_EPOCHS
        shares = [
            name
            for name in page.ids
            if name.startswith(f"logits-{group}-")
            and "-share-" in name
            and not name.endswith("-range")
        ]
        assert len(shares) == slots * len(options)
        assert all(points(path) == SEARCH_EPOCHS for name in shares for path in page.paths[name])


def test_several_supernets_are_told_apart_and_one_is_not_numbered(space, page):
    count = len(SPACES[space]["stages"])
    for number in range(1, count + 1):
        assert (f"supernet {number} of {count}" in page.text) == (count > 1)
    ranges = [name for name in page.ids if name.endswith("-range")]
    assert bool(ranges) == (count > 1)
    assert (f"{count} supernets, each trained from a new start" in page.text) == (count > 1)


def test_retrainings_stand_side_by_side(page):
    for number in (1, 2, 3):
        assert f"found architecture, training {number} of 3" in page.text  # in the key
        assert f"found architecture, {number} of 3" in page.text  # in the table
    for number in (1, 2):
        assert f"random architecture, {number} of 2" in page.text


def test_every_instrument_is_drawn_and_every_guard_named(space, page):
    groups = SPACES[space]["groups"]
    norms = [
        f"gradient_norm-{group}-{option}"
        for group, (_, options) in groups.items()
        for option in options[-2:]
    ]
    for names, expected in (
        (["share-skip", "share-parameter_free", *norms], SEARCH_EPOCHS),
        (["gap-mixture", "gap-derived"], SEARCH_EPOCHS // 4),
        (["gradient_cosine-0"], SEARCH_EPOCHS),
        (["eigenvalue-0"], SEARCH_EPOCHS // 4),
    ):
        for name in names:
            (found,) = (
                one
                for one in page.ids
                if one.startswith("collapse-") and one.endswith(f"-curve-{name}")
            )
            assert points(page.paths[found][0]) == expected
    assert sum(name.endswith("-guard-8") for name in page.ids) == len(INSTRUMENTS)
    assert "epoch 8: grew & <ended>." in page.text and "4.6" in page.text
    for instrument in INSTRUMENTS.values():
        assert instrument["title"] in page.text and instrument["meaning"] in page.text


def test_a_guard_names_its_supernet_if_it_is_known(tmp_path):
    value = results("elastic")
    value["search"]["guards"][0]["supernet"] = 1
    page, _ = read(write(tmp_path / "run", value, rows("elastic")))
    assert "Guard early_stop, supernet 2 of 3, epoch 8:" in " ".join(page.text.split())


def test_older_results_show_the_figures_of_instruments_by_their_names(tmp_path):
    value = results("nb201")
    del value["search"]["instruments"]
    value["search"] |= {"guards": [], "parts": {}}
    page, _ = read(write(tmp_path / "run", value, rows("nb201")))
    assert "Collapse" not in page.text
    assert {"eigenvalue", "gradient cosine", "gap"} <= set(page.pieces)
    assert "search-eigenvalue-curve-eigenvalue-0" in page.ids


def test_a_search_without_instruments_has_no_such_section(tmp_path):
    value, logged = results("nb201"), [{"stage": "search", "step": 1, "epoch": 1.0, "loss": 2.0}]
    value["search"] |= {"guards": [], "parts": {}}
    page, _ = read(write(tmp_path / "run", value, logged))
    assert "Collapse" not in page.text
    assert not [name for name in page.ids if name.startswith("collapse-")]


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
    assert "entropy of the policy (nats)" in page.text and "of the logits (nats)" not in page.text
    assert points(page.paths["search-entropy-policy-curve-entropy-policy-0"][0]) == 3


def test_a_run_that_has_only_begun(tmp_path):
    (tmp_path / "results.json").write_text(
        '{"schema": 1, "seed": 0, "space": "nb201", "method": "spos", "data": "digits"}'
    )
    page, html = read(tmp_path)
    assert tmp_path.name in page.text
    assert "spos" in page.text
    assert "<svg" not in html and "<table" not in html
    with pytest.raises(UserError, match=r"no such file: .*results\.json"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize("ends", [[0.01, 0.03], [-0.01, 0.05]])
def test_the_verdict_stands_below_the_comparison(ends, tmp_path):
    value = results("nb201") | {"found_minus_random": {"mean": 0.02, "ci95": ends}}
    page, _ = read(write(tmp_path / "run", value, []))
    assert "Found minus random: +2.00 points" in page.text
    assert ("no difference shown" in page.text) == (ends[0] < 0)


def test_one_seed_has_no_interval_and_an_empty_cell_is_drawn(tmp_path):
    value = results("nb201")
    value["retrain"] |= {"accuracy": [0.5], "mean": 0.5, "ci95": None}
    value["random_baseline"] |= {"ci95": None}
    value["architecture"]["graph"] = {"cell": []}
    page, _ = read(write(tmp_path / "run", value, []))
    assert "50.00%" in page.text
    assert not [
        name
        for name in page.ids
        if "-edge-" in name or (name.startswith("scatter-mean") and "interval" in name)
    ]


def test_the_same_folder_gives_the_same_page(run_folder, report):
    assert read(run_folder)[1] == report[1]


def in_a_browser(page: Path, folder: Path) -> str:
    """The document as a browser has it once the page is loaded."""
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",  # as on a phone, where they take no room
        f"--user-data-dir={folder / 'profile'}",
        "--dump-dom",
    ]
    command = ["chromium", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
def test_a_browser_keeps_every_picture(tmp_path, run_folder, report):
    kept = in_a_browser(run_folder / "report.html", tmp_path)
    assert kept.count("<svg") == kept.count("</svg>") == report[1].count("<svg") > 7


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
def test_no_page_is_wider_than_its_window(tmp_path, report):
    """Only boxes that say so scroll sideways; folded tables are unfolded first."""
    frames = tmp_path / "frames.html"
    unfolded = html.escape(report[1].replace("<details>", "<details open>"))
    frame = '<iframe style="border:0;height:900px" width="{}" srcdoc="{}"></iframe>'
    frames.write_text(
        "".join(frame.format(width, unfolded) for width in (375, 1280))
        + "<script>onload = () => { document.title = Array.from(window.frames,"
        "frame => frame.document.documentElement.scrollWidth) }</script>",
        encoding="utf-8",
    )
    assert "<title>375,1280</title>" in in_a_browser(frames, tmp_path)
