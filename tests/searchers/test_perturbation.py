"""Derivation by perturbation, with a judge of known answers, and on a real supernet."""

import numpy as np
import pytest
import torch

from supernet.evaluate.accuracy import Judgement
from supernet.learners.gradient import Gradient
from supernet.mixture import Choice
from supernet.samplers.softmax import Softmax
from supernet.searchers.perturbation import PerturbationSelection
from supernet.train.search import snapshot_of
from supernet.train.tuning import TuningStage
from tests.budgets import budget_of
from tests.compare import identical
from tests.train.stopping import stopped_and_resumed, straight
from tests.variants import SPACES


def worth(space, seed: int) -> dict[str, torch.Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return {
        group.name: torch.rand(group.shape, generator=noise, dtype=torch.float64)
        for group in space.groups
    }


def projection(space, table, budget=None, seed=0, asked=None):
    """A projection. Its judge adds up the worth of every active option."""

    def judge(mixture, share):
        total = 0.0
        for name, choice in mixture.items():
            runs = [
                (slot, option) for slot, options in enumerate(choice.active) for option in options
            ]
            total += sum(float(table[name][slot, option]) for slot, option in runs)
        if asked is not None:
            asked.append(mixture)
        return Judgement(total / 1000, 0.0, 1)

    def mean():
        return {g.name: Choice.dense(torch.full(g.shape, 1 / len(g.options))) for g in space.groups}

    return PerturbationSelection().projection(
        budget or budget_of(space), judge, mean, np.random.default_rng(seed)
    )


def decided(chosen) -> list:
    while len(chosen.kept) < chosen.questions:
        chosen.decide()
    return chosen.kept


def test_kept_is_what_is_missed_most(space):
    """Each option adds its worth to the accuracy. Therefore the best option of every slot is kept,
    and, of the edges of DARTS, the best two of each node.
    """
    table = worth(space, 1)
    chosen = projection(space, table)
    decided(chosen)
    found = chosen.budget.best(chosen.scores())
    assert space.validate(found) == space.derive(table)


def test_what_is_decided_runs_alone_and_an_edge_that_is_given_up_not_at_all(space):
    table = worth(space, 2)
    chosen = projection(space, table)
    kept = decided(chosen)
    architecture = chosen.budget.best(chosen.scores())
    for name, choice in chosen.mixture().items():
        options = next(g.options for g in space.groups if g.name == name)
        for slot, option in enumerate(architecture[name]):
            operations = (
                () if option == "none" and space.name == "darts" else (options.index(option),)
            )
            assert choice.active[slot] == operations
            assert all(float(choice.weights[slot, o]) == 1.0 for o in operations)
    slots = [tuple([entry["group"], *entry["slots"]]) for entry in kept]
    assert len(set(slots)) == len(slots) == chosen.questions


def test_a_question_leaves_out_one_option_and_changes_nothing_else(noise):
    space, asked = SPACES["nb201"](), []
    chosen = projection(space, worth(space, 3), asked=asked)
    chosen.decide()
    (slot,) = chosen.kept[0]["slots"]
    assert [mixture["edges"].active[slot] for mixture in asked] == [
        tuple(o for o in range(5) if o != out) for out in range(5)
    ]
    for mixture in asked:
        assert all(
            active == (0, 1, 2, 3, 4)
            for other, active in enumerate(mixture["edges"].active)
            if other != slot
        )
        assert torch.equal(mixture["edges"].weights, torch.full((6, 5), 0.2))
    assert set(chosen.kept[0]["without"]) == set(space.groups[0].options)


@pytest.mark.parametrize("seed", range(2))
def test_a_budget_is_kept_and_no_slot_left_without_an_option(space, seed):
    rng = np.random.default_rng(seed)
    costs = [budget_of(space).costs(space.random(rng))["params"] for _ in range(50)]
    budget = budget_of(space, params=float(np.quantile(costs, 0.1)))
    chosen = projection(space, worth(space, seed), budget, seed)
    decided(chosen)
    found = budget.best(chosen.scores())
    assert budget.allows(space.validate(found))
    assert all(
        chosen.allowed[g.name][slot, g.options.index(option)]
        for g in space.groups
        for slot, option in enumerate(found[g.name])
    )


def test_the_order_is_a_matter_of_chance():
    space = SPACES["nb201"]()
    orders = [tuple(projection(space, worth(space, 0), seed=seed).order) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2] and sorted(orders[2]) == list(range(6))


def test_tuning_stopped_anywhere_and_resumed_ends_in_the_same_bits(search_stage, tmp_path):
    space = SPACES["nb201"]()

    def make():
        search = search_stage(space, Softmax(), Gradient())
        chosen = PerturbationSelection(criterion="loss").projection(
            search.budget,
            lambda mixture, share: snapshot_of(search).judged(mixture),
            lambda: search.sampler.mean(search.detached_logits, 0.9),
            np.random.default_rng(0),
        )
        return TuningStage(search, chosen, 2 / 3, 0.05)

    whole = make()
    before = whole.search.supernet.state_dict()["stem.0.weight"].clone()
    rows = straight(whole)
    assert whole.steps == 12 == rows[-1][1] and len(whole.decisions.kept) == 6
    assert not torch.equal(before, whole.search.supernet.state_dict()["stem.0.weight"])
    assert all(weight.grad is None for weight in whole.search.supernet.parameters())
    resumed, resumed_rows = stopped_and_resumed(make, 5, tmp_path)
    assert identical(whole.state_dict(), resumed.state_dict()) and resumed_rows == rows
