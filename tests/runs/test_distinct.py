"""``distinct=true``: architectures that compute the same function count as one."""

import numpy as np

from supernet.cli.composition import composed
from supernet.mixture import Architecture
from supernet.runs.folder import State
from supernet.runs.setup import Setup
from supernet.runs.training import random_trainings
from supernet.runs.work import Work
from supernet.track.jsonlines import read_rows
from tests.commands import TINY, finished


def work(*overrides):
    return Work(Setup(composed([*TINY, "tracker=none", *overrides])), State("nowhere"))


def functions(work, architectures):
    return {work.space.canonical(architecture) for architecture in architectures}


def test_random_architectures_differ_in_what_they_compute(tmp_path):
    plain, distinct = work(), work("distinct=true")
    drawn, functional = (one.different(np.random.default_rng(0), 300) for one in (plain, distinct))
    assert len(drawn) == len(set(drawn)) == len(functional) == 300
    assert len(functions(plain, drawn)) < 300 == len(functions(distinct, functional))
    many = "baseline.architectures=300"
    for one, least in ((work(many), 0), (work(many, "distinct=true"), 300)):
        jobs = random_trainings(one)
        assert len(jobs) == 300
        assert least <= len(functions(one, [job.architecture for job in jobs]))
    jobs = random_trainings(work(many))
    assert len(functions(plain, [job.architecture for job in jobs])) < 300  # as chance has it


def test_a_searcher_judges_one_of_those_that_compute_the_same(tmp_path):
    search = ["method=spos", "searcher=random", "searcher.candidates=60", "search.epochs=1"]
    folder = finished("derive", *TINY, *search, "tracker=none", "distinct=true", cwd=tmp_path)
    space = work().space
    rows = [row for row in read_rows(folder / "metrics.jsonl") if row["stage"] == "derive"]
    again = finished("derive", f"from={folder}", "distinct=false", cwd=tmp_path)
    each = [row for row in read_rows(again / "metrics.jsonl") if row["stage"] == "derive"]
    assert len(rows) < len(each) <= 60
    text = (folder / "architecture.json").read_text()
    found = space.validate(Architecture.from_json(text))
    assert found == space.canonical(found)
