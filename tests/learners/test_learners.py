"""What every learner must do."""

import copy

import pytest
import torch

from supernet.cost.budget import Budget
from supernet.errors import UserError
from supernet.learners.fixed import Fixed
from supernet.learners.learner import fixed, require_warmups, statistics_kept
from supernet.randomness import Streams
from supernet.samplers.policy import Policy
from tests.compare import identical
from tests.learners.test_gradient import problem
from tests.tasks import task_of


def begun(learner, space, p):
    """Begins ``learner`` on the problem ``p``, with a policy. Returns the parameters that can move,
    by the names of ``moves``.
    """
    sampler = Policy(hidden=8)
    sampler.begin(Budget(space, task_of(3, 2)), Streams(0), torch.device("cpu"))
    learner.begin(p.logits, sampler)
    return {"logits": p.logits, "policy": dict(sampler.controller.named_parameters())}


def values(parameters):
    return {name: tensor.detach().clone() for name, tensor in parameters.items()}


def moved_once(learner, p):
    """One step of the learner. One that follows the gradient of the weights' loss is given it."""
    if not learner.joint:
        return learner.step(p)
    with fixed(p.supernet), statistics_kept(p.supernet):
        images, labels = p.weight_batch
        p.loss(p.supernet(images, p.relax(p.logits)), labels).backward()
    return learner.follow(p.logits)


def test_a_learner_moves_what_it_names_and_nothing_else(space, learner):
    p = problem(space)
    movable = begun(learner, space, p)
    before = {kind: values(tensors) for kind, tensors in movable.items()} | {
        "weights": values(p.supernet.state_dict())
    }
    assert learner.moves in ("", *movable)
    assert learner.learns == (learner.moves != "" and not learner.joint)
    if learner.moves:
        figures = moved_once(learner, p)
        assert figures and all(
            value.ndim == 0 and not value.requires_grad for value in figures.values()
        )
    for kind, tensors in (movable | {"weights": p.supernet.state_dict()}).items():
        assert any(
            not torch.equal(tensor, before[kind][name]) for name, tensor in tensors.items()
        ) == (kind == learner.moves)
    assert all(
        tensor.grad is None
        for tensors in [*movable.values(), dict(p.supernet.named_parameters())]
        for tensor in tensors.values()
    )


@pytest.mark.parametrize("space", ["nb201", "Net"], indirect=True)
def test_a_learner_goes_on_from_its_state_to_the_bit(space, learner):
    if not learner.moves:
        assert learner.state_dict() == {} and isinstance(learner, Fixed)
        return
    p, fresh = problem(space), copy.deepcopy(learner)
    moved = begun(learner, space, p)[learner.moves]
    moved_once(learner, p)
    state, halfway, after_one = (
        copy.deepcopy(learner.state_dict()),
        values(moved),
        copy.deepcopy(chance(learner)),
    )
    moved_once(learner, p)
    whole = values(moved)
    again = begun(fresh, space, p)[learner.moves]
    with torch.no_grad():
        for name, tensor in again.items():
            tensor.copy_(halfway[name])
    fresh.load_state_dict(state)
    chance(fresh).load_state_dict(after_one.state_dict())
    moved_once(fresh, p)
    assert identical(values(again), whole)


def chance(learner) -> Streams:
    """The streams that a learner draws from, whose state is kept separately. If it draws nothing,
    they are other streams.
    """
    return learner.policy.streams if learner.moves == "policy" else Streams(0)


def test_fixed_has_no_step():
    with pytest.raises(NotImplementedError):
        Fixed().step(None)


@pytest.mark.parametrize(
    "warmup", [[0.7, 0.3], [0.3, 0.3], [-0.1, 0.3], [0.5, 1.5], [0.3], [0, 0.3, 0.5], 0.3, "ab"]
)
def test_a_warmup_is_a_pair_of_rising_shares_of_the_search(warmup):
    require_warmups([[0, 0.3], [0.5, 1.0]])
    with pytest.raises(UserError, match=r"^learner\.warmups: "):
        require_warmups([[0, 0.3], warmup])
