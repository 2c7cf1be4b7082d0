"""The loop and its checkpoints, on a stage so small that every value of it can be written down."""

import math
import os
import re
import signal

import pytest
import torch

from supernet.errors import UserError
from supernet.train.checkpoint import VERSION, Checkpoints
from supernet.train.loop import Stopped, StopRequest, run_stage
from tests.disk import small_disk
from tests.train.stopping import NEVER, Rows, after, stopped_and_resumed


class Counter:
    """The loss in step k (from 0) is k squared, and the accuracy is 0.5. The weight is the number
    of steps done.
    """

    name, key, device, steps, steps_per_epoch = "retrain/1", "k", torch.device("cpu"), 11, 4

    def __init__(self):
        self.weight = torch.zeros(1000)
        self.ended = 0

    def step(self, index):
        assert int(self.weight[0]) == index
        self.weight += 1
        return {"loss": torch.tensor(float(index**2)), "accuracy": torch.tensor(0.5)}

    def end_of_epoch(self):
        self.ended += 1
        return {"entropy": 1.5}

    def state_dict(self):
        return {"weight": self.weight}

    def load_state_dict(self, state):
        self.weight.copy_(state["weight"])


EXPECTED = [  # windows of 3 steps, cut at the ends of epochs (4, 8) and of the stage (11)
    (
        "retrain/1",
        end,
        {"epoch": end / 4, "loss": sum(k**2 for k in window) / len(window), "accuracy": 0.5},
    )
    for end, window in (
        (3, (0, 1, 2)),
        (4, (3,)),
        (6, (4, 5)),
        (8, (6, 7)),
        (9, (8,)),
        (11, (9, 10)),
    )
]
for _, end, row in EXPECTED:
    if end in (4, 8):
        row["entropy"] = 1.5


def test_rows_hold_the_means_since_the_last_row_and_the_ends_of_epochs():
    rows, stage = [], Counter()
    cost = run_stage(stage, tracker=Rows(rows), log_every=3)
    assert rows == EXPECTED
    assert (
        stage.ended == 2 and cost.steps == 11 and cost.seconds > 0 and cost.peak_memory_bytes > 1e6
    )


@pytest.mark.parametrize("steps", range(1, 11))
def test_stopped_after_any_step_and_resumed_the_rows_are_the_same(tmp_path, steps):
    whole = []
    run_stage(Counter(), tracker=Rows(whole), log_every=2)
    stage, rows = stopped_and_resumed(Counter, steps, tmp_path)
    assert rows == whole and int(stage.weight[0]) == 11


def test_after_a_crash_it_goes_on_from_the_last_checkpoint_and_no_row_is_there_twice(tmp_path):
    rows, checkpoints = [], Checkpoints(tmp_path, NEVER)

    def crash():
        raise ZeroDivisionError

    def due():
        checkpoints.every_seconds = 0.0

    def not_due():
        checkpoints.every_seconds = NEVER

    # checkpoint at 5, rows up to 8, crash at 9
    stage = after(after(after(Counter(), 9, crash), 6, not_due), 5, due)
    with pytest.raises(ZeroDivisionError):
        run_stage(stage, checkpoints, Rows(rows), log_every=3)
    assert [step for _, step, _ in rows] == [3, 4, 6, 8]
    stage = Counter()
    run_stage(stage, Checkpoints(tmp_path, NEVER), Rows(rows), log_every=3)
    assert rows == EXPECTED and int(stage.weight[0]) == 11


def test_a_finished_stage_is_not_run_again_but_has_its_state(tmp_path):
    run_stage(Counter(), Checkpoints(tmp_path))
    stage = after(Counter(), 11, lambda: pytest.fail("ran again"))
    assert run_stage(stage, Checkpoints(tmp_path)).steps == 11 and int(stage.weight[0]) == 11


def test_time_counts_over_all_sessions(tmp_path):
    run_stage(Counter(), Checkpoints(tmp_path))
    path = Checkpoints(tmp_path).path("retrain/1")
    torch.save(torch.load(path) | {"seconds": 1000.0}, path)
    assert 1000 < run_stage(Counter(), Checkpoints(tmp_path)).seconds < 1100


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_writes_a_checkpoint_and_stops(tmp_path, signum):
    before = signal.getsignal(signum)
    stop = StopRequest()
    stage = after(Counter(), 5, lambda: signal.raise_signal(signum))
    with stop.listening(), pytest.raises(Stopped, match=signal.Signals(signum).name) as stopped:
        run_stage(stage, Checkpoints(tmp_path, NEVER), stop=stop)
    assert stopped.value.signum == signum and signal.getsignal(signum) is before
    assert int(Checkpoints(tmp_path).load("retrain/1", "k")["state"]["weight"][0]) == 5


def test_a_second_signal_interrupts_at_once():
    stop = StopRequest()
    with stop.listening():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def broken(stage, step, weight=None, loss=None):
    """``stage``, changed so that from ``step`` on it has this weight or loss."""
    do = stage.step

    def breaking(index):
        figures = do(index)
        if index + 1 >= step and weight is not None:
            stage.weight[7] = weight
        return figures | (
            {"loss": torch.tensor(loss)} if index + 1 >= step and loss is not None else {}
        )

    stage.step = breaking
    return stage


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ({"loss": math.nan}, "loss is nan"),
        ({"loss": math.inf}, "loss is inf"),
        ({"weight": math.nan}, "a weight is not finite"),
        ({"weight": -math.inf}, "a weight is not finite"),
    ],
)
@pytest.mark.parametrize("stopping", [False, True])
def test_what_diverges_ends_in_one_line_and_never_replaces_a_good_checkpoint(
    tmp_path, trouble, message, stopping
):
    checkpoints, stop = Checkpoints(tmp_path, 0.0), StopRequest()
    stage = broken(Counter(), 6, **trouble)
    if stopping:
        stage = after(stage, 6, lambda: stop._receive(signal.SIGTERM, None))
    with pytest.raises(
        UserError, match=rf"^retrain/1: {message} at step 6; lower the learning rate"
    ) as caught:
        run_stage(stage, checkpoints, stop=stop)
    assert "\n" not in str(caught.value)
    assert checkpoints.load("retrain/1", "k")["step"] == 5


def test_without_checkpoints_the_last_step_is_looked_at_too():
    with pytest.raises(UserError, match="a weight is not finite at step 11"):
        run_stage(broken(Counter(), 11, weight=math.nan))


def test_a_checkpoint_is_written_when_the_interval_has_passed_and_not_before(tmp_path, monkeypatch):
    clock = iter([0.0, 59.0, 60.0, 61.0, 120.9, 121.0])  # made; asked; asked; saved; asked; asked
    monkeypatch.setattr("supernet.train.checkpoint.time.monotonic", lambda: next(clock))
    checkpoints = Checkpoints(tmp_path, 60.0)
    assert [checkpoints.due(), checkpoints.due()] == [False, True]
    checkpoints.save("search", {"key": "k"})
    assert [checkpoints.due(), checkpoints.due()] == [False, True]


# --- files that are no good

STATE = {
    "key": "k",
    "step": 3,
    "sums": {},
    "counts": {},
    "seconds": 0.0,
    "peak_memory_bytes": 0,
    "parts": {},
    "state": {"tensor": torch.arange(10_000.0)},
    "tracker": {},
}


def spoilt(content: bytes) -> dict[str, bytes]:
    middle = len(content) // 2
    return {
        "empty": b"",
        "half": content[:middle],
        "without its last byte": content[:-1],
        "with a flipped bit": content[:middle]
        + bytes([content[middle] ^ 1])
        + content[middle + 1 :],
        "text": b"no checkpoint",
    }


@pytest.mark.parametrize("how", spoilt(b"ab"))
def test_a_damaged_checkpoint_is_refused_in_one_line_and_left_where_it_is(tmp_path, how):
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save("search", STATE)
    damaged = spoilt(path.read_bytes())[how]
    path.write_bytes(damaged)
    with pytest.raises(
        UserError,
        match=r"search\.pt is damaged \(\w+\); restore it, or remove it and give the same",
    ) as caught:
        checkpoints.load("search", "k")
    assert "\n" not in str(caught.value) and path.read_bytes() == damaged


def test_every_flipped_bit_of_a_tensor_is_found(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save("search", STATE)
    content = path.read_bytes()
    start = content.index(STATE["state"]["tensor"].numpy().tobytes())
    for place in range(start, start + 40_000, 997):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        with pytest.raises(UserError, match="damaged"):
            checkpoints.load("search", "k")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"version": VERSION + 1, "stage": "search", "key": "k"},
            f"not a version {VERSION} checkpoint of the stage search",
        ),
        (
            {"version": VERSION, "stage": "retrain/0", "key": "k"},
            f"not a version {VERSION} checkpoint of the stage search",
        ),
        ([1, 2], f"not a version {VERSION} checkpoint of the stage search"),
        (
            {"version": VERSION, "stage": "search", "key": "other"},
            "was written with other settings",
        ),
        ({"version": VERSION, "stage": "search"}, "was written with other settings"),
        ({"version": VERSION, "stage": "search", "key": Evil()}, "is damaged"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_in_one_line(
    tmp_path, monkeypatch, content, message
):
    monkeypatch.chdir(tmp_path)
    checkpoints = Checkpoints(tmp_path)
    torch.save(content, checkpoints.path("search"))
    with pytest.raises(UserError, match=rf"search\.pt .*{re.escape(message)}") as caught:
        checkpoints.load("search", "k")
    assert "\n" not in str(caught.value) and os.listdir(tmp_path) == ["search.pt"]


def test_a_full_disk_is_one_line_and_the_old_checkpoint_stays(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save("search", STATE)
    before = path.read_bytes()
    with (
        small_disk(10_000),
        pytest.raises(UserError, match=r"cannot write .*search\.pt: .*full") as caught,
    ):
        checkpoints.save("search", STATE)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["search.pt"]


def test_a_crash_while_a_checkpoint_is_written_leaves_the_old_one(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("search", STATE)

    def half(value, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("supernet.train.checkpoint.torch.save", half)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save("search", STATE | {"step": 4})
    assert checkpoints.load("search", "k")["step"] == 3 and os.listdir(tmp_path) == ["search.pt"]


def test_there_may_be_no_checkpoint(tmp_path):
    assert Checkpoints(tmp_path / "none").load("search", "k") is None
