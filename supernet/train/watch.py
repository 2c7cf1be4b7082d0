"""The instruments and guards of a search: instruments measure it, guards act on it."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from supernet.guards.guard import Fired, Gradients, Guard
from supernet.instruments.instrument import Instrument, Snapshot
from supernet.mixture import Logits
from supernet.spaces.space import Space
from supernet.train.settings import MeasureSettings


class Watch:
    """The instruments and guards of one search, by name.

    An instrument measures the search and changes nothing. A guard acts on it: in a step it may
    remove the gradients of some weights, so that these do not move, and at the end of an epoch it
    may replace the logits or end the search. :attr:`fired` records what the guards did, and ``say``
    is called with a line about each action. :attr:`seconds` holds the time that each instrument and
    guard has taken.
    """

    def __init__(
        self,
        instruments: Mapping[str, Instrument] | None = None,
        guards: Mapping[str, Guard] | None = None,
        settings: MeasureSettings | None = None,
        say: Callable[[str], None] = lambda line: None,
    ):
        self.settings, self.say = settings or MeasureSettings(), say
        self.instruments = {
            name: instrument
            for name, instrument in (instruments or {}).items()
            if self.settings.every or not instrument.expensive
        }
        self.guards = dict(guards or {})
        self.seconds = dict.fromkeys(self.watchers, 0.0)
        self.fired: list[dict[str, Any]] = []  # {guard, epoch, what}, in the order of the actions

    @property
    def watchers(self) -> dict[str, Instrument | Guard]:
        return {**self.instruments, **self.guards}

    def described(self) -> dict[str, dict[str, Any]]:
        """What the figures of the instruments and guards mean, as a value that JSON can hold.

        The value maps the name of each instrument and guard to its ``title``, its ``meaning`` and
        its ``prefixes``: the name of each of its figures begins with one of these. If two log the
        same figures, only the first one is listed.
        """
        found: dict[str, dict[str, Any]] = {}
        for name, part in self.watchers.items():
            prefixes = list(part.prefixes)
            if prefixes not in [one["prefixes"] for one in found.values()]:
                found[name] = {"title": part.title, "meaning": part.meaning, "prefixes": prefixes}
        return found

    def begin(self, space: Space, supernet: nn.Module) -> None:
        """Prepares for a new supernet. Call it once in every phase, before the first step."""
        for part in self.watchers.values():
            part.begin(space, supernet)

    def step(self, gradient: Logits | None, validation: Gradients | None) -> None:
        """Measures, and lets the guards act on, one step of the search.

        Call it in every step, after the backward pass of the weights and before their optimiser
        moves them. ``gradient`` is the gradient that the logits followed in this step, or ``None``
        if they did not move. ``validation`` computes the gradients of given weights on the
        architecture batch, from which the logits learnt in this step.
        """
        for name, instrument in self.instruments.items():
            with self.timed(name):
                instrument.step(gradient)
        for name, guard in self.guards.items():
            with self.timed(name):
                guard.step(validation)

    def end_of_epoch(self, snapshot: Snapshot) -> tuple[dict[str, float], list[Fired]]:
        """The figures to log at the end of an epoch, and the actions that the search must take for
        its guards.
        """
        figures: dict[str, float] = {}
        for name, instrument in self.instruments.items():
            if not instrument.expensive or snapshot.epoch % self.settings.every == 0:
                with self.timed(name):
                    figures |= instrument.read(snapshot)
        actions = []
        for name, guard in self.guards.items():
            with self.timed(name):
                fired = guard.end_of_epoch(snapshot)
            figures |= guard.figures
            if fired is not None:
                self.fired.append({"guard": name, "epoch": snapshot.epoch, "what": fired.what})
                self.say(f"guard {name}, epoch {snapshot.epoch}: {fired.what}")
                actions.append(fired)
        return figures, actions

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds the time that the block takes to the seconds of the instrument or guard ``name``."""
        started = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - started

    def state_dict(self) -> dict[str, Any]:
        return {
            "watchers": {name: part.state_dict() for name, part in self.watchers.items()},
            "fired": list(self.fired),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of :meth:`state_dict`. A resumed search may have other instruments: the
        state of those that it no longer has is ignored.
        """
        for name, part in self.watchers.items():
            if name in state["watchers"]:
                part.load_state_dict(state["watchers"][name])
        self.fired = list(state["fired"])
