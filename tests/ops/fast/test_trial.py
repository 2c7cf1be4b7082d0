"""The trial that kernels must pass before they are used; and what they say without memory."""

import ctypes

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from supernet.ops.fast import native, program, trial
from tests.ops.fast.sums import compiled

WRONG = ("forward", "backward", "pool", "pool_backward", "fold", "unfold", "products", "grams")


class Spoilt:
    """The kernels, of which one does nothing."""

    def __init__(self, kernels, name):
        self.kernels, self.name, self._name = kernels, name, "kernels.so"

    def __getattr__(self, name):
        return (lambda *arguments: None) if name == self.name else getattr(self.kernels, name)


@compiled
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_refused(wrong, monkeypatch):
    """Whichever it is: with one line, and without it nothing else fails."""
    # New memory is filled, so that it does not hold the right results of the trial before.
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    spoilt = Spoilt(native.kernels(), wrong)
    assert trial.passed()
    monkeypatch.setattr(native, "library", lambda: spoilt)
    native.tried.cache_clear()
    x = torch.zeros(1, 4, 3, 3)
    try:
        with pytest.warns(RuntimeWarning, match=r"kernels\.so compute another .* are not used"):
            assert not program.runs_at_once(x)
        assert not program.runs_at_once(x)  # without another warning
    finally:
        torch.use_deterministic_algorithms(False)
        native.tried.cache_clear()


CONTEXTS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "another default device": lambda: torch.device("meta"),
    "operations counted": lambda: FlopCounterMode(display=False),
    "operations recorded": torch.profiler.profile,
}


@compiled
def test_the_trial_draws_nothing_from_the_generator_of_torch():
    before = torch.get_rng_state()
    assert trial.passed()
    assert torch.equal(torch.get_rng_state(), before)


@compiled
@pytest.mark.parametrize("context", CONTEXTS)
def test_the_first_step_may_be_inside_of_any_context(context):
    native.tried.cache_clear()
    with CONTEXTS[context]():
        nn.Identity()(torch.ones(1, requires_grad=True))  # some contexts look at modules
        assert program.runs_at_once(torch.zeros(1, 4, 3, 3, device="cpu"))


HUGE = 2**50
NOTHING = native.numbers([0] * 16)
CALLS = {  # so many channels have no place in any memory, and there are no images
    "products": (None, None, None, NOTHING, None, None, None, 0, 0, HUGE, 1, 1),
    "grams": (None, None, None, None, 0, 1.0, 0, HUGE, 1),
    "forward": (None, None, None, None, None, [0, 0, 0, 1, 1, HUGE, 1, 0, 0], *[NOTHING] * 3, 0),
    "backward": (
        *[None] * 5,
        *[NOTHING] * 4,
        [0, 0, 0, 1, 1, HUGE, 1, 0, 0],
        *[NOTHING] * 3,
        0,
    ),
    "pool": (None, None, None, None, None, [0, 1, 1, HUGE, 1], 1),
    "pool_backward": (None, None, 1, 1, None, *[NOTHING] * 4, [0, 1, 1, HUGE, 1], 0),
    "fold": (*[None] * 7, NOTHING, 2**25, 1e-5),
    "unfold": (*[None] * 9, NOTHING, 2**25, 1e-5, 1),
}


@compiled
@pytest.mark.parametrize("name", CALLS)
def test_without_memory_a_kernel_raises_an_error(name):
    arguments = [native.numbers(one) if isinstance(one, list) else one for one in CALLS[name]]
    with pytest.raises(MemoryError, match="use smaller batches"):
        getattr(native.kernels(), name)(*arguments)


@compiled
@pytest.mark.parametrize("name", CALLS)
def test_arguments_of_another_type_are_refused(name):
    arguments = [native.numbers(one) if isinstance(one, list) else one for one in CALLS[name]]
    with pytest.raises(ctypes.ArgumentError):
        getattr(native.kernels(), name)(1.5, *arguments[1:])
    with pytest.raises(TypeError):
        getattr(native.kernels(), name)(*arguments[1:])
