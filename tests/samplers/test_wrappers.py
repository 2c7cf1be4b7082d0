"""Samplers that wrap other samplers: every hook reaches the sampler that must answer it."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch

import supernet
from supernet.learners.gradient import Gradient
from supernet.modifiers.modifier import Modified
from supernet.modifiers.pruning import Pruning
from supernet.randomness import Streams
from supernet.samplers.fairdarts import FairDARTS
from supernet.samplers.sampler import Sampler
from supernet.samplers.schedule import Schedule
from supernet.samplers.softmax import Softmax
from supernet.samplers.uniform import Uniform
from supernet.samplers.wrapper import Wrapper
from supernet.train.search import snapshot_of
from tests.budgets import budget_of
from tests.samplers.drawing import judged
from tests.variants import SPACES

NO_HOOKS = {"where"}  # the name of the settings, which each sampler has itself
HOOKS = {
    name: hook
    for name, hook in vars(Sampler).items()
    if not name.startswith("_") and name not in NO_HOOKS
}
EVERY = {"begin", "tables", "state_dict", "load_state_dict"}  # hooks that all samplers answer
ANSWERS = {"scores_from": "logits", "distils": True, "penalty": 3.0}  # hooks whose type is fixed


class Recorder(Sampler):
    """Remembers the arguments of each of its hooks. Each hook has an answer of its own."""

    def __init__(self, name: str):
        self.name, self.calls = name, []

    def answer(self, hook: str):
        if hook == "tables":
            return {f"own to {self.name}": (1, 2)}
        if hook == "mixtures":
            return [f"mixture of {self.name}"]
        if hook == "state_dict":
            return {"state of": self.name}
        return ANSWERS.get(hook, f"{hook} of {self.name}")


def recording(hook: str):
    """A method, or a property if the hook is not a method, that records the call and answers it."""
    if callable(HOOKS[hook]):
        signature = inspect.signature(HOOKS[hook])

        def method(self, *values):
            given = dict(signature.bind(self, *values).arguments)
            self.calls.append((hook, {name: v for name, v in given.items() if name != "self"}))
            return self.answer(hook)

        return method

    def read(self):
        self.calls.append((hook, {}))
        return self.answer(hook)

    return property(read)


for hook in HOOKS:
    setattr(Recorder, hook, recording(hook))


@dataclass
class Case:
    """A wrapper of samplers a and b at a progress: which answers, and the progress it gets."""

    kind: type[Wrapper]
    make: Callable[[Sampler, Sampler], Wrapper]
    progress: float
    leader: str
    received: float  # the progress that the leader gets
    others: dict[str, str] = field(default_factory=dict)  # hook -> who answers it, not the leader


CASES = {
    "modified": Case(Modified, lambda a, b: Modified(a, []), 0.75, "a", 0.75),
    "schedule, first phase": Case(
        Schedule,
        lambda a, b: Schedule([[a, 0.25], [b, 0.75]]),
        0.0625,
        "a",
        0.25,
        {"scores": "b", "scores_from": "b"},
    ),
    "schedule, second phase": Case(
        Schedule, lambda a, b: Schedule([[a, 0.25], [b, 0.75]]), 0.625, "b", 0.5
    ),
    "mixed schedule": Case(  # b leads with near certainty
        Schedule, lambda a, b: Schedule([[a, 1e-9], [b, 1 - 1e-9]], mixed=True), 0.7, "b", 0.7
    ),
    "mixed schedule, the less probable leads": Case(
        Schedule,
        lambda a, b: led_by_the_first(Schedule([[a, 0.3], [b, 0.7]], mixed=True)),
        0.7,
        "a",
        0.7,
        {"mean": "b", "scores": "b", "scores_from": "b"},
    ),
}


def led_by_the_first(schedule: Schedule) -> Schedule:
    """The schedule. Its leader at 0.7 was drawn already: it is the first one."""
    begin = schedule.begin

    def begun(*arguments):
        begin(*arguments)
        schedule.leads, schedule.progress = 0, 0.7

    schedule.begin = begun
    return schedule


def test_every_wrapper_is_among_the_cases():
    found = set()
    for module in pkgutil.walk_packages(supernet.__path__, "supernet."):
        for value in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(value) and issubclass(value, Wrapper) and value is not Wrapper:
                found.add(value)
    assert found == {case.kind for case in CASES.values()}


def arguments_for(space):
    """A value for each parameter that a hook may have."""
    tables = {group.name: torch.zeros(group.shape) for group in space.groups}
    tables |= {
        "own to a": torch.zeros(1, 2),
        "own to b": torch.zeros(1, 2),
        "foreign": torch.zeros(1, 2),
    }
    return {
        "budget": budget_of(space),
        "streams": Streams(0),
        "device": torch.device("cpu"),
        "logits": tables,
        "before": {name: table + 1 for name, table in tables.items()},
        "loss": judged,
        "noise": torch.Generator(),
    }


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("name", CASES)
def test_every_hook_is_forwarded_with_the_right_arguments_and_its_answer_comes_back(name, hook):
    """The hooks are found by introspection. If a hook is added to ``Sampler``, this fails until
    every wrapper forwards it.
    """
    space, case = SPACES["nb201"](), CASES[name]
    samplers = {"a": Recorder("a"), "b": Recorder("b")}
    wrapper = case.make(*samplers.values())
    inside = {one.name: one for one in wrapper.samplers}
    given = arguments_for(space) | {"progress": case.progress}
    wrapper.begin(given["budget"], given["streams"], given["device"])
    wrapper.advance(given["logits"], case.progress)
    given["state"] = wrapper.state_dict()
    for sampler in samplers.values():
        sampler.calls.clear()

    if callable(HOOKS[hook]):
        parameters = [one for one in inspect.signature(HOOKS[hook]).parameters if one != "self"]
        answer = getattr(wrapper, hook)(*(given[one] for one in parameters))
    else:
        parameters, answer = [], getattr(wrapper, hook)

    asked = set(inside) if hook in EVERY else {case.others.get(hook, case.leader)}
    for one, sampler in samplers.items():
        calls = [arguments for called, arguments in sampler.calls if called == hook]
        assert len(calls) == (one in asked)
        known = [*(group.name for group in space.groups), f"own to {one}"]
        expected = given | {
            "logits": {table: given["logits"][table] for table in known},
            "before": {table: given["before"][table] for table in known},
            "progress": case.received,
            "state": sampler.answer("state_dict"),
        }
        for arguments in calls:
            assert arguments.keys() == set(parameters)
            for parameter, value in arguments.items():
                assert same(value, expected[parameter]), parameter

    if hook == "tables":
        assert answer == {f"own to {one}": (1, 2) for one in inside}
    elif hook == "state_dict":
        assert answer["samplers"] == [sampler.answer(hook) for sampler in inside.values()]
    elif hook not in EVERY | {"advance", "settle"}:  # these two return nothing
        (one,) = asked
        assert answer == samplers[one].answer(hook)


def same(value, expected) -> bool:
    """Whether these are the same objects. For tables of logits, their values are compared."""
    if isinstance(expected, dict) and all(torch.is_tensor(one) for one in expected.values()):
        return value.keys() == expected.keys() and all(
            value[name] is table for name, table in expected.items()
        )
    return value is expected or value == expected


def test_a_wrapper_begins_what_it_wraps_once():
    space, recorder = SPACES["nb201"](), Recorder("a")
    wrapper = Modified(Schedule([[recorder, 1.0]]), [])
    wrapper.begin(budget_of(space), Streams(0), torch.device("cpu"))
    assert [hook for hook, _ in recorder.calls].count("begin") == 1


@pytest.mark.parametrize("modifiers", [[], [Pruning([[0.9, 3]])]], ids=["alone", "modified"])
def test_instruments_see_the_weights_of_the_sampler_that_leads(modifiers, search_stage):
    """The weights of FairDARTS are sigmoids: if it leads the schedule, they are not a softmax."""
    space = SPACES["nb201"]()
    sampler = Schedule([[Softmax(), 0.5], [FairDARTS(), 0.5]])
    stage = search_stage(space, sampler, Gradient(lr=0.1), modifiers=modifiers)
    for steps, weights in ((2, lambda table: table.softmax(-1)), (4, torch.sigmoid)):
        while stage.done < steps:
            stage.step(stage.done)
        mixture = snapshot_of(stage).mixture(stage.detached_logits)
        for name, table in stage.detached_logits.items():
            torch.testing.assert_close(mixture[name].weights, weights(table))


def test_measuring_a_mixed_schedule_moves_no_draw(space):
    """The leaders are the same, with or without a call for the mean mixture between two steps."""

    def leaders(measured: bool) -> list[int]:
        schedule = Schedule([[Uniform(), 0.5], [Softmax(), 0.5]], mixed=True)
        schedule.begin(budget_of(space), Streams(0), torch.device("cpu"))
        logits, found = {group.name: torch.zeros(group.shape) for group in space.groups}, []
        for step in range(50):
            schedule.advance(logits, step / 50)
            found.append(schedule.leads)
            if measured:
                before = schedule.state_dict()
                schedule.mean(logits, (step + 1) / 50)
                assert schedule.state_dict() == before
        return found

    assert leaders(True) == leaders(False) and set(leaders(True)) == {0, 1}
