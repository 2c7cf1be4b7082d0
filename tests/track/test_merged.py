"""The rows of several jobs in one file: every row is there once, whatever is stopped, cut and
written again.
"""

import json
import random

import pytest

from supernet.track.interface import Tracker
from supernet.track.jsonlines import JsonLines, read_rows
from supernet.track.merged import Merged


class Kept(Tracker):
    def __init__(self):
        self.rows = []

    def log(self, stage, step, metrics):
        self.rows.append((stage, step, dict(metrics)))


def job(folder, name):
    return JsonLines(folder / "metrics" / f"{name.replace('/', '-')}.jsonl")


def test_rows_of_several_jobs_are_passed_on_in_the_order_in_which_they_come(tmp_path):
    kept = Kept()
    merged = Merged(tmp_path, kept)
    merged.begin()
    one, other = job(tmp_path, "retrain/0"), job(tmp_path, "retrain/1")
    for step in range(1, 4):
        one.log("retrain/0", step, {"loss": step / 2})
        merged.follow()
        other.log("retrain/1", step, {"loss": float("nan")})
        merged.follow()
    merged.follow()
    assert [(stage, step) for stage, step, _ in kept.rows] == [
        (f"retrain/{number}", step) for step in range(1, 4) for number in range(2)
    ]
    assert kept.rows[2][2] == {"loss": 1.0}
    assert str(kept.rows[1][2]["loss"]) == "nan"  # what a file has as null
    one.close(), other.close()


@pytest.mark.parametrize("seed", range(20))
def test_however_it_is_stopped_every_row_is_there_once(tmp_path, seed):
    """Two jobs write 30 rows each. At random moments one job goes back to its checkpoint, or the
    whole run is killed in the middle of a line and continues with what is in the files.
    """
    rng, names = random.Random(seed), ("search/0", "search/1")
    done, checkpoints = dict.fromkeys(names, 0), dict.fromkeys(names, (0, {"bytes": 0}))
    target = tmp_path / "metrics.jsonl"

    def session():
        out = JsonLines(target)
        merged = Merged(tmp_path, out)
        out.start(tmp_path, {}, merged.begin()["JsonLines"])
        files = {name: job(tmp_path, name) for name in names}
        for name in names:
            done[name], state = checkpoints[name]
            files[name].load_state_dict(state)
        return out, merged, files

    out, merged, files = session()
    while min(done.values()) < 30:
        name = rng.choice([name for name in names if done[name] < 30])
        done[name] += 1
        files[name].log(name, done[name], {"loss": done[name] / 7})
        if rng.random() < 0.5:
            merged.follow()
        if rng.random() < 0.2:
            checkpoints[name] = done[name], files[name].state_dict()
        if rng.random() < 0.1:  # the job alone
            done[name], state = checkpoints[name]
            files[name].load_state_dict(state)
        if rng.random() < 0.1:  # everything
            out.close()
            for file in files.values():
                file.close()
            if target.exists() and rng.random() < 0.5:
                target.write_bytes(target.read_bytes()[: -rng.randrange(1, 9)])
            out, merged, files = session()
    merged.follow()
    out.close()
    for file in files.values():
        file.close()
    rows = read_rows(target)
    for name in names:
        mine = [row for row in rows if row["stage"] == name]
        assert [row["step"] for row in mine] == list(range(1, 31))
        assert [row["loss"] for row in mine] == [step / 7 for step in range(1, 31)]


def test_rows_that_are_there_are_not_passed_on_again(tmp_path):
    one = job(tmp_path, "derive")
    for step in range(1, 4):
        one.log("derive", step, {"accuracy": 0.5})
    one.close()
    rows = [json.dumps({"stage": "derive", "step": step, "accuracy": 0.5}) for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    kept = Kept()
    merged = Merged(tmp_path, kept)
    merged.begin()
    merged.follow()
    assert [step for _, step, _ in kept.rows] == [3]
