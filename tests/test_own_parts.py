"""A user's own classes are chosen by name from a folder of YAML, or by class on the command line,
without a change in the package.
"""

import json
import sys

import pytest

from supernet.track.jsonlines import read_rows
from tests.commands import TINY, finished, supernet

CODE = '''
"""A user's own parts."""

from dataclasses import dataclass
from pathlib import Path

from supernet.data.sources import Digits
from supernet.guards.guard import Fired, Guard
from supernet.instruments.instrument import Instrument
from supernet.learners.gradient import Gradient
from supernet.modifiers.modifier import Modifier
from supernet.samplers.softmax import Softmax
from supernet.searchers.random import Random
from supernet.spaces.nb201 import NB201
from supernet.track.interface import Tracker


@dataclass
class Sharp(Softmax):
    """The softmax of the logits times ``factor``."""

    factor: float = 2.0

    def mixtures(self, logits, progress, loss):
        return super().mixtures({k: v * self.factor for k, v in logits.items()}, progress, loss)


@dataclass
class Slow(Gradient):
    """Learns at a tenth of its rate."""

    def __post_init__(self):
        self.lr /= 10
        super().__post_init__()


@dataclass
class Nothing(Modifier):
    """Changes nothing."""


@dataclass
class Last(Random):
    """The last of its candidates."""

    candidates: int = 2


@dataclass
class Narrow(NB201):
    """The same space."""


@dataclass
class Rows(Tracker):
    """Counts rows into a file."""

    path: str = "rows.txt"

    def log(self, stage, step, metrics):
        with open(self.path, "a") as file:
            file.write(f"{stage} {step}\\n")


@dataclass
class Epochs(Instrument):
    """The number of the epoch."""

    title = "epoch"
    meaning = "it goes on"
    prefixes = ("own/",)

    def read(self, snapshot):
        return {"own/epoch": float(snapshot.epoch)}


@dataclass
class Second(Guard):
    """Ends the search after the second epoch."""

    title = "second"
    meaning = "it ends"
    prefixes = ()

    def end_of_epoch(self, snapshot):
        return Fired("two epochs are enough", stops=True) if snapshot.epoch == 2 else None


@dataclass(frozen=True)
class Few(Digits):
    """The same images."""
'''

YAML = {
    "sampler/sharp": "_target_: my_parts.Sharp\nfactor: 3.0\n",
    "learner/slow": "_target_: my_parts.Slow\nlr: 0.01\n",
    "modifier/nothing": "# @package modifier.nothing\n_target_: my_parts.Nothing\n",
    "instrument/epochs": "# @package instrument.epochs\n_target_: my_parts.Epochs\n",
    "guard/second": "# @package guard.second\n_target_: my_parts.Second\n",
    "searcher/last": "_target_: my_parts.Last\ncandidates: 2\n",
    "space/narrow": (
        "_target_: my_parts.Narrow\nsearch: {channels: 4, cells: 1}\n"
        "evaluation: {channels: 4, cells: 1}\n"
    ),
    "tracker/rows": "_target_: my_parts.Rows\npath: ???\n",
    "data/few": (
        "name: few\nsource: {_target_: my_parts.Few}\n"
        "augment: {_target_: supernet.data.augment.Augment}\n"
        "search_augment: {_target_: supernet.data.augment.Augment}\n"
    ),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a module on the Python path, and with YAML files in ``options``."""
    (tmp_path / "my_parts.py").write_text(CODE)
    for name, text in YAML.items():
        path = tmp_path / "options" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_parts", None)


OWN = ["--config-dir", "options"]
CHOSEN = ["space=narrow", "data=few", "sampler=sharp", "learner=slow", "modifier=[nothing]"]
CHOSEN += ["instrument=[epochs,shares]", "guard=[second]", "search.epochs=4"]
CHOSEN += ["search.supernets=1"]


def test_options_of_ones_own_are_chosen_by_name(folder):
    rows = folder / "rows.txt"
    words = [*TINY, *CHOSEN, "searcher=last", "tracker=rows", f"tracker.path={rows}"]
    run = finished("derive", *words, *OWN, cwd=folder)
    config = (run / ".hydra" / "config.yaml").read_text()
    for kind in ("Sharp", "Slow", "Nothing", "Last", "Narrow", "Rows", "Few", "Epochs", "Second"):
        assert f"my_parts.{kind}" in config
    assert "factor: 3.0" in config
    expected = [f"{row['stage']} {row['step']}" for row in read_rows(run / "metrics.jsonl")]
    assert rows.read_text().splitlines() == expected
    # The folder of a run records where its options came from. Someone else may have written that.
    sys.modules.pop("my_parts")
    refused = supernet("derive", f"from={run}", cwd=folder)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "trust=true" in refused.err and f"--config-dir={folder / 'options'}" in refused.err
    assert "my_parts" not in sys.modules
    assert finished("derive", f"from={run}", "trust=true", cwd=folder) == run
    assert finished("derive", f"from={run}", *OWN, cwd=folder) == run
    other = finished("search", f"from={run}", "trust=true", "sampler.factor=1.0", cwd=folder)
    assert other != run and "factor: 1.0" in (other / ".hydra" / "config.yaml").read_text()


def test_a_class_is_given_on_the_command_line(folder):
    """The settings of the option that the class replaces are dropped; its own settings are new
    keys.
    """
    own = ["sampler._target_=my_parts.Sharp", "sampler.factor=4.0"]
    own += ["searcher._target_=my_parts.Last", "learner._target_=my_parts.Slow"]
    run = finished("derive", *TINY, "method=gdas", *own, "tracker=none", cwd=folder)
    config = (run / ".hydra" / "config.yaml").read_text()
    assert "my_parts.Sharp" in config and "factor: 4.0" in config and "tau" not in config
    assert json.loads((run / "results.json").read_text())["derive"]["evaluated"] <= 2
    sys.modules.pop("my_parts")
    refused = supernet("derive", f"from={run}", cwd=folder)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "add trust=true" in refused.err and "my_parts" not in sys.modules
    for anew in (["trust=true"], own):
        assert finished("derive", f"from={run}", *anew, cwd=folder) == run


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config-dir", "nowhere"], "--config-dir="),
        ([*OWN, "sampler=sharpp"], "did you mean 'sharp'"),
        (["sampler._target_=my_parts.Shar"], "sampler._target_=my_parts.Shar: no such dataclass"),
        (["sampler._target_=my_parts.Sharp", "sampler.facto=1"], "did you mean 'factor'"),
        (["sampler._target_=os.path.join"], "no such dataclass"),
        *(
            ([f"{place}._target_=my_parts.Few"], f"{place}._target_=my_parts.Few: is no")
            for place in ("space", "sampler", "learner", "searcher", "tracker", "data.augment")
        ),
        (["data.source._target_=my_parts.Narrow"], "derive yours from supernet.data.sources"),
        *(
            ([f"+{place}.x._target_=my_parts.Narrow"], f"{place}.x._target_=my_parts.Narrow: is no")
            for place in ("modifier", "guard", "instrument")
        ),
    ],
)
def test_a_mistake_is_one_line(folder, words, said):
    outcome = supernet("derive", *TINY, *words, "tracker=none", cwd=folder)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert said in outcome.err


def test_an_option_of_ones_own_has_a_name_of_its_own(folder):
    (folder / "options" / "sampler" / "softmax.yaml").write_text(YAML["sampler/sharp"])
    outcome = supernet("search", *TINY, *OWN, cwd=folder)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "softmax.yaml: supernet has an option sampler=softmax" in outcome.err


def test_a_phase_of_ones_own(folder):
    """Its first half trains on other mixtures than the softmax's."""
    words = [*TINY, *OWN, "search.supernets=1", "tracker=none"]
    rows = [
        read_rows(finished("search", *words, f"sampler={phases}", cwd=folder) / "metrics.jsonl")
        for phases in ("[[sharp,0.5],[softmax,0.5]]", "[[softmax,0.5],[softmax,0.5]]")
    ]
    assert len(rows[0]) == len(rows[1]) and rows[0] != rows[1]


def test_the_help_lists_them(folder):
    outcome = supernet("--help", *OWN, cwd=folder)
    assert outcome.code == 0 and "narrow" in outcome.out and "sharp" in outcome.out
