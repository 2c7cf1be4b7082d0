"""What a user sees, in a terminal and without one."""

import contextlib
import io

import pytest
from rich.table import Table

from supernet.cli.composition import composed
from supernet.runs.search import search_stage
from supernet.runs.setup import Setup
from supernet.runs.work import budget_of
from supernet.track import console
from supernet.track.console import Progress, clock
from supernet.train.loop import run_stage


@pytest.fixture
def time(monkeypatch):
    """A clock that moves only when the test moves it."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


def run(progress: Progress, time, steps: int = 20) -> None:
    with progress.stage("search", 100 + steps, start=100) as update:
        for step in range(101, 101 + steps):
            time.now += 1.0
            update(step, {"loss": 0.5, "accuracy": 0.98765, "peak_memory_bytes": 3 * 2**20})


def test_plain_lines_come_every_few_seconds_and_at_the_end(time):
    file = io.StringIO()
    run(Progress(file=file), time)
    lines = file.getvalue().splitlines()
    assert lines[0] == "search: goes on after step 100 of 120"
    assert [line.split()[2] for line in lines[1:]] == ["105/120", "110/120", "115/120", "120/120"]
    assert (
        lines[1]
        == "search: step 105/120  1.0 steps/s  0:15 left  loss 0.5000  accuracy 98.77%  peak 3 MiB"
    )
    assert "\x1b" not in file.getvalue()


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("variable, value", [("TERM", "dumb"), ("CI", "true")])
def test_dumb_terminals_and_ci_get_plain_lines(monkeypatch, variable, value):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    assert Progress(file=Terminal()).live
    monkeypatch.setenv(variable, value)
    file = Terminal()
    progress = Progress(file=file)
    assert not progress.live
    progress.message("hello")
    assert file.getvalue() == "hello\n"


def test_a_terminal_gets_a_bar_and_messages_stay_whole(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("CI", raising=False)
    file = Terminal()
    progress = Progress(file=file)
    with progress.stage("search", 10) as update:
        update(5, {"loss": 0.5})
        progress.message("in between")
        update(10, {"loss": 0.25, "accuracy": 1.0})
    text = file.getvalue()
    assert "in between\n" in text
    assert "10/10" in text
    assert "loss 0.2500  accuracy 100.00%" in text
    assert text.rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_messages_are_printed_as_they_are():
    file = io.StringIO()
    progress = Progress(file=file)
    path = "/a [bold] path :smile: " + "x" * 300
    progress.message(path)
    assert file.getvalue() == path + "\n"
    table = Table("name")
    table.add_row("value")
    progress.message(table)
    assert "value" in file.getvalue()


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 100])
def test_a_stage_of_one_step_has_no_rate(live, steps, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("CI", raising=False)
    file = Terminal() if live else io.StringIO()
    with Progress(file=file).stage("export", steps) as update:
        update(steps, {})
    assert ("steps/s" in file.getvalue()) == (steps > 1)


@pytest.mark.parametrize("several", [1, 3])
def test_the_supernets_of_a_search_are_counted_for_people(several, monkeypatch):
    setup = Setup(composed(["size=tiny", "tracker=none", f"search.supernets={several}"]))
    budget, progress, shown = budget_of(setup, {}), Progress(quiet=True), []

    def stage(name, *steps, **more):
        shown.append(name)
        return contextlib.nullcontext()

    monkeypatch.setattr(progress, "stage", stage)
    for number in range(several):
        search = search_stage(setup, budget, number)
        search.steps = 0
        run_stage(search, progress=progress)
    assert shown == (["search"] if several == 1 else [f"supernet {n} of 3" for n in (1, 2, 3)])


def test_quiet(capsys):
    progress = Progress(quiet=True)
    progress.message("hello")
    with progress.stage("search", 2) as update:
        update(2, {"loss": 1.0})
    assert capsys.readouterr() == ("", "")


def test_clock():
    assert [clock(seconds) for seconds in (5, 65.4, 3723)] == ["0:05", "1:05", "1:02:03"]
