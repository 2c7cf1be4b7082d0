"""When instruments and guards are called, how long they take, and what is recorded of them."""

from types import SimpleNamespace

import pytest

from supernet.errors import UserError
from supernet.guards.guard import Fired, Guard
from supernet.instruments.instrument import Instrument
from supernet.train import watch as module
from supernet.train.settings import MeasureSettings
from supernet.train.watch import Watch


class Counter(Instrument):
    """Counts its steps, and reads how many there were since the last reading."""

    title, meaning, prefixes = "steps", "how many", ("steps",)

    def begin(self, space, supernet):
        super().begin(space, supernet)
        self.steps, self.gradients = 0, []

    def step(self, gradient):
        self.steps += 1
        self.gradients.append(gradient)

    def read(self, snapshot):
        return {"steps": float(self.steps)}

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


class Expensive(Counter):
    prefixes, expensive = ("expensive",), True

    def read(self, snapshot):
        return {"expensive": float(self.steps)}


class Alarm(Guard):
    """Fires at the end of one epoch."""

    title, meaning, prefixes = "alarm", "whether it rings", ("alarm",)

    def __init__(self, at: int, **asks):
        self.at, self.asks, self.validations = at, asks, []

    def step(self, validation):
        self.validations.append(validation)

    def end_of_epoch(self, snapshot):
        self.figures = {"alarm": float(snapshot.epoch == self.at)}
        return Fired("it rang", **self.asks) if snapshot.epoch == self.at else None


def epochs(watch, count, first=1):
    """Runs epochs of two steps each. Returns the result of the end of each epoch."""
    found = []
    for epoch in range(first, first + count):
        for _ in range(2):
            watch.step("gradient", "validation")
        found.append(watch.end_of_epoch(SimpleNamespace(epoch=epoch)))
    return found


def begun(*arguments, **settings):
    watch = Watch(*arguments, **settings)
    watch.begin("space", "supernet")
    return watch


def test_everyone_is_asked_in_every_step_and_expensive_readings_are_rare():
    watch = begun(
        {"counter": Counter(), "expensive": Expensive()},
        {"alarm": Alarm(9)},
        MeasureSettings(every=2),
    )
    figures = [figures for figures, _ in epochs(watch, 4)]
    assert figures == [
        {"steps": 2.0, "alarm": 0.0},
        {"steps": 4.0, "expensive": 4.0, "alarm": 0.0},
        {"steps": 6.0, "alarm": 0.0},
        {"steps": 8.0, "expensive": 8.0, "alarm": 0.0},
    ]
    assert watch.instruments["counter"].gradients == ["gradient"] * 8
    assert watch.guards["alarm"].validations == ["validation"] * 8
    assert watch.instruments["counter"].supernet == "supernet"


def test_expensive_instruments_are_left_out_unless_it_is_said_how_often_they_read():
    assert list(Watch({"a": Counter(), "b": Expensive()}).watchers) == ["a"]


def test_what_a_guard_does_is_kept_said_and_handed_on():
    said = []
    guards = {"first": Alarm(2, stops=True), "second": Alarm(3, logits={})}
    watch = begun({}, guards, say=said.append)
    asked = [asked for _, asked in epochs(watch, 3)]
    assert asked == [[], [Fired("it rang", stops=True)], [Fired("it rang", logits={})]]
    assert watch.fired == [
        {"guard": "first", "epoch": 2, "what": "it rang"},
        {"guard": "second", "epoch": 3, "what": "it rang"},
    ]
    assert said == ["guard first, epoch 2: it rang", "guard second, epoch 3: it rang"]


def test_the_seconds_of_each_are_counted_apart(monkeypatch):
    """The clock advances by a second each time it is read."""
    ticks = iter(range(1000))
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    watch = begun({"counter": Counter()}, {"alarm": Alarm(9)})
    epochs(watch, 2)
    assert watch.seconds == {"counter": 6.0, "alarm": 6.0}  # two steps and an end, twice


def test_a_restored_watch_goes_on_and_may_have_other_instruments():
    watch = begun({"counter": Counter()}, {"alarm": Alarm(1)})
    epochs(watch, 1)
    restored = begun({"counter": Counter(), "new": Counter()}, {"alarm": Alarm(1)})
    restored.load_state_dict(watch.state_dict())
    assert restored.fired == watch.fired
    epochs(restored, 1, first=2)
    assert {name: one.steps for name, one in restored.instruments.items()} == {
        "counter": 4,
        "new": 2,
    }
    without = begun()
    without.load_state_dict(watch.state_dict())
    assert epochs(without, 1) == [({}, [])]


@pytest.mark.parametrize("setting", ["every", "images"])
def test_a_setting_out_of_range_is_one_line(setting):
    with pytest.raises(UserError, match=rf"^measure\.{setting}=-1: must be at least"):
        MeasureSettings(**{setting: -1})
