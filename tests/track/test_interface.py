"""Several trackers as one."""

import pytest

from supernet.track.interface import NoTracker, Tracker, Trackers


class Memory(Tracker):
    """Records every call, in the order over all trackers."""

    calls: list

    def __init__(self, calls, name, fails=False):
        self.calls, self.name, self.fails, self.state = calls, name, fails, None

    def start(self, folder, config, state=None):
        self.calls.append((self.name, "start", state))

    def log(self, stage, step, metrics):
        self.calls.append((self.name, "log", stage, step, dict(metrics)))

    def state_dict(self):
        return {"calls": len(self.calls)}

    def load_state_dict(self, state):
        self.calls.append((self.name, "load", state))

    def close(self, exit_code=0):
        self.calls.append((self.name, "close", exit_code))
        if self.fails:
            raise OSError("no")


class Other(Memory):
    pass


def test_all_are_asked_in_order_and_closed_even_if_one_fails(tmp_path):
    calls = []
    trackers = Trackers([Memory(calls, "a"), Other(calls, "b", fails=True)])
    trackers.start(tmp_path, {}, None)
    trackers.log("search", 1, {"loss": 2.0})
    with pytest.raises(OSError):
        trackers.close(1)
    assert calls[:2] == [("a", "start", None), ("b", "start", None)]
    assert calls[2:4] == [
        ("a", "log", "search", 1, {"loss": 2.0}),
        ("b", "log", "search", 1, {"loss": 2.0}),
    ]
    assert sorted(calls[4:]) == [("a", "close", 1), ("b", "close", 1)]


def test_a_run_goes_on_with_another_tracker(tmp_path):
    calls = []
    state = Trackers([Memory(calls, "a"), NoTracker()]).state_dict()
    trackers = Trackers([Memory(calls, "a"), Other(calls, "b")])
    trackers.start(tmp_path, {}, state)
    trackers.load_state_dict(state)
    assert calls == [
        ("a", "start", {"calls": 0}),
        ("b", "start", None),
        ("a", "load", {"calls": 0}),
    ]
