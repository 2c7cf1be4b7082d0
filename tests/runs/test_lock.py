"""Only one process at a time writes to a folder, and the message names the one that does."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from supernet.errors import UserError
from supernet.runs.folder import State
from supernet.runs.lock import InUse, held
from tests.commands import ROOT, TINY, supernet

HOLDS = """
import sys, time
from pathlib import Path
from supernet.runs.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(300)
"""
WRITING = ["run", "search", "derive", "retrain", "export", "rank", "latency"]
# the line of a study, of a sweep, and of one who chooses the folder himself
OTHERS = {
    "study": ["study", "hydra.run.dir=run", "study.seeds=[0]"],
    "chosen": ["search", "hydra.run.dir=run"],
    "sweep": ["search", "-m", "seed=0", "hydra.sweep.dir=.", "hydra.sweep.subdir=run"],
}


def test_a_second_holder_is_told_who_the_first_is(tmp_path):
    with held(tmp_path):
        with pytest.raises(InUse) as caught, held(tmp_path):
            raise AssertionError("held twice")
        message = str(caught.value)
        assert f"process {os.getpid()} on {socket.gethostname()}" in message
        assert str(tmp_path) in message and "\n" not in message
    with held(tmp_path):  # and then it is free
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_process_that_ends_in_any_way_holds_nothing(number, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InUse, match=f"process {holder.pid} on "), held(tmp_path):
            pass
        holder.send_signal(number)
    with held(tmp_path):
        pass


def test_a_folder_that_is_deleted_while_it_is_held_is_released(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with held(folder):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    folder.mkdir()
    with held(folder):
        pass


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match="cannot write to"), held(file):
        pass


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The folder of a run that was stopped before it did anything."""
    cwd = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("supernet.run.Run.search", lambda run: None)
        assert supernet("search", *TINY, "tracker=none", "hydra.run.dir=run", cwd=cwd).code == 0
    assert State.read(cwd / "run").plan is not None
    return cwd / "run"


@pytest.mark.parametrize("command", [*WRITING, *OTHERS])
def test_no_command_writes_to_a_folder_that_another_process_holds(command, begun):
    line = OTHERS.get(command, [command, f"from={begun}"])
    line += [] if "from=" in line[-1] else [*TINY, "tracker=none"]
    before = {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
    with held(begun):
        outcome = supernet(*line, cwd=begun.parent)
    assert outcome.code == 2
    said = outcome.err if command != "sweep" else outcome.out
    assert f"{begun} is in use by process {os.getpid()} on " in " ".join(said.split())
    assert outcome.err.count("\n") == 1
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("command", ["report", "check"])
def test_commands_that_read_work_on_a_folder_that_is_held(command, begun, monkeypatch):
    results = supernet("report", f"from={begun}", cwd=begun.parent)
    assert (results.code, results.err) == (0, "")
    monkeypatch.setattr("supernet.cli.commands.check", lambda setup: ["checked"])
    with held(begun):
        outcome = supernet(command, f"from={begun}", cwd=begun.parent)
    assert (outcome.code, outcome.err) == (0, "")
