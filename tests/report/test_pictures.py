"""What the drawings are made from: curves, shares, styles, graphs, intervals."""

from itertools import combinations, permutations

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binomtest

from supernet.report import series
from supernet.report.figures import Chart, Dots, drawn
from supernet.report.graph import levels, nodes_of
from supernet.report.style import EVERY, shared_styles, styles
from supernet.report.values import images_each, interval_of
from tests.report.conftest import RETRAIN_EPOCHS, SEARCH_EPOCHS, SPACES, results, rows


def test_shares_are_the_softmax_of_the_logits():
    (logged,) = series.stages(rows("nb201"), "search")
    shares = series.shares(logged, "edges")[4]
    last = {name: value for name, value in logged[-1].items() if name.startswith("logits/edges/4/")}
    assert [f"logits/edges/4/{option}" for option in shares] == list(last)
    np.testing.assert_allclose(
        [share[-1, 1] for share in shares.values()], softmax(list(last.values()))
    )
    for share in shares.values():
        assert share[:, 0].tolist() == list(range(1, SEARCH_EPOCHS + 1))


def test_a_logit_that_is_not_finite_has_no_share():
    logged = [
        {"stage": "search/0", "step": 1, "logits/g/0/a": 1.0, "logits/g/0/b": 2.0},
        {"stage": "search/0", "step": 2, "logits/g/0/a": 1.0, "logits/g/0/b": None},
    ]
    shares = series.shares(logged, "g")[0]
    np.testing.assert_allclose(shares["a"], [[1, softmax([1, 2])[0]], [2, 1]])
    np.testing.assert_allclose(shares["b"], [[1, softmax([1, 2])[1]], [2, 0]])


@pytest.mark.parametrize("space", SPACES)
def test_stages_that_ran_at_once_are_told_apart(space):
    logged = rows(space)
    names = SPACES[space]["stages"]
    found = series.stages(logged, "search")
    assert [{row["stage"] for row in stage} for stage in found] == [{name} for name in names]
    assert [len(stage) for stage in found] == [2 * SEARCH_EPOCHS] * len(names)
    assert [len(stage) for stage in series.stages(logged, "retrain")] == [RETRAIN_EPOCHS + 1] * 3


def test_stages_come_in_the_order_of_their_numbers():
    logged = [{"stage": f"retrain/{number}", "step": number} for number in (10, 2, 0)]
    logged.append({"stage": "retrained/1", "step": 1})
    found = series.stages(logged, "retrain")
    assert [stage[0]["step"] for stage in found] == [0, 2, 10]


def test_long_curves_are_thinned_to_their_means():
    count = 4 * series.POINTS
    logged = [{"stage": "search", "step": i, "loss": float(i % 2)} for i in range(count)]
    points = series.thinned(series.curve(logged, "loss"))
    np.testing.assert_array_equal(points[:, 1], np.full(series.POINTS, 0.5))  # each of four rows
    np.testing.assert_array_equal(points[:, 0], np.arange(1.5, count, 4))


def test_several_curves_become_their_mean_and_range_where_all_of_them_are():
    curves = [np.array([[1, 2.0], [2, 5], [3, 8]]), np.array([[1, 4.0], [2, 1]])]
    one = series.together(curves)
    assert (one.x.tolist(), one.mean.tolist()) == ([1, 2], [3, 3])
    assert (one.low.tolist(), one.high.tolist()) == ([2, 1], [4, 5])
    np.testing.assert_array_equal(series.together(curves[:1]), curves[0])


def test_an_option_has_one_style_and_no_group_uses_a_style_twice():
    groups = [["skip", "conv", "pool"], ["conv", "wide"], [str(width) for width in range(20)]]
    found = shared_styles(groups)
    for group in groups:
        assert len({found[name] for name in group}) == len(group)
    assert found["wide"] == EVERY[0]  # free again: "skip" is not in its group
    assert shared_styles([groups[0]]) == styles(groups[0])


def test_the_interval_of_an_accuracy_is_wilsons():
    for right, images in ((0, 10), (7, 10), (640, 1000), (1000, 1000)):
        expected = binomtest(right, images).proportion_ci(0.95, method="wilson")
        np.testing.assert_allclose(
            interval_of(right / images, images), (expected.low, expected.high), atol=1e-12
        )
    assert interval_of(0.5, None) is None


def test_on_how_many_images_all_were_judged():
    value = results("nb201")
    assert images_each(value) == 180
    value["derive"]["judgements"] = 30  # ten more, on shares of the images
    assert images_each(value) is None
    assert images_each({}) is None


def test_dots_and_their_intervals_stand_where_the_figures_are():
    dots = Dots([1, 2], [10.0, 20.0], "#000000", "dots", low=[9.0, 15.0], high=[12.0, 21.0])
    (axes,) = drawn(Chart("x", "y", dots=[dots])).axes
    line = next(line for line in axes.lines if line.get_gid() == "dots")
    np.testing.assert_array_equal(line.get_xydata(), [[1, 10], [2, 20]])
    (bars,) = axes.collections
    np.testing.assert_array_equal(bars.get_segments(), [[[1, 9], [1, 12]], [[2, 15], [2, 21]]])


def test_nodes_from_left_to_right():
    assert nodes_of([["0", "3", "a"]]) == ["0", "3"]
    assert nodes_of([]) == []
    assert nodes_of([["10", "2", "b"], ["9", "10", "a"], ["9", "2", "a"]]) == ["9", "10", "2"]
    edges = [["in", "0", "a"], ["0", "1", "b"], ["1", "out", ""], ["0", "out", ""]]
    for order in permutations(edges):
        assert nodes_of(order) == ["in", "0", "1", "out"]


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
