"""A job of a sweep, or a run of a study, that fails does not end the others, and what is missing is
done by the line that is printed.
"""

import json
import shlex
from itertools import combinations
from pathlib import Path

import pytest

from supernet.errors import UserError
from supernet.runs.executor import Here
from supernet.runs.search import Search
from supernet.study.run import StudyRun
from tests.commands import TINY, supernet
from tests.runs.done import SEARCHED
from tests.test_study import result

SEEDS = (0, 1, 2)
SWEEP = ["search", "-m", *TINY, "tracker=none", "seed=0,1,2"]
STUDY = ["study", *TINY, "tracker=none", "study.methods=[darts,spos]", "study.seeds=[0]"]
STUDY += ["study.rivals=false"]
CELLS = ("darts-0", "spos-0")
# how a job fails -> the error
FAILURES = {
    "in a way that the user can correct": UserError("lower the learning rate"),
    "by a fault": KeyError("fault"),
    "for want of memory": MemoryError(),
    "for want of a disk": OSError(28, "No space left on device"),
}
UNEXPECTED = ("by a fault", "for want of memory")  # MemoryError becomes one line elsewhere
SOME = [set(some) for number in range(4) for some in combinations(range(3), number)]


def failing(patch, place, failed, error, of, found):
    """Lets the jobs in ``failed`` raise. ``of`` says which job it is. Returns which were tried."""
    tried = []

    def compute(job, work):
        tried.append(of(job, work))
        if tried[-1] in failed:
            raise error
        return found(job, work)

    patch.setattr(place, "compute", compute)
    return tried


def sweep_failing(patch, failed, error):
    seed = lambda job, work: work.config.seed  # noqa: E731

    def found(job, work):
        work.checkpoints.save(job.name, {})
        return SEARCHED

    return failing(patch, Search, failed, error, seed, found)


def study_failing(patch, failed, error):
    def found(job, work):
        method, seed = job.name.split("-")
        return {"results": result(method, int(seed), 0.5, [0.1])}

    return failing(patch, StudyRun, failed, error, lambda job, work: job.name, found)


def last_line(outcome):
    """The line that does what is missing."""
    assert outcome.code == 2
    line = outcome.err.splitlines()[-1]
    assert line.startswith("supernet: ") and "failed" in line
    return shlex.split(line.partition("do what is missing with: supernet ")[2])


@pytest.mark.parametrize("how", ["in a way that the user can correct", "by a fault"])
def test_a_sweep_goes_on_after_a_job_that_fails(how, tmp_path, monkeypatch):
    failed = {1} if how != "by a fault" else {0, 2}
    with monkeypatch.context() as patch:
        tried = sweep_failing(patch, failed, FAILURES[how])
        outcome = supernet(*SWEEP, cwd=tmp_path)
    assert set(tried) == set(SEEDS)
    assert outcome.out.count(" failed: ") == len(failed)
    for seed in SEEDS:  # a row for each job in the table
        assert f"seed={seed}" in outcome.out.rpartition("differs in")[2]
    assert ("Traceback" in outcome.err) == (how == "by a fault")
    again = last_line(outcome)
    with monkeypatch.context() as patch:
        tried = sweep_failing(patch, set(), None)
        second = supernet(*again, cwd=tmp_path)
    assert (second.code, second.err) == (0, "")
    assert set(tried) == failed  # what is done is not done again
    assert len(list(tmp_path.glob("multirun/*/*/*/state.json"))) == len(SEEDS)


@pytest.mark.parametrize("failed", [{"darts-0"}, set(CELLS)], ids=["one", "all"])
def test_a_study_goes_on_after_a_run_that_fails(failed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        tried = study_failing(patch, failed, FAILURES["in a way that the user can correct"])
        outcome = supernet(*STUDY, cwd=tmp_path)
    assert set(tried) == set(CELLS)
    assert outcome.out.count(" failed: ") == len(failed)
    again = last_line(outcome)
    folder = Path(again[1].removeprefix("from="))
    results = json.loads((folder / "results.json").read_text())
    assert results["failed"].keys() == failed
    rows = [row for row in results["study"] if row["method"] in ("darts", "spos")]
    assert sum(row["runs"] for row in rows) == len(CELLS) - len(failed)
    with monkeypatch.context() as patch:
        study_failing(patch, set(), None)
        second = supernet(*again, cwd=tmp_path)
    assert (second.code, second.err) == (0, "")
    assert "failed" not in json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("failed", SOME)
def test_the_executor_gives_every_failure_to_the_one_who_asked(failed, how, monkeypatch, capsys):
    class Stop:
        def check(self):
            pass

    class Work:
        stop = Stop()

    def compute(job, work):
        if job in failed:
            raise FAILURES[how]
        return job

    monkeypatch.setattr("supernet.runs.executor.result_of", compute)
    done, lines = [], {}
    Here().run(Work(), range(3), lambda job, found: done.append(job), lines.__setitem__)
    assert set(done) == set(range(3)) - failed
    assert lines.keys() == failed
    assert all("\n" not in line for line in lines.values())
    assert ("Traceback" in capsys.readouterr().err) == (how in UNEXPECTED and bool(failed))
