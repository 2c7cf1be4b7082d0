"""Cells of NAS-Bench-201 that compute the same function have one name. This is compared with the
numbers that cells return if each operation is some function of a vector, and with the benchmark's
own count.
"""

import itertools
from collections import defaultdict

import numpy as np
import pytest
import torch

from supernet.cost.budget import Budget
from supernet.ops import OPERATIONS
from supernet.spaces.nb201 import EDGES, benchmark_name, function_of
from tests.tasks import task_of
from tests.variants import SPACES

SPACE = SPACES["nb201"]()
OPTIONS = SPACE.groups[0].options
CELLS = list(itertools.product(OPTIONS, repeat=6))
KINDS = ("nor_conv_1x1", "nor_conv_3x3")


@pytest.fixture(scope="module")
def functions():
    return {cell: function_of(cell) for cell in CELLS}


class Numbers:
    """Cells as functions of a vector. A pooling is a linear map. For each kind of convolution there
    are seven functions, none of which returns zero for zero.
    """

    def __init__(self):
        rng = np.random.default_rng(0)
        self.start, self.pooling = rng.normal(size=3), rng.normal(size=(3, 3))
        self.maps = {kind: rng.normal(size=(7, 3, 4)) for kind in KINDS}

    def output(self, cell, numbers):
        """``numbers`` holds for each edge which function of its kind it is."""
        nodes = [self.start]
        for node in range(1, 4):
            total = np.zeros(3)
            for edge, ((source, target), option) in enumerate(zip(EDGES, cell, strict=True)):
                if target != node or option == "none":
                    continue
                if option == "skip_connect":
                    total = total + nodes[source]
                elif option in KINDS:
                    given = self.maps[option][numbers[edge]]
                    total = total + np.tanh(given[:, :3] @ nodes[source] + given[:, 3])
                else:
                    total = total + self.pooling @ nodes[source]
            nodes.append(total)
        return nodes[3]

    def fingerprint(self, cell):
        """All outputs that a cell can return if its convolutions are different ones of the first
        functions of their kinds. Convolutions that do not change the output are not counted.
        """
        anything = [0, 1, 2, 3, 4, 5]
        before = self.output(cell, anything)
        counting = {kind: [] for kind in KINDS}
        for edge, option in enumerate(cell):
            if option in KINDS:
                other = [*anything[:edge], 6, *anything[edge + 1 :]]
                if not np.allclose(before, self.output(cell, other), atol=1e-12):
                    counting[option].append(edge)
        found = set()
        for orders in itertools.product(*(itertools.permutations(e) for e in counting.values())):
            numbers = [6] * 6
            for order in orders:
                for number, edge in enumerate(order):
                    numbers[edge] = number
            found.add(tuple(np.round(self.output(cell, numbers), 6) + 0.0))
        return tuple(map(len, counting.values())), frozenset(found)


def test_cells_have_one_function_exactly_if_they_can_give_the_same_numbers(functions):
    numbers = Numbers()
    same = defaultdict(set)
    for cell in CELLS:
        same[numbers.fingerprint(cell)].add(functions[cell])
    assert all(len(found) == 1 for found in same.values())
    assert len(same) == len(set(functions.values())) == 5653


def test_a_pooling_of_a_sum_is_the_sum_of_poolings(noise):
    """Therefore a pooling of a sum may be split; a convolution may not."""
    one, other = torch.randn(2, 3, 4, 6, 6, generator=noise)
    pool, convolution = (OPERATIONS[name](4, 1, True, False) for name in OPTIONS[4:2:-1])
    torch.testing.assert_close(pool(one + other), pool(one) + pool(other))
    assert not torch.allclose(convolution(one + other), convolution(one) + convolution(other))


def test_the_benchmark_distinguishes_6466_cells_by_a_rule_that_is_not_exact(functions):
    names = {cell: benchmark_name(cell) for cell in CELLS}
    assert len(set(names.values())) == 6466
    of_name, of_function = defaultdict(set), defaultdict(set)
    for cell in CELLS:
        of_name[names[cell]].add(functions[cell])
        of_function[functions[cell]].add(names[cell])
    assert any(len(found) > 1 for found in of_function.values())
    assert any(len(found) > 1 for found in of_name.values())
    # one convolution whose output is read twice, and two convolutions that are read once each
    once, twice = (
        SPACE.decode(text)["edges"]
        for text in (
            "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|skip_connect~1|nor_conv_1x1~2|",
            "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|none~0|skip_connect~1|nor_conv_1x1~2|",
        )
    )
    assert names[once] == names[twice] and once.count("nor_conv_3x3") < twice.count("nor_conv_3x3")


def test_the_canonical_cell_has_the_same_function_and_costs_no_more(functions):
    tables = Budget(SPACE, task_of(10, 3)).tables
    rng = np.random.default_rng(1)
    cheaper = 0
    for _ in range(500):
        cell = SPACE.random(rng)
        found = SPACE.canonical(cell)
        assert functions[found["edges"]] == functions[cell["edges"]]
        costs = [[table.of(one) for table in tables.values()] for one in (found, cell)]
        assert all(a <= b for a, b in zip(*costs, strict=True))
        cheaper += costs[0] < costs[1]
    assert cheaper > 50


def test_cells_of_one_function_have_one_canonical_cell(functions):
    cells = defaultdict(list)
    for cell in CELLS:
        cells[functions[cell]].append(cell)
    rng = np.random.default_rng(2)
    several = [found for found in cells.values() if len(found) > 1]
    for index in rng.choice(len(several), 100, replace=False):
        names = {SPACE.canonical(SPACE.express(cell)) for cell in several[index]}
        assert len(names) == 1
