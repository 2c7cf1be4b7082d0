"""What every learner must do."""

import copy

import pytest
import torch

from supernet.learners.fixed import Fixed
from tests.compare import identical
from tests.learners.test_gradient import problem


def test_only_a_learner_that_learns_moves_the_logits(space, learner):
    p = problem(space)
    learner.begin(p.logits)
    before = {name: table.detach().clone() for name, table in p.logits.items()}
    if learner.learns:
        figures = learner.step(p)
        assert all(value.ndim == 0 and not value.requires_grad for value in figures.values())
    assert all(torch.equal(table, before[name]) != learner.learns for name, table in p.logits.items())


def test_a_learner_goes_on_from_its_state_to_the_bit(space, learner):
    if not learner.learns:
        assert learner.state_dict() == {} and isinstance(learner, Fixed)
        return
    p, fresh = problem(space), copy.deepcopy(learner)
    learner.begin(p.logits)
    learner.step(p)
    state, halfway = copy.deepcopy(learner.state_dict()), {name: table.detach().clone() for name, table in p.logits.items()}
    learner.step(p)
    whole = {name: table.detach().clone() for name, table in p.logits.items()}
    with torch.no_grad():
        for name, table in p.logits.items():
            table.copy_(halfway[name])
    fresh.begin(p.logits)
    fresh.load_state_dict(state)
    fresh.step(p)
    assert identical({name: table.detach() for name, table in p.logits.items()}, whole)


def test_fixed_has_no_step():
    with pytest.raises(NotImplementedError):
        Fixed().step(None)
