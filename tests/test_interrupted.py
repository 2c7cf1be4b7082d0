"""Signals at every moment of the first seconds, and folders that are deleted while a run writes to
them.
"""

import json
import shlex
import shutil
import signal

import pytest

from supernet import run as run_module
from supernet.cli import jobs
from supernet.errors import UserError
from supernet.run import Run
from supernet.runs import search
from supernet.runs.folder import State
from supernet.train.loop import STOPPING
from supernet.train.search import SearchStage
from tests.commands import TINY, finished, supernet

LINE = [
    *("search", *TINY, "tracker=none", "search.epochs=1", "search.supernets=1"),
    "hydra.run.dir=run",
]
# what the run does at the moment of the signal: a module or class, and its function
MOMENTS = {
    "settings are read": (jobs, "composed"),
    "the folder is made": (jobs, "made"),
    "the state begins": (State, "begin"),
    "the settings are recorded": (jobs, "record"),
    "the settings are checked": (jobs, "Setup"),
    "the run begins": (Run, "begin"),
    "the plan is written": (run_module, "plan_of"),
    "data are loaded": (search, "search_stage"),
    "the first step": (SearchStage, "step"),
}
# before these, nothing is written
EARLY = {"settings are read", "the settings are checked"}


def signalled(patch, moment, *numbers):
    """Lets the signals arrive when the function of ``moment`` is called for the first time."""
    place, name = MOMENTS[moment]
    function, left = getattr(place, name), list(numbers)

    def with_signal(*arguments, **named):
        while left:
            signal.raise_signal(left.pop())
        return function(*arguments, **named)

    patch.setattr(place, name, with_signal)


# every moment with one signal, and every signal at one moment
MEMBERS = [(moment, signal.SIGTERM) for moment in MOMENTS]
MEMBERS += [("the run begins", number) for number in STOPPING if number != signal.SIGTERM]


@pytest.mark.parametrize(("moment", "number"), MEMBERS)
def test_a_signal_leaves_a_folder_that_goes_on_or_none(moment, number, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        signalled(patch, moment, number)
        outcome = supernet(*LINE, cwd=tmp_path)
    assert (outcome.code, outcome.err) == (128 + number, "")
    assert f"stopped by {number.name}" in outcome.out
    if moment in EARLY:
        assert list(tmp_path.iterdir()) == []
        return
    words = shlex.split(outcome.out.partition("go on with: supernet ")[2])
    assert words == ["search", f"from={tmp_path / 'run'}"]
    with monkeypatch.context() as patch:  # it need not train to show that it is taken
        patch.setattr(Run, "search", lambda run: None)
        assert finished(*words, cwd=tmp_path) == tmp_path / "run"


@pytest.mark.parametrize("moment", [moment for moment in MOMENTS if moment not in EARLY])
def test_two_signals_end_it_at_once_and_it_goes_on(moment, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        signalled(patch, moment, signal.SIGINT, signal.SIGINT)
        outcome = supernet(*LINE, cwd=tmp_path)
    assert outcome.code == 130 and "interrupted" in outcome.out + outcome.err
    if not (tmp_path / "run" / ".hydra").exists():  # nothing is lost; nobody was told of a folder
        assert moment in ("the folder is made", "the state begins", "the settings are recorded")
        return
    monkeypatch.setattr(Run, "search", lambda run: None)
    assert finished("search", f"from={tmp_path / 'run'}", cwd=tmp_path) == tmp_path / "run"


def test_a_run_that_is_stopped_before_it_begins_remembers_its_parent(tmp_path, monkeypatch):
    first = finished(*LINE, cwd=tmp_path)
    with monkeypatch.context() as patch:
        signalled(patch, "the run begins", signal.SIGINT, signal.SIGINT)
        line = ["search", f"from={first}", "method=spos", "hydra.run.dir=child"]
        assert supernet(*line, cwd=tmp_path).code == 130
    child = finished("search", f"from={tmp_path / 'child'}", cwd=tmp_path)
    results = json.loads((child / "results.json").read_text())
    assert results["parent"] == str(first) and results["search"]["warm_start"] is not None


GONE = {"deleted": shutil.rmtree, "moved": lambda folder: folder.rename(folder.with_name("other"))}
# when: a place, its function, and the call at which it happens
WHEN = {
    "at the first step": (SearchStage, "step", 1),
    "at the last step": (SearchStage, "step", 5),
    "before the job": (search, "search_stage", 1),
    "at the end of the job": (Run, "commit", 1),
}


@pytest.mark.parametrize(
    ("when", "how"), [*((when, "deleted") for when in WHEN), ("at the first step", "moved")]
)
def test_a_folder_that_is_gone_while_a_run_writes_to_it_is_one_line(
    when, how, tmp_path, monkeypatch
):
    place, name, at = WHEN[when]
    function, calls = getattr(place, name), []

    def then_gone(*arguments, **named):
        calls.append(1)
        if len(calls) == at:
            GONE[how](tmp_path / "run")
        return function(*arguments, **named)

    monkeypatch.setattr(place, name, then_gone)
    outcome = supernet(*LINE, cwd=tmp_path)
    assert len(calls) >= at
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert str(tmp_path / "run") in outcome.err
    assert not (tmp_path / "run" / "state.json").exists()
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_without_its_state_a_folder_takes_no_results(tmp_path):
    state = State(tmp_path)
    with pytest.raises(UserError, match="deleted or moved"):
        state.require_there()
    state.write()
    state.require_there()
