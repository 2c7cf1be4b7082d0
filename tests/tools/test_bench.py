"""That the bench measures the steps that it names, counts their arithmetic exactly and prints every
figure that it promises.
"""

import json
import math
import sys
from contextlib import ExitStack
from functools import partial

import pytest

from tests.tasks import task_of
from tools import bench, cases
from tools.cases import Case

SMALL = {"channels": 4, "cells": 2, "batch": 2, "pixels": 8}
RATIOS = {
    f"{name}_{short}"
    for name in (
        "step_ratio",
        "arithmetic_fraction",
        "textbook_arithmetic_fraction",
        "textbook_seconds",
        "ours_seconds",
    )
    for short in ("fp32", "bf16")
} | {
    *("rival_ratio", "rival_seconds_fp32"),
    *("memory_ratio", "path_ratio", "textbook_bytes", "rival_bytes", "ours_bytes"),
    *("step_multiply_adds", "nb201_ratio", "nb201_rival_ratio", "nb201_seconds"),
    *("second_order_ratio", "second_order_seconds"),
}
REST = {
    "times_without",
    "memory_without",
    "recompute",
    "growth",
    "methods",
    "images_per_second",
    "evaluations_per_second",
    "startup_seconds",
    "launches",
}


def test_the_quick_form_prints_what_it_promises(monkeypatch, capsys):
    """With one set of instructions, which is the same work for each, and narrow networks."""
    monkeypatch.setattr(bench, "instructions", lambda base: ["native"])
    monkeypatch.setattr(bench, "Case", partial(Case, channels=4, pixels=8))
    monkeypatch.setattr(sys, "argv", ["bench.py", "--quick", "--json", "--rounds", "1"])
    bench.main()
    figures = json.loads(capsys.readouterr().out)
    assert figures.keys() == {"native", "machine"}
    for name in bench.instructions(Case("ours")):
        expected = {
            one
            for one in RATIOS
            if bench.has_bf16(name, "cpu") or not one.endswith("arithmetic_fraction_bf16")
        }
        assert figures[name].keys() >= expected
        assert all(math.isfinite(figures[name][one]) and figures[name][one] > 0 for one in expected)
    assert isinstance(figures["machine"]["native"], bool)
    assert figures["machine"]["features"].split() == bench.features()


def test_the_full_form_prints_and_draws_what_was_measured(monkeypatch, capsys, tmp_path):
    """With planted measurements, in which time and memory are power laws: their exponents are
    found.
    """
    asked = set()

    def planted(cases, rounds, warmup=1):
        asked.update(cases.values())
        found = {}
        for name, case in cases.items():
            seconds = (
                case.channels**1.5
                * case.cells
                * case.batch
                / (100 if case.network == "matrices" else 1)
            )
            found[name] = {
                "seconds": seconds,
                "rounds": [seconds] * rounds,
                "bytes": 1000 * case.pixels**2,
            }
        return found

    monkeypatch.setattr(bench, "measure", planted)
    monkeypatch.setattr(bench, "alone", lambda threads, function, *arguments: 2.0)
    monkeypatch.setattr(bench, "startup", lambda: 1.0)
    plot = tmp_path / "growth.svg"
    monkeypatch.setattr(sys, "argv", ["bench.py", "--json", "--rounds", "2", "--plot", str(plot)])
    bench.main()
    figures = json.loads(capsys.readouterr().out)
    assert figures.keys() == {*bench.instructions(Case("ours")), "machine", *REST}
    assert figures["native"].keys() >= RATIOS
    assert {case.instructions for case in asked} == set(bench.instructions(Case("ours")))
    # a hundredth of the step's time does so much arithmetic
    share = 2.0 / (cases.PRODUCTS * cases.SIDE**3)
    assert figures["native"]["arithmetic_fraction_fp32"] == pytest.approx(share / 100, rel=1e-9)
    growth = figures["growth"]
    assert growth.keys() == {"channels", "cells", "nodes", "options", "batch", "pixels"}
    slopes = {
        name: (found["seconds_exponent"], found["bytes_exponent"]) for name, found in growth.items()
    }
    expected = dict.fromkeys(growth, (0, 0)) | {
        "channels": (1.5, 0),
        "cells": (1, 0),
        "batch": (1, 0),
        "pixels": (0, 2),
    }
    assert all(slopes[name] == pytest.approx(pair, abs=1e-9) for name, pair in expected.items())
    assert figures["methods"].keys() == {"darts", "darts_2nd", "pc_darts", "gdas", "spos"}
    assert {case.without for case in asked} == {"", *cases.OPTIMISATIONS}
    text = plot.read_text(encoding="utf-8")
    assert text.lstrip().startswith("<?xml") and "exponent 1.50" in text


def test_what_is_drawn_must_be_measured(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench.py", "--quick", "--plot", "growth.svg"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "--plot draws the growth, which --quick and --only leave out" in capsys.readouterr().err


def test_multiply_adds_are_those_that_the_definitions_say():
    """By hand, for one cell of C channels on P pixels, of which an edge takes 102 C + 6 C² a pixel:
    its convolutions alone do.
    """
    c, p, batch = 4, 64, 3
    stem, before, edge, classifier = (
        27 * 3 * c * p,
        2 * 3 * c * c * p,
        (102 * c + 6 * c * c) * p,
        4 * c * 10,
    )
    forward = stem + before + 14 * edge + classifier
    weights = 3 * forward - stem
    logits = 2 * forward - stem - before - 8 * edge  # eight edges read the inputs of the first cell
    assert bench.multiply_adds(
        Case("ours", channels=c, cells=1, batch=batch, pixels=8)
    ) == batch * (weights + logits)


@pytest.mark.parametrize(
    "case",
    [
        *(Case(network, **SMALL) for network in cases.NETWORKS),
        *(Case("ours", without=name, **SMALL) for name in cases.OPTIMISATIONS),
        *(Case("ours", nodes=nodes, **SMALL) for nodes in (2, 6)),
        Case("ours", options=4, precision="bf16", **SMALL),
        Case("ours", space="nb201", **SMALL),
    ],
    ids=lambda case: f"{case.network} {case.space} {case.without} {case.nodes} {case.options}",
)
def test_every_case_has_a_step(case):
    with ExitStack() as patches:
        step = cases.prepare(case, patches)
        step()
        step()


@pytest.mark.parametrize("method", ["darts", "darts_2nd", "pc_darts", "gdas", "spos"])
def test_a_search_takes_the_whole_step_of_its_method(method):
    figures = cases.search(Case("search", method=method, **SMALL), ExitStack())()
    assert math.isfinite(figures["loss"])
    assert ("architecture_loss" in figures) == (method != "spos")


@pytest.mark.parametrize(("nodes", "slots"), [(2, 5), (4, 14), (6, 27)])
def test_cells_have_so_many_nodes(nodes, slots):
    space = cases.space_of(Case("ours", nodes=nodes, **SMALL))
    layer = space.supernet(task_of(10, 3)).layers[0]
    assert len(layer.cell.edges) == slots == space.groups[0].slots
    assert layer.cell.outputs == nodes
