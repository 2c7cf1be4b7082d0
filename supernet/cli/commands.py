"""What each command does."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from supernet import reproduce, simulation
from supernet.checklist.practices import add_checklist, as_text, checklist
from supernet.checklist.record import read
from supernet.cli.cells import runs_of
from supernet.cli.composition import composed
from supernet.cli.jobs import each, prepared, say_leaves, started
from supernet.cli.line import CommandLine, key
from supernet.cli.overrides import literal
from supernet.cli.parent import with_parent
from supernet.cli.recorded import holds_study, record_statements
from supernet.cli.sweep import Results, again
from supernet.errors import UserError
from supernet.report.reproduction import condition_table, reproduction_table
from supernet.run import report, same_computation
from supernet.runs.check import check
from supernet.runs.compare import DIFFERS, judged_by_study
from supernet.runs.conditions import different, expectation
from supernet.runs.evaluate import evaluate
from supernet.runs.folder import State
from supernet.runs.lock import held
from supernet.runs.setup import Setup
from supernet.study import run as study
from supernet.track.console import Progress
from supernet.train.loop import StopRequest


def perform(line: CommandLine) -> None:
    """Performs what the line says. Its overrides are complete: :func:`.parent.with_parent`."""
    if line.command == "check":
        for overrides in each(line):
            for message in check(Setup(composed(overrides, line.folders))):
                Progress().message(message)
    elif line.command == "evaluate":
        assert line.parent is not None
        for overrides in each(line):
            setup = Setup(composed(overrides, line.folders))
            Progress().message(evaluate(setup, line.parent))
    elif line.command in ("report", "reproduce"):
        assert line.parent is not None
        if holds_study(line.parent) and line.command == "report":
            reported_study(line)
        elif holds_study(line.parent):
            simulated = read(line.parent).is_simulation
            (reproduced_simulation if simulated else reproduced_study)(line)
        elif line.command == "reproduce":
            reproduced(line)
        else:
            for overrides in each(line):
                reported(line, overrides)
    elif line.command == "checklist":
        checked(line)
    else:
        stop = StopRequest()
        with stop.listening():
            started(line, stop)


def reported(line: CommandLine, overrides: list[str]) -> None:
    """Performs ``report``: for one folder, which another process may be writing to."""
    assert line.parent is not None
    setup = Setup(composed(overrides, line.folders))
    if not same_computation(setup, line.parent):
        raise UserError(
            f"report shows what is in {line.parent}: leave out the settings that it was not "
            "computed with"
        )
    report(setup, line.parent)
    say_leaves(line.parent, Progress())


def reported_study(line: CommandLine) -> None:
    """Performs ``report`` for the folder of a study, or of a simulation."""
    assert line.parent is not None
    with held(line.parent):
        add_checklist(line.parent)
        (simulation if read(line.parent).is_simulation else study).page_of(line.parent)
    say_leaves(line.parent, Progress())


def checked(line: CommandLine) -> None:
    """Performs ``checklist``: for the folder of a run or of a study. What the line states is
    recorded in it.
    """
    folder = line.parent
    assert folder is not None
    record = read(folder)
    if line.overrides:
        with held(folder):
            record_statements(folder, line.overrides)
            add_checklist(folder)
        record = read(folder)
    Progress().message(as_text(checklist(record), folder))


def reproduced(line: CommandLine) -> None:
    """Performs ``reproduce``: says what is not the same here, and repeats the run."""
    assert line.parent is not None
    setup = Setup(composed(line.overrides, line.folders))
    given = [key(override).partition(".")[0] for override in line.typed]
    original = reproduce.recorded(setup, line.parent, given)
    say_expected([original])
    if not line.only_check:
        stop = StopRequest()
        with stop.listening():
            (results,) = started(line, stop, original)
        if results["reproduction"]["verdict"] == DIFFERS:
            sys.exit(1)


def reproduced_study(line: CommandLine) -> None:
    """Performs ``reproduce`` for a study: repeats its runs, one after the other. Each uses what it
    used before, such as the number of candidates of a rival, or an architecture of another run.
    """
    assert line.parent is not None
    require_no_settings(line)
    runs = read(line.parent).runs
    lines = {
        one.name: with_parent(replace(line, parent=one.folder, overrides=[], typed=()))
        for one in runs
    }
    if not lines:
        raise UserError(f"{line.parent}: it has no runs that could be repeated")
    originals = {
        name: reproduce.recorded(Setup(composed(one.overrides, one.folders)), line.parent / name)
        for name, one in lines.items()
    }
    say_expected([*originals.values()])
    if line.only_check:
        return
    same = ("space", "data", "entry")
    entries = {one.name: [one.results.get(part) for part in same] for one in runs}
    stop, found = StopRequest(), dict[str, Results]()
    with stop.listening():
        _, folder = prepared(line, stop)
        for name, one in lines.items():
            place = f"hydra.run.dir={literal(str(folder / name))}"
            into = replace(one, overrides=[*one.overrides, place])
            (found[name],) = started(into, stop, originals[name], again(line, folder))
    alone = {name: one["reproduction"] for name, one in found.items()}
    verdicts = judged_by_study(alone, entries)
    for name, one in lines.items():
        if verdicts[name] != alone[name]:
            setup = Setup(composed(one.overrides, one.folders))
            reproduce.rejudge(setup, folder / name, verdicts[name])
    say_verdicts(verdicts, folder)


def reproduced_simulation(line: CommandLine) -> None:
    """Performs ``reproduce`` for a simulation: all searches again, compared bit for bit."""
    assert line.parent is not None
    require_no_settings(line)
    setup = Setup(composed(line.overrides, line.folders))
    states = [State.read(line.parent / name) for name in runs_of(line.overrides, line.folders)]
    if missing := [state.folder.name for state in states if not state.stages]:
        raise UserError(
            f"{line.parent}: it is not finished ({', '.join(missing)}); first: "
            f"supernet study from={line.parent}"
        )
    originals = [reproduce.Recorded(one, ["study"], different(setup, one)) for one in states]
    say_expected(originals)
    if line.only_check:
        return
    stop = StopRequest()
    with stop.listening():
        anew, folder = prepared(line, stop)
        for one in originals:
            reproduce.begin(one, folder / one.state.folder.name)
        go_on = again(line, folder)
        started(replace(anew, command="study", parent=None), stop, go_on=go_on)
    verdicts = {
        one.state.folder.name: reproduce.end(one, folder / one.state.folder.name)
        for one in originals
    }
    say_verdicts(verdicts, folder)


def require_no_settings(line: CommandLine) -> None:
    """Raises a UserError if the line says how to compute what it repeats."""
    if others := [one for one in line.typed if not key(one).startswith("hydra.")]:
        raise UserError(f"{others[0]}: reproduce repeats what is in {line.parent}; leave it out")


def say_verdicts(verdicts: Mapping[str, Results], folder: Path) -> None:
    """Says what was found in ``folder``, and exits with 1 if something differs."""
    Progress().message(reproduction_table(verdicts))
    Progress().message(f"folder: {folder}")
    if any(one["verdict"] == DIFFERS for one in verdicts.values()):
        sys.exit(1)


def say_expected(originals: Sequence[reproduce.Recorded]) -> None:
    """Says what is not the same here, and so whether the same bits are expected."""
    conditions = list(dict.fromkeys(one for each in originals for one in each.conditions))
    if conditions:
        Progress().message(condition_table([asdict(one) for one in conditions]))
    Progress().message(expectation(conditions))
