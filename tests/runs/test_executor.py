"""Executors: every executor gives the same results. Jobs may fail, die, be asked to stop, or lose
their parent process.
"""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from supernet.cli.composition import composed
from supernet.errors import UserError
from supernet.runs.executor import Here, Processes, executor_of
from supernet.runs.folder import State
from supernet.runs.setup import Setup
from supernet.runs.work import Work
from supernet.track.console import Progress
from supernet.train.loop import Stopped, StopRequest
from tests.commands import ROOT, TINY
from tests.runs.jobs import Dies, Later, Patient, Squared, Wrong

EXECUTORS = {"here": Here, "two processes": lambda: Processes(2)}


@pytest.fixture(params=EXECUTORS)
def executor(request):
    with EXECUTORS[request.param]() as executor:
        yield executor


@pytest.fixture
def several():
    with Processes(2) as executor:
        yield executor


@pytest.fixture
def screen():
    return io.StringIO()


@pytest.fixture
def work(tmp_path, screen):
    setup = Setup(composed([*TINY, "tracker=none", "threads=1"]))
    return Work(setup, State(tmp_path), Progress(file=screen, every=0.0), StopRequest())


def performed(executor, work, jobs):
    found = {}
    executor.run(work, jobs, lambda job, result: found.update({job: result}))
    return found


def test_every_job_is_run_once_with_the_threads_that_the_configuration_says(executor, work, screen):
    before = torch.get_num_threads()
    jobs = [Squared(number) for number in range(5)]
    found = performed(executor, work, jobs)
    assert {job.number: result["square"] for job, result in found.items()} == {
        number: number**2 for number in range(5)
    }
    assert {result["threads"] for result in found.values()} == {1}
    assert torch.get_num_threads() == before
    here = {result["pid"] for result in found.values()} == {os.getpid()}
    assert here == isinstance(executor, Here)
    for job in jobs:
        assert f"{job.name} is done\n" in screen.getvalue()
        assert f"{job.name}: step 2/2" in screen.getvalue()
        assert (
            len((work.folder / "metrics" / f"squared-{job.number}.jsonl").read_text().split("\n"))
            == 3
        )


def test_a_job_that_fails_is_one_line_and_what_was_done_is_kept(executor, work):
    found = {}
    with pytest.raises(UserError, match=r"^wrong/1: lower the learning rate$"):
        jobs = [Squared(0), Wrong(1), Later(2), *(Squared(number) for number in range(3, 6))]
        executor.run(work, jobs, lambda job, result: found.update({job.name: result}))
    assert "squared/0" in found and "squared/5" not in found


def test_a_job_that_dies_is_named_and_its_siblings_are_kept(several, work):
    found = {}
    jobs = [Dies(0), *(Squared(number) for number in range(4))]
    with pytest.raises(UserError) as caught:
        several.run(work, jobs, lambda job, result: found.update({job.name: result}))
    message = str(caught.value)
    assert message.startswith("dies/0: its process was killed") and "\n" not in message
    assert sorted(found) == [f"squared/{number}" for number in range(4)]
    again = performed(several, work, [Squared(7), Squared(8)])  # the worker was replaced
    assert sorted(result["square"] for result in again.values()) == [49, 64]


def test_asked_to_stop_every_job_stops_and_none_begins(several, work):
    jobs = [Patient(number) for number in range(3)]

    def ask_when_two_have_begun():
        while len(list(work.folder.glob("begun-*"))) < 2:
            time.sleep(0.01)
        work.stop.signum = signal.SIGTERM

    asker = threading.Thread(target=ask_when_two_have_begun)
    asker.start()
    with pytest.raises(Stopped):
        performed(several, work, jobs)
    asker.join()
    assert len(list(work.folder.glob("begun-*"))) == 2


def test_asked_to_stop_while_the_processes_start_every_job_stops(several, work):
    def ask_when_two_are_busy():
        while [slot.busy for slot in several.slots] != [True, True]:
            time.sleep(0.001)
        work.stop.signum = signal.SIGTERM

    asker = threading.Thread(target=ask_when_two_are_busy)
    asker.start()
    with pytest.raises(Stopped):
        performed(several, work, [Patient(0), Patient(1)])
    asker.join()


def test_a_process_that_has_ended_is_asked_nothing(several, work):
    performed(several, work, [Squared(0), Squared(1)])
    slot = several.slots[0]
    os.kill(slot.pid, signal.SIGKILL)
    while Path(f"/proc/{slot.pid}").exists():  # a zombie may still have threads that end
        time.sleep(0.01)
    slot.send(signal.SIGTERM)
    again = performed(several, work, [Squared(2), Squared(3)])  # by a new process
    assert sorted(result["square"] for result in again.values()) == [4, 9]


ORPHANS = """
import sys
from pathlib import Path
from supernet.cli.composition import composed
from supernet.runs.executor import Processes
from supernet.runs.folder import State
from supernet.runs.setup import Setup
from supernet.runs.work import Work
from tests.runs.jobs import Patient

if __name__ == "__main__":
    setup = Setup(composed(["size=tiny", "tracker=none"]))
    with Processes(2) as executor:
        work = Work(setup, State(Path(sys.argv[1])))
        executor.run(work, [Patient(0), Patient(1)], print)
"""


def test_a_parent_that_is_killed_leaves_no_orphan(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(ORPHANS)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment)
    while len(begun := [path for path in tmp_path.glob("begun-*") if path.read_text()]) < 2:
        assert parent.poll() is None
        time.sleep(0.02)
    workers = [int(path.read_text()) for path in begun]
    assert all(runs(worker) for worker in workers)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(runs(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.02)


def runs(pid):
    """Whether there is such a process that still runs (and is not a zombie)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("settings", "workers"),
    [
        (["jobs=1"], 1),
        (["jobs=3"], 3),
        (["jobs=auto", "threads=1"], 8),
        (["jobs=auto", "threads=3"], 2),
        (["jobs=auto", "threads=null"], 1),
        (["jobs=auto", "threads=16"], 1),
    ],
)
def test_jobs_is_how_many_run_at_once(settings, workers, monkeypatch):
    monkeypatch.setattr("supernet.runs.setup.cores", lambda: 8)
    assert executor_of(Setup(composed(["size=tiny", *settings]))).workers == workers


@pytest.mark.parametrize("wrong", ["0", "-1", "1.5", "all", "true"])
def test_wrong_numbers_of_jobs_are_one_line(wrong):
    with pytest.raises(UserError, match=r"^jobs="):
        composed([f"jobs={wrong}"])
