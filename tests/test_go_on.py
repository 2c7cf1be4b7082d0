"""A job of a sweep, or a run of a study, that fails does not end the others, and what is missing is
done by the line that is printed.
"""

import json
import re
import shlex
import shutil
from html import unescape
from itertools import combinations, count
from pathlib import Path

import pytest
import yaml

from supernet import files
from supernet.cli.composition import composed, composition
from supernet.cli.line import parse
from supernet.cli.parent import with_parent
from supernet.cli.recorded import record
from supernet.config import StudySettings
from supernet.errors import UserError
from supernet.runs.executor import Here
from supernet.runs.folder import State
from supernet.runs.search import Search
from supernet.runs.setup import Setup
from supernet.spaces.nb201 import NB201
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
        (work.folder / job.name / "checkpoints").mkdir(exist_ok=True)
        (work.folder / job.name / "checkpoints" / "retrain-0.pt").touch()
        State.begin(work.folder / job.name, None)
        method, _, seed = job.name.rpartition("-")
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


def study_of(folder):
    """What a study compares: by the line that goes on, by the settings, and by the page."""
    recorded = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
    page = (folder / "report.html").read_text()
    shown = re.search("repeats the study:</p>\n<pre>supernet (.*)</pre>", page).group(1)
    lines = (["study", f"from={folder}"], shlex.split(unescape(shown)))
    found = [composed(with_parent(parse(words)).overrides).study for words in lines]
    assert found[0] == found[1] == StudySettings(**recorded["study"])
    return found[0]


def test_a_study_goes_on_with_its_newest_line_after_runs_that_fail(tmp_path, monkeypatch):
    folder = tmp_path / "s"
    again = ["study", f"from={folder}"]
    lines = (
        ([*STUDY, "hydra.run.dir=s"], CELLS, set(CELLS)),
        ([*again, "study.methods=[darts]"], ["darts-0"], set()),
        ([*again, "study.methods=[darts,spos]"], CELLS, {"spos-0"}),
        (again, CELLS, set()),
    )
    for line, cells, failed in lines:
        with monkeypatch.context() as patch:
            tried = study_failing(patch, failed, FAILURES["in a way that the user can correct"])
            outcome = supernet(*line, cwd=tmp_path)
        assert tried == [*cells] and outcome.out.count(" failed: ") == len(failed)
        results = json.loads((folder / "results.json").read_text())
        assert len(results["runs"]) == len(cells) - len(failed)
        assert results.get("failed", {}).keys() == failed
        if failed:
            assert last_line(outcome) == again
        else:
            assert (outcome.code, outcome.err) == (0, "")
        if results["runs"]:
            assert [f"{method}-0" for method in study_of(folder).methods] == [*cells]

    # Where a study of other settings is refused, what is recorded stays.
    path = folder / "darts-0" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"plan": "of other settings"}))
    other = supernet(*STUDY, "study.methods=[darts]", "hydra.run.dir=s", cwd=tmp_path)
    assert other.code == 2 and "holds a run of other settings" in other.out
    assert study_of(folder).methods == ["darts", "spos"]


def test_what_a_study_records_of_its_runs_holds_when_it_is_moved(tmp_path, monkeypatch):
    monkeypatch.setattr("supernet.study.run.page_of", lambda folder: folder)
    study_failing(monkeypatch, set(), None)
    line = [*STUDY, "study.methods=[darts]", "study.ablate=[weight_decay]"]
    folder = supernet(*line, cwd=tmp_path).folder
    runs = [path.parent.name for path in folder.glob("*/state.json")]
    assert len(runs) == 2
    moved = folder.rename(tmp_path / "moved")
    for name in runs:
        overrides = with_parent(parse(["reproduce", f"from={moved / name}"])).overrides
        assert not any(str(folder) in one for one in overrides)
        setup = Setup(composed(overrides))
        found = setup.space.decode(NB201.hand_made)  # by the search that is pretended
        assert setup.given == (None if name == "darts-0" else found)


def test_a_record_that_is_replaced_is_the_old_or_the_new_one(tmp_path, monkeypatch):
    """Whenever the process is killed: each file is replaced or removed by one call. What was stated
    stays.
    """
    said = "checklist.tuning=none"
    old, new = ["study.methods=[darts]", "seed=1", said], ["study.methods=[spos]", "seed=2"]
    own = tmp_path / "own"
    own.mkdir()

    class Killed(BaseException):
        pass

    def recorded(name, overrides, *own):
        line = parse([*overrides, *(f"--config-dir={one}" for one in own)])
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        with composition(overrides) as cfg:
            record(folder, cfg, overrides, line.folders, anew=True)
        return folder

    before, seen = recorded("before", old, own), []
    for moment in count():
        folder = shutil.copytree(before, tmp_path / str(moment))
        left = iter(range(moment))

        def counted(function, left=left):
            def call(*arguments, **named):
                if next(left, None) is None:
                    raise Killed
                return function(*arguments, **named)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(files.os, "replace", counted(files.os.replace))
            patch.setattr(Path, "unlink", counted(Path.unlink))
            try:
                recorded(folder.name, new)
                ended = True
            except Killed:
                ended = False
        line = with_parent(parse(["study", f"from={folder}", "trust=true"]))
        kept = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
        found = (line.overrides, line.folders.own, kept["seed"], kept["study"]["methods"])
        assert found in ((old, (own,), 1, ["darts"]), ([*new, said], (), 2, ["spos"]))
        assert kept["checklist"]["tuning"] == "none"
        seen.append(kept["seed"])
        if ended:
            break
    assert seen == sorted(seen) and set(seen) == {1, 2} and len(seen) > 5


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
