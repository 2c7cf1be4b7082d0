"""The lower convex hull, against scipy's; the choice of parents, against its probabilities."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from supernet.evaluate.hull import hypervolume, lower_hull, near_hull, parents_of

POINT = st.tuples(st.integers(0, 50), st.integers(0, 50))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(points=st.lists(POINT, min_size=4, max_size=30, unique=True))
def test_it_is_the_falling_part_of_scipys_hull(points):
    array = np.array(points, float)
    if np.linalg.matrix_rank(array - array[0]) < 2:
        return  # scipy refuses points on a line
    corners = {points[i] for i in ConvexHull(array).vertices}
    found = [points[i] for i in lower_hull(points)]
    assert set(found) <= corners
    for before, after in itertools.pairwise(found):
        assert before[0] < after[0] and before[1] > after[1]
    least = min(points, key=lambda p: (p[1], p[0]))
    cheapest = min(points)
    assert found[0] == cheapest and found[-1] == least
    xs, ys = zip(*found, strict=True)
    assert all(y >= np.interp(x, xs, ys) - 1e-9 for x, y in points)


def test_points_on_a_line_equal_points_and_single_points():
    assert lower_hull([(1, 5)]) == [0]
    assert lower_hull([(1, 5), (1, 5), (1, 6)]) == [0]
    assert lower_hull([(3, 1), (1, 3), (2, 2)]) == [1, 0]
    assert lower_hull([(1, 3), (2, 3), (3, 3)]) == [0]


def test_the_margin_is_a_share_of_the_error():
    points = [(1.0, 0.4), (3.0, 0.2), (2.0, 0.306), (2.0, 0.309), (5.0, 0.204), (5.0, 0.206)]
    assert near_hull(points, 0.025) == [0, 1, 2, 4]
    assert near_hull(points, 0.0) == [0, 1]


def test_the_expensive_ones_are_asked_first_and_often_chosen_ones_seldom():
    points = [(1.0, 0.4), (2.0, 0.3), (3.0, 0.2)]
    rng = np.random.default_rng(0)
    first = Counter(parents_of(points, [0, 0, 3], [0, 1, 2], 1, 0.0, rng)[0] for _ in range(4000))
    # the last is taken with 1/4, else the one before it, which nobody has chosen yet
    assert first[2] / 4000 == pytest.approx(0.25, abs=0.03) and first[0] == 0
    assert first[1] == 4000 - first[2]


def test_only_able_ones_are_chosen_and_each_once():
    points = [(1.0, 0.4), (2.0, 0.3), (3.0, 0.2), (2.5, 0.9)]
    rng = np.random.default_rng(1)
    assert parents_of(points, [0, 0, 0, 0], [0, 1, 3], 5, 0.025, rng) == [1, 0]
    assert parents_of(points, [9, 9, 9, 9], [3], 1, 0.025, rng) == []


@settings(max_examples=100, deadline=None, derandomize=True)
@given(points=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=8))
def test_the_hypervolume_is_the_share_of_small_squares_that_are_reached(points):
    reached = sum(
        any(cost <= x and error <= y for cost, error in points)
        for x in range(10)
        for y in range(10)
    )
    assert hypervolume(points, (10, 10)) == pytest.approx(reached / 100)
