"""Strict fairness, by counting."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

from supernet.errors import UserError
from supernet.learners.fixed import Fixed
from supernet.mixture import ChoiceGroup
from supernet.randomness import Streams
from supernet.samplers.fair import Fair
from tests.budgets import budget_of
from tests.samplers.drawing import begun, cost, judged
from tests.variants import cells_alone


@cells_alone
def test_every_step_trains_every_option_of_every_slot_exactly_once(space):
    sampler = begun(Fair(), space)
    for step in range(20):
        mixtures = sampler.mixtures({}, step / 20, judged)
        for group in space.groups:
            for slot in range(group.slots):
                ran = Counter(
                    option for mixture in mixtures for option in mixture[group.name].active[slot]
                )
                assert ran == dict.fromkeys(range(len(group.options)), 1)


@cells_alone
def test_a_training_runs_every_operation_as_often_as_there_are_steps(space, search_stage):
    """Counted by hooks of the operations, in a stage of three steps: each option of each edge of
    each cell runs three times, except ``none``.
    """
    stage, calls = search_stage(space, Fair(), Fixed(), epochs=1), Counter()
    options = {option for group in space.groups for option in group.options}
    names = [
        name for name, _ in stage.supernet.named_modules() if name.rpartition(".")[2] in options
    ]
    for name in names:
        operation = stage.supernet.get_submodule(name)
        # the body of a rectified operation runs behind a shared ReLU
        counted = operation.body if hasattr(operation, "body") else operation
        counted.register_forward_hook(lambda *_, name=name: calls.update([name]))
    for index in range(stage.steps):
        stage.step(index)
    assert names and calls == dict.fromkeys(names, stage.steps) and stage.steps == 3


@cells_alone
def test_the_permutations_are_uniform_and_those_of_different_slots_independent(space):
    """Chi-squared: of the option that the first path takes in a slot, and of two slots together."""
    sampler = begun(Fair(), space)
    first = [sampler.mixtures({}, 0.0, judged)[0] for _ in range(1500)]
    for group in space.groups:
        table = np.array([[option for (option,) in path[group.name].active] for path in first])
        for slot in range(group.slots):
            assert (
                stats.chisquare(np.bincount(table[:, slot], minlength=len(group.options))).pvalue
                > 1e-5
            )
        pairs = stats.contingency.crosstab(table[:, 0], table[:, -1]).count
        assert stats.chi2_contingency(pairs).pvalue > 1e-4


class Uneven:
    """Two groups, of two and of three options."""

    groups = (
        ChoiceGroup("width", 2, ("narrow", "wide")),
        ChoiceGroup("kernel", 3, ("3", "5", "7")),
    )


def test_where_groups_differ_in_size_the_options_of_a_slot_are_trained_equally_often(space):
    budget = budget_of(space)
    budget.space = Uneven()
    sampler = Fair()
    sampler.begin(budget, Streams(0), torch.device("cpu"))
    mixtures = sampler.mixtures({}, 0.0, judged)
    assert len(mixtures) == 6
    for slot in range(2):
        assert Counter(path["width"].active[slot] for path in mixtures) == {(0,): 3, (1,): 3}
    for slot in range(3):
        assert Counter(path["kernel"].active[slot] for path in mixtures) == {
            (0,): 2,
            (1,): 2,
            (2,): 2,
        }


@cells_alone
def test_within_a_budget_they_stay_fair_and_one_that_cannot_be_kept_is_one_line(space):
    table = budget_of(space).tables["params"]
    mean = table.fixed + sum(float(costs.mean(1).sum()) for costs in table.options.values())
    free = begun(Fair(), space)
    worst = np.array(
        [max(cost(table, path) for path in free.mixtures({}, 0.0, judged)) for _ in range(200)]
    )
    assert all(worst >= mean)
    limit = float(np.quantile(worst, 0.1))
    sampler = begun(Fair(), space, params=limit)
    for _ in range(10):
        mixtures = sampler.mixtures({}, 0.0, judged)
        assert max(cost(table, path) for path in mixtures) <= limit
        for group in space.groups:
            for slot in range(group.slots):
                assert sorted(path[group.name].active[slot] for path in mixtures) == [
                    (o,) for o in range(len(group.options))
                ]
    for limit, words in ((mean - 1, "in the mean"), (mean, "one path exceeded the budget")):
        with pytest.raises(UserError, match=words) as caught:
            begun(Fair(), space, params=limit)
        assert "\n" not in str(caught.value) and "sampler=uniform" in str(caught.value)
