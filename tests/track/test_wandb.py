"""Weights & Biases, checked with its own reader of run files (``wandb leet inspect``)."""

import dataclasses
import importlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from supernet.errors import UserError
from supernet.track.interface import Trackers
from supernet.track.jsonlines import JsonLines, read_rows
from supernet.track.wandb import WandB


def rows(count: int) -> list[tuple[str, int, dict[str, float]]]:
    """The rows that a small job logs, stage after stage."""
    search = [
        ("search", 10 * i, {"loss": 1 / i, "logits/edges/0/skip_connect": 0.1 * i})
        for i in range(1, 6)
    ]
    retrain = [
        ("retrain/0", 5 * i, {"loss": 2 / i, "accuracy": float("nan") if i == 2 else 0.5})
        for i in range(1, 6)
    ]
    return (search + retrain)[:count]


def session(folder: Path, first: int, last: int, state=None) -> dict:
    """Logs the rows from ``first`` to before ``last``. Returns the state at the end, as a
    checkpoint holds it.
    """
    trackers = Trackers([JsonLines(folder / "metrics.jsonl"), WandB()])
    trackers.start(folder, {"name": "test", "search": {"epochs": 3}}, state)
    for stage, step, metrics in rows(last)[first:]:
        trackers.log(stage, step, metrics)
    state = trackers.state_dict()
    trackers.close()
    return state


def inspect(folder: Path) -> list[dict]:
    """The records of the one offline run in a run folder."""
    (run,) = (folder / "wandb").glob("offline-run-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def history(records: list[dict]) -> list[dict]:
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    return [
        {k: v for k, v in item.items() if k not in ("_runtime", "_timestamp")} for item in items
    ]


def expected(folder: Path) -> list[dict]:
    """Every row of metrics.jsonl as W&B stores it."""
    return [
        {"_step": i}
        | {f"{row['stage']}/{k}": v for k, v in row.items() if k != "stage" and v is not None}
        for i, row in enumerate(read_rows(folder / "metrics.jsonl"))
    ]


def test_offline_run_after_a_stop_is_that_of_a_run_never_stopped(tmp_path, capfd):
    session(tmp_path / "whole", 0, 10)
    stopped = tmp_path / "stopped"
    state = session(stopped, 0, 4)
    session(stopped, 4, 7, state)  # killed: these three rows are after the checkpoint
    identity = json.loads((stopped / "wandb/job.json").read_text())["id"]
    session(stopped, 4, 10, state)
    assert capfd.readouterr() == ("", "")  # no banner, no prompt

    records = inspect(stopped)
    assert len(history(records)) == 10
    assert history(records) == history(inspect(tmp_path / "whole")) == expected(stopped)
    (run,) = [record["run"] for record in records if record["type"] == "run"]
    assert run["run_id"] == identity
    assert run["config"]["update"]["search"] == {"epochs": 3}
    axes = {
        r["metric"]["glob_name"]: r["metric"]["step_metric"]
        for r in records
        if "glob_name" in r.get("metric", {})
    }
    assert axes == {"search/*": "search/step", "retrain/0/*": "retrain/0/step"}


def test_a_killed_session_leaves_a_readable_run_and_the_next_one_replaces_it(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path; from tests.track.test_wandb import *\n"
        "folder = Path(sys.argv[1])\n"
        "trackers = Trackers([JsonLines(folder / 'metrics.jsonl'), WandB()]); "
        "trackers.start(folder, {})\n"
        "for row in rows(6): trackers.log(*row)\n"
        "time.sleep(2.5); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[2]
    )
    assert killed.returncode == -9
    assert len(expected(tmp_path)) == 6
    assert history(inspect(tmp_path)) == expected(tmp_path)
    session(tmp_path, 0, 8)  # there was no checkpoint
    assert len(expected(tmp_path)) == 8
    assert history(inspect(tmp_path)) == expected(tmp_path)


def test_summary_and_artifacts_survive_a_later_session(tmp_path):
    (tmp_path / "architecture.json").write_text("{}")
    trackers = Trackers([JsonLines(tmp_path / "metrics.jsonl"), WandB()])
    trackers.start(tmp_path, {})
    trackers.log(*rows(1)[0])
    trackers.artifact("architecture", "architecture", [tmp_path / "architecture.json"])
    trackers.summary({"retrain": {"mean": 0.75}})
    state = trackers.state_dict()
    trackers.close()
    session(tmp_path, 1, 2, state)
    records = inspect(tmp_path)
    (artifact,) = [record["artifact"] for record in records if record["type"] == "artifact"]
    assert (artifact["name"], artifact["type"]) == ("architecture", "architecture")
    assert [entry["path"] for entry in artifact["manifest"]["contents"]] == ["architecture.json"]
    summary = {}
    for record in records:
        summary |= record.get("summary", {}).get("update", {})
    assert summary["retrain"] == {"mean": 0.75}


def test_nothing_begins_without_a_row(tmp_path):
    tracker = WandB()
    tracker.start(tmp_path, {})
    tracker.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["none", "disabled"])
def test_the_package_is_not_imported_unless_used(tmp_path, kind):
    code = (
        "import sys; from pathlib import Path\n"
        "from supernet.track.interface import NoTracker; from supernet.track.wandb import WandB\n"
        "tracker = NoTracker() if sys.argv[1] == 'none' else WandB(mode='disabled')\n"
        "tracker.start(Path(sys.argv[2]), {}); tracker.log('search', 1, {'loss': 1.0})\n"
        "tracker.artifact('a', 'b', []); tracker.summary({}); tracker.close()\n"
        "assert 'wandb' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, kind, str(tmp_path)], check=True)
    assert list(tmp_path.iterdir()) == []


def test_online_without_a_login_is_one_line_at_once(tmp_path):
    code = (
        "import sys; from pathlib import Path; from supernet.track.wandb import WandB; from "
        "supernet.errors import UserError\n"
        "try: WandB(mode='online').start(Path(sys.argv[1]), {})\n"
        "except UserError as error: print(error); sys.exit(2)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "NETRC"))}
    environment |= {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert time.monotonic() - started < 30
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.count("\n") == 1
    for word in ("tracker.mode=online", "wandb login", "WANDB_API_KEY", "tracker.mode=offline"):
        assert word in done.stdout


KEYS = ("abc", "x" * 39, "a b" * 14, "é" * 40, "local-x", "~/nokey", "a" * 39 + "\\n", "%s" * 20)
SERVERS = ("http://127.0.0.1:{closed}", "http://nowhere.invalid", "http://127.0.0.1:999999", "x:y")
PROXY = {"http_proxy": "http://127.0.0.1:{closed}"}  # a server that only the proxy could reach


def test_a_wrong_key_or_server_is_one_line_before_anything_is_sent(tmp_path):
    """Nothing listens at ``closed``. W&B itself would try for half a minute to reach a server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    good = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": SERVERS[0], "WANDB_MODE": "online"}
    cases = [good | {"WANDB_API_KEY": key} for key in KEYS]
    cases += [good | {"WANDB_BASE_URL": server} for server in SERVERS]
    cases += [good | {"WANDB_BASE_URL": "http://wandb.invalid"} | PROXY]
    cases = [{k: v.format(closed=closed) for k, v in one.items()} for one in cases]
    code = (
        "import json, os, sys, wandb; from pathlib import Path\n"
        "from supernet.errors import UserError; from supernet.track.wandb import WandB\n"
        "wandb.init = lambda **settings: sys.exit('sent')\n"
        "for case in json.loads(sys.argv[2]):\n"
        "    os.environ.update(case)\n"
        "    try: WandB(mode='online').start(Path(sys.argv[1]), {})\n"
        "    except UserError as error: print(error)\n"
        "    wandb.teardown()\n"
    )
    environment = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("WANDB_", "NETRC")) and not k.lower().endswith("_proxy")
    }
    environment |= {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), json.dumps(cases)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == len(cases)
    assert all("W&B" in line and "tracker.mode=offline" in line for line in lines)


@pytest.mark.parametrize("mode", ["offline", "online", "disabled"])
def test_the_environment_can_disable_the_tracker(mode, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import would fail
    (tmp_path / "metrics.jsonl").write_text('{"stage": "search", "step": 1, "loss": 1.0}\n')
    tracker = WandB(mode=mode)
    tracker.start(tmp_path, {})
    tracker.log("search", 1, {"loss": 1.0})
    tracker.summary({"a": 1})
    tracker.artifact("a", "model", [tmp_path / "metrics.jsonl"])
    tracker.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_settings():
    """The YAML file has the same settings with the same values as its class."""
    for path in (Path(__file__).parents[2] / "conf" / "tracker").glob("*.yaml"):
        settings = OmegaConf.to_container(OmegaConf.load(path))
        module, _, name = settings.pop("_target_").rpartition(".")
        kind = getattr(importlib.import_module(module), name)
        tracker = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), settings))
        assert dataclasses.asdict(tracker) == settings == dataclasses.asdict(kind())
    with pytest.raises(
        UserError, match=r"tracker\.mode: unknown 'ofline'; did you mean 'offline'\?"
    ):
        WandB(mode="ofline")
