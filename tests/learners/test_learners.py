"""What every learner must do."""

import copy

import pytest
import torch

from supernet.learners.fixed import Fixed
from tests.compare import identical
from tests.learners.test_gradient import problem


def test_only_a_learner_that_learns_moves_the_logits_and_goes_on_from_its_state_to_the_bit(space, learner):
    if not learner.learns:
        assert isinstance(learner, Fixed) and learner.state_dict() == {}
        return
    p, fresh = problem(space), copy.deepcopy(learner)

    def logits():
        return {name: table.detach().clone() for name, table in p.logits.items()}

    learner.begin(p.logits)
    start, figures, halfway = logits(), learner.step(p), logits()
    assert all(value.ndim == 0 and not value.requires_grad for value in figures.values())
    assert not any(torch.equal(halfway[name], start[name]) for name in start)
    state = copy.deepcopy(learner.state_dict())
    learner.step(p)
    whole = logits()
    for name, table in p.logits.items():
        table.data.copy_(halfway[name])
    fresh.begin(p.logits)
    fresh.load_state_dict(state)
    fresh.step(p)
    assert identical(logits(), whole)


def test_fixed_has_no_step():
    with pytest.raises(NotImplementedError):
        Fixed().step(None)
