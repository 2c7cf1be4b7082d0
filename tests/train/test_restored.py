"""A damaged checkpoint of a finished job: the advice can be followed, and ends in the same bits."""

from dataclasses import dataclass

import pytest
import torch

from supernet.errors import UserError
from supernet.runs.export import Export
from supernet.runs.judge import Judge
from supernet.runs.training import trained_network
from tests.train.test_loop import spoilt
from tests.variants import SPACES


@dataclass(frozen=True)
class Used(Export):
    """Uses the trained network as an export does, without writing it in every form."""

    name = "used"

    def compute(self, work):
        return {"weights": len(trained_network(work, self.network(work)).state_dict())}


def judged(run):
    run.perform([Judge()], again=True)


def used(run):
    run.perform([Used(run.derive())], again=True)


def searched(run):
    run.search()


def retrained(run):
    run.retrain()


# the job whose checkpoint is damaged -> the steps that use it
USERS = {"search/0": (judged, searched), "retrain/0": (used, retrained)}
HOW = [*spoilt(b"ab"), "gone"]
MEMBERS = [(job, user, how) for job, users in USERS.items() for user in users for how in HOW]


@pytest.fixture
def finished(make_run):
    """A run whose every job is finished, and the function that opens it again."""
    space = SPACES["nb201"]()
    run = make_run(space)
    run.retrain()
    return run, lambda: make_run(space)


@pytest.mark.parametrize(("job", "user", "how"), MEMBERS)
def test_it_is_run_again_from_what_is_still_good(job, user, how, finished):
    run, opened = finished
    path = run.work.checkpoints.path(job)
    whole, before = torch.load(path, weights_only=True), run.state.stages.copy()
    if how != "gone":
        path.write_bytes(spoilt(path.read_bytes())[how])
        if user in (judged, used):  # the others only see that the file is there
            with pytest.raises(UserError) as caught:
                user(opened())
            message = str(caught.value)
            assert str(path) in message and "remove it and give the same command" in message
    path.unlink(missing_ok=True)  # as the message says
    again = opened()
    user(again)
    assert same(torch.load(path, weights_only=True)["state"], whole["state"])
    after = {name: stage["key"] for name, stage in again.state.stages.items() if name != "used"}
    assert after == {name: stage["key"] for name, stage in before.items()}


def test_stopped_while_it_is_run_again_it_does_not_count_as_finished(finished, monkeypatch):
    run, opened = finished
    run.work.checkpoints.path("search/0").unlink()
    again = opened()
    with monkeypatch.context() as patch:
        patch.setattr("supernet.runs.search.Search.compute", lambda job, work: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            again.search()
    assert "search/0" not in opened().state.stages


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
