"""Between two rows of the log, a step asks the device for no number.

On an accelerator the host would wait there. What a method cannot do without is listed here.
"""

import pytest
import torch

from supernet.learners.fixed import Fixed
from supernet.learners.gradient import Gradient
from supernet.ops.fast import native
from supernet.samplers.softmax import Softmax
from supernet.samplers.uniform import Uniform
from tests.variants import GUARDS, INSTRUMENTS, LEARNERS, MODIFIERS, SAMPLERS, SPACES
from tests.waiting import held

STEPS = 3
# How often a step waits. The host has to know which options run, and draws from its own generator,
# so that the draws do not depend on the device.
WAITS = {
    "attentive": 1,  # the losses of the candidates decide on the one that is trained
    "gdas": 2,  # the draw of the learner and that of the weights
    "drnas": 2,  # the same
    "proxyless": 3,  # the draw of the weights, of the learner's two options, and of their gates
    "reinforce": 1,  # the rewards of the policy, which is on the host
    "policy": 1,  # the same: it is tried with this learner
    "oles": 1,  # it decides in every step which operations learn
}
ONCE = {"pruning": 2}  # in all steps: at the beginning of each of its two stages


@pytest.fixture
def asked(search_stage, monkeypatch):
    """A function that says what the host asks the device for in the steps of a search."""
    monkeypatch.setattr(native, "library", lambda: None)  # what kernels compute cannot be followed

    def steps(sampler, learner, **parts):
        stage = search_stage(SPACES["nb201"](), sampler, learner, epochs=1, **parts)
        supernet, images = stage.supernet, stage.data.train
        weights = [*supernet.parameters(), *supernet.buffers(), *stage.logits.values()]
        with held([*weights, images.pixels, images.labels]) as mode:
            for index in range(STEPS):
                figures = stage.step(index)
        # else nothing would have been followed to the end of the step
        assert all(map(mode.holds, weights)) and (not figures or mode.holds(figures["loss"]))
        return mode.asked

    return steps


def expected(name):
    return ONCE.get(name, WAITS.get(name, 0) * STEPS)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_waits_only_where_it_must(name, asked):
    learner = LEARNERS["reinforce"]() if name == "policy" else Gradient()
    assert len(asked(SAMPLERS[name](), learner)) == expected(name)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_waits_only_where_it_must(name, asked):
    learner = LEARNERS[name]()
    sampler = SAMPLERS["policy"]() if learner.moves == "policy" else Softmax()
    assert len(asked(sampler, learner)) == expected(name)


@pytest.mark.parametrize("name", MODIFIERS)
def test_a_modifier_waits_only_where_it_must(name, asked):
    assert len(asked(Softmax(), Gradient(), modifiers=[MODIFIERS[name]()])) == expected(name)


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_an_instrument_does_not_wait(name, asked):
    parts = {"instruments": {name: INSTRUMENTS[name]()}}
    assert asked(Softmax(), Gradient(), **parts) == []


@pytest.mark.parametrize("name", GUARDS)
def test_a_guard_waits_only_where_it_must(name, asked):
    assert len(asked(Softmax(), Gradient(), guards={name: GUARDS[name]()})) == expected(name)


@pytest.mark.parametrize(
    ("ask", "found"),
    [
        (lambda x: x + 1, []),
        (lambda x: (x * 2).sum().item(), ["_local_scalar_dense"]),
        (lambda x: float(x.mean()), ["_local_scalar_dense"]),
        (lambda x: bool((x > 0).any()), ["_local_scalar_dense"]),
        (lambda x: x.relu().tolist(), ["tolist"]),
        (lambda x: x.detach().cpu().sum().item(), ["cpu"]),  # what is on the host can be read
        (lambda x: x.numpy(), ["numpy"]),
        (lambda x: x[x > 0], ["index"]),
        (lambda x: x.nonzero(), ["nonzero"]),
        (lambda x: torch.ones(2).sum().item(), []),
        (lambda x: x[torch.tensor([True, False])], []),  # a mask that the host knows
        (lambda x: (torch.ones(2).to(x.device) * x).max().item(), ["_local_scalar_dense"]),
    ],
)
def test_every_way_to_ask_is_found(ask, found):
    with held([x := torch.tensor([1.0, -1.0])]) as mode:
        ask(x)
    assert mode.asked == found


def test_a_method_that_would_wait_is_found(asked):
    class Curious(Uniform):
        def mixtures(self, logits, progress, loss):
            return [one for one in super().mixtures(logits, progress, loss) if loss(one) > 0]

    assert len(asked(Curious(), Fixed())) == STEPS
