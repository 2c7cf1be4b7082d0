"""JSON lines: every row is there once, wherever the run is stopped."""

import json
import os
import subprocess
import sys

import pytest

from supernet.errors import UserError
from supernet.track.jsonlines import JsonLines, read_rows


def log(tracker: JsonLines, steps: range) -> None:
    for step in steps:
        tracker.log("search", step, {"loss": 1 / (step + 1)})


def test_a_row_is_one_standard_json_line(tmp_path):
    tracker = JsonLines(tmp_path / "metrics.jsonl")
    tracker.start(tmp_path, {})
    tracker.log(
        "retrain/0", 3, {"loss": 0.1, "bad": float("nan"), "far": float("-inf"), "memory": 2**40}
    )
    text = (tmp_path / "metrics.jsonl").read_text()  # before close: a line is passed on at once
    tracker.close()
    assert text.endswith("\n")

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    assert json.loads(text, parse_constant=refuse) == {
        "stage": "retrain/0",
        "step": 3,
        "loss": 0.1,
        "bad": None,
        "far": None,
        "memory": 2**40,
    }


def test_rows_after_the_checkpoint_and_a_torn_line_are_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    whole = JsonLines(tmp_path / "whole.jsonl")
    log(whole, range(10))
    whole.close()

    first = JsonLines(path)
    first.start(tmp_path, {})
    log(first, range(4))
    committed = first.state_dict()
    log(first, range(4, 6))
    checkpoint = first.state_dict()
    log(first, range(6, 9))
    first.close()
    with open(path, "ab") as file:
        file.write(b'{"stage": "search", "st')  # the write that the kill tore

    second = JsonLines(path)
    before = path.read_bytes()
    # As a run does: first the state of the last finished stage, then the later state of the
    # checkpoint.
    second.start(tmp_path, {}, committed)
    second.load_state_dict(checkpoint)
    assert path.read_bytes() == before  # reading changes nothing
    assert second.state_dict() == checkpoint
    log(second, range(6, 10))
    second.close()
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_file_shortened_by_someone_else_keeps_whole_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tracker = JsonLines(path)
    log(tracker, range(3))
    state = tracker.state_dict()
    tracker.close()
    os.truncate(path, state["bytes"] - 4)
    again = JsonLines(path)
    again.start(tmp_path, {}, state)
    log(again, range(3, 4))
    again.close()
    assert [row["step"] for row in read_rows(path)] == [0, 1, 3]


def test_a_killed_process_leaves_every_row(tmp_path):
    path = tmp_path / "metrics.jsonl"
    code = (
        "import os, sys; from supernet.track.jsonlines import JsonLines\n"
        "t = JsonLines(sys.argv[1])\n"
        "for i in range(100): t.log('search', i, {'loss': 1.0})\n"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    assert [row["step"] for row in read_rows(path)] == list(range(100))


def test_a_full_disk_is_one_line_and_costs_no_row_before(tmp_path):
    path = tmp_path / "metrics.jsonl"
    code = (
        "import resource, sys; from supernet.track.jsonlines import JsonLines\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "tracker = JsonLines(sys.argv[1])\n"
        "try:\n"
        "    for i in range(100): tracker.log('search', i, {'loss': 1.0})\n"
        "except ValueError as error: print(error)\n"
        "tracker.close()"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"cannot write {path}: File too large; free some space and resume\n"
    assert done.stderr == ""
    assert path.stat().st_size == 1000
    kept = [row["step"] for row in read_rows(path)]
    assert kept == list(range(len(kept)))
    assert len(kept) > 15


def test_reading(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_rows(path) == []
    path.write_text('{"stage": "search", "step": 1}\n{"stage')
    assert read_rows(path) == [{"stage": "search", "step": 1}]
    path.write_text('{"stage": "search", "step": 1}\nnonsense\n{}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        read_rows(path)
