"""What is measured of a search while it runs, and what acts on it: its instruments and guards."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from supernet.errors import require
from supernet.guards.guard import Fired, Gradients, Guard
from supernet.instruments.instrument import Instrument, Snapshot
from supernet.mixture import Logits
from supernet.spaces.space import Space


@dataclass
class MeasureSettings:
    """When, and on how many images, a search is measured."""

    # epochs between two readings of the instruments that take longer than a step (gap, eigenvalue);
    # 0 leaves these instruments out
    every: int = 0
    # images of the architecture split, always the same, on which these instruments and the guards
    # measure; the eigenvalue reads the first batch alone
    images: int = 512

    def __post_init__(self) -> None:
        require("measure.every", self.every, least=0)
        require("measure.images", self.images, least=1)


class Watch:
    """The instruments and guards of one search, by name.

    Instruments measure the search and change nothing. Guards act on it: they may keep weights from
    moving in a step, and at the end of an epoch give other logits or end the search. What they did
    is kept in :attr:`fired`, and ``say`` is called with it. :attr:`seconds` says how long each has
    taken.
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
        self.fired: list[dict[str, Any]] = []  # guard, epoch and what it did, in order

    @property
    def watchers(self) -> dict[str, Instrument | Guard]:
        return {**self.instruments, **self.guards}

    def described(self) -> dict[str, dict[str, Any]]:
        """What the figures of each instrument and guard mean, as a JSON value: ``title``,
        ``meaning`` and ``prefixes``, with one of which the name of each figure begins.

        Where two log the same figures, the first one stands for both.
        """
        found: dict[str, dict[str, Any]] = {}
        for name, part in self.watchers.items():
            prefixes = list(part.prefixes)
            if prefixes not in [one["prefixes"] for one in found.values()]:
                found[name] = {"title": part.title, "meaning": part.meaning, "prefixes": prefixes}
        return found

    def begin(self, space: Space, supernet: nn.Module) -> None:
        """To be called with the supernet of every phase, before its first step."""
        for part in self.watchers.values():
            part.begin(space, supernet)

    def step(self, gradient: Logits | None, validation: Gradients | None) -> None:
        """To be called in every step, when the weights have their gradients and have not moved yet.

        ``gradient`` is the one that the logits have just followed, if they did; ``validation``
        gives gradients of weights on the images that they learnt from.
        """
        for name, instrument in self.instruments.items():
            with self.timed(name):
                instrument.step(gradient)
        for name, guard in self.guards.items():
            with self.timed(name):
                guard.step(validation)

    def end_of_epoch(self, snapshot: Snapshot) -> tuple[dict[str, float], list[Fired]]:
        """The figures to log at the end of an epoch, and what the guards ask the search to do."""
        figures: dict[str, float] = {}
        for name, instrument in self.instruments.items():
            if not instrument.expensive or snapshot.epoch % self.settings.every == 0:
                with self.timed(name):
                    figures |= instrument.read(snapshot)
        asked = []
        for name, guard in self.guards.items():
            with self.timed(name):
                fired = guard.end_of_epoch(snapshot)
            figures |= guard.figures
            if fired is not None:
                self.fired.append({"guard": name, "epoch": snapshot.epoch, "what": fired.what})
                self.say(f"guard {name}, epoch {snapshot.epoch}: {fired.what}")
                asked.append(fired)
        return figures, asked

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Counts the time that is spent inside as that of the instrument or guard ``name``."""
        started = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - started

    def state_dict(self) -> dict[str, Any]:
        return {
            "watchers": {name: part.state_dict() for name, part in self.watchers.items()},
            "fired": list(self.fired),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict` gave; a search may go on with other instruments."""
        for name, part in self.watchers.items():
            if name in state["watchers"]:
                part.load_state_dict(state["watchers"][name])
        self.fired = list(state["fired"])
