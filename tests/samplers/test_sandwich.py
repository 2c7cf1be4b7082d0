"""The sandwich rule, in cases worked out by hand."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from supernet.errors import UserError
from supernet.learners.fixed import Fixed
from supernet.mixture import Choice
from supernet.samplers.sandwich import Sandwich
from supernet.spaces.darts import OPTIONS
from tests.budgets import budget_of
from tests.samplers.drawing import architecture_of, begun, cost, judged
from tests.variants import SPACES

# NB201 with 4, 8 and 16 channels, one cell each. A convolution has k² C² weights, its BatchNorm 2
# C.
C = (4, 8, 16)
CONV_1X1, CONV_3X3 = (sum(k * k * c * c + 2 * c for c in C) for k in (1, 3))


def operations(space, mixtures):
    return [list(architecture_of(space, mixture)["edges"]) for mixture in mixtures]


def test_on_nb201_the_largest_is_all_3x3_and_the_smallest_has_no_convolution():
    space = SPACES["nb201"]()
    largest, smallest, *others = operations(
        space, begun(Sandwich(metric="params"), space).mixtures({}, 0.0, judged)
    )
    assert largest == ["nor_conv_3x3"] * 6 and not {"nor_conv_1x1", "nor_conv_3x3"} & set(smallest)
    assert len(others) == 2 and others[0] != others[1]


def test_within_a_budget_the_largest_is_what_it_leaves_room_for():
    """The budget allows exactly two 3×3 convolutions and one 1×1 convolution. No other combination
    costs as much (1×1 has 392 parameters, 3×3 has 3,080).
    """
    space = SPACES["nb201"]()
    limit = budget_of(space).tables["params"].fixed + 2 * CONV_3X3 + CONV_1X1
    assert (CONV_1X1, CONV_3X3) == (392, 3080)
    sampler = begun(Sandwich(metric="params"), space, params=limit)
    largest = operations(space, sampler.mixtures({}, 0.0, judged))[0]
    assert (largest.count("nor_conv_3x3"), largest.count("nor_conv_1x1")) == (2, 1)


def test_on_darts_the_largest_has_5x5_separable_convolutions_alone():
    """Of the operations of DARTS these have the most weights, on every edge: two 5×5 and two 1×1
    convolutions.
    """
    space = SPACES["darts"]()
    largest, smallest = (
        architecture_of(space, mixture)
        for mixture in begun(Sandwich(paths=0, metric="params"), space).mixtures({}, 0.0, judged)
    )
    for cell in ("normal", "reduce"):
        assert sorted(largest[cell]) == ["none"] * 6 + ["sep_conv_5x5"] * 8
        assert set(smallest["normal"]) <= set(OPTIONS[:4])  # the reduction's skip has weights too


@pytest.mark.parametrize("metric", ["params", "madds"])
def test_nothing_drawn_is_larger_than_the_largest_or_smaller_than_the_smallest(space, metric):
    table = budget_of(space).tables[metric]
    free = [
        cost(table, mixture)
        for mixture in begun(Sandwich(paths=50, metric=metric), space).mixtures({}, 0.0, judged)
    ]
    limit = sorted(free)[25]
    for limits in ({}, {metric: limit}):
        largest, smallest, *others = (
            cost(table, mixture)
            for mixture in begun(Sandwich(paths=50, metric=metric), space, **limits).mixtures(
                {}, 0.0, judged
            )
        )
        assert (
            len(others) == 50
            and smallest <= min(others)
            and max(others) <= largest <= limits.get(metric, largest)
        )


def test_smallest_and_largest_keep_limits_on_what_they_are_not_measured_by(space):
    """The architecture that is cheapest in parameters may have many multiply-adds, and the reverse.
    The limits hold in both cases.
    """
    budget, rng = budget_of(space), np.random.default_rng(0)
    costs = [budget.costs(space.random(rng)) for _ in range(200)]
    limits = {
        metric: float(np.quantile([cost[metric] for cost in costs], 0.3))
        for metric in budget.tables
    }
    for metric in limits:
        for mixture in begun(Sandwich(metric=metric), space, **limits).mixtures({}, 0.0, judged):
            assert all(cost(budget.tables[m], mixture) <= limit for m, limit in limits.items())


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_step_is_the_papers_worked_out_by_hand(search_stage, smoothing):
    """Yu et al. 2020, section 3.1: the largest learns from labels, the others from its softmax. All
    gradients are added before one update. If labels are smoothed, they are smoothed towards the
    uniform distribution; the softmax is not smoothed.
    """
    space = SPACES["nb201"]()
    stage, twin = (
        search_stage(
            space, Sandwich(paths=1, metric="params"), Fixed(), clip=0.0, label_smoothing=smoothing
        )
        for _ in "ab"
    )
    drawn, draw = [], stage.budget.random
    stage.budget.random = lambda rng: drawn.append(draw(rng)) or drawn[-1]
    images, labels = next(twin.weight_batches)
    weights, seen = dict(stage.supernet.named_parameters()), {}
    stage.weights.optimizer.register_step_pre_hook(
        lambda *_: seen.update({name: copy.deepcopy(w.grad) for name, w in weights.items()})
    )
    smallest = stage.sampler.ends[1]
    stage.step(0)

    def outputs(path):
        return twin.supernet(images, path)

    teacher = outputs({"edges": Choice.path([3] * 6)})  # nor_conv_3x3 on every edge
    smoothed = (1 - smoothing) * F.one_hot(labels, 3) + smoothing / 3
    (-(smoothed * teacher.log_softmax(1)).sum(1).mean() / 3).backward()
    probabilities = teacher.detach().exp() / teacher.detach().exp().sum(1, keepdim=True)
    for path in (smallest, space.path(drawn[0])):
        (-(probabilities * outputs(path).log_softmax(1)).sum() / len(images) / 3).backward()
    moved = 0
    for name, weight in twin.supernet.named_parameters():
        if weight.grad is None:
            assert seen[name] is None
        else:
            torch.testing.assert_close(seen[name], weight.grad)
            moved += bool(weight.grad.any())
    assert moved > 20 and len(drawn) == 1


def test_less_than_no_random_path_is_one_line():
    with pytest.raises(UserError, match=r"sampler\.paths=-1: must be at least 0"):
        Sandwich(paths=-1)
