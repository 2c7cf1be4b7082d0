"""A folder is data, never code. Recorded overrides are attacked in every way in which Hydra can
write a class or a setting of its own, under every command. A refusal is one line, and comes before
anything is imported or written.
"""

import sys

import pytest
import yaml

from supernet.cli.composition import composed, composition
from supernet.cli.jobs import goes_on
from supernet.cli.line import parse
from supernet.cli.messages import COMMANDS
from supernet.cli.options import Folders
from supernet.cli.parent import with_parent
from supernet.cli.recorded import record
from supernet.errors import UserError
from supernet.run import plan_of
from supernet.runs.folder import State
from supernet.runs.setup import Setup
from tests.commands import TINY, supernet

EVIL = '''
"""Leaves a mark when it is imported, and again when its class is used."""

import pathlib
from dataclasses import dataclass

pathlib.Path(__file__).with_name("MARK").touch()


@dataclass
class Evil:
    x: int = 0


def evil(*given, **named):
    return None
'''

# classes and functions that a folder must not bring; some are of the package, but no options
TARGETS = [
    "evil_parts.Evil",
    "evil_parts.evil",
    "pathlib.Path.touch",
    "torch.load",
    "os.system",
    "builtins.eval",
    "logging.FileHandler",
    "supernet.export.source.run_source",
    "supernet.runs.executor.Slot",
    "supernet.run.Run",
    "supernet.cli.main",
    "supernet..samplers.softmax.Softmax",
]

# places of a node in the settings
NODES = ["space", "sampler", "learner", "searcher", "tracker"]
NODES += ["data.source", "data.augment", "data.search_augment"]
SEVERAL = ["modifier", "guard", "instrument"]

# how an override can write the class {t} of a node {n}, or of a node below it
OF_A_NODE = [
    "{n}._target_={t}",
    "++{n}._target_={t}",
    "{n}._target_='{t}'",
    '{n}._target_="{t}"',
    "+{n}.x={{_target_: {t}}}",
    "+{n}.x={{'_target_': '{t}'}}",
    "+{n}.x._target_={t}",
    "+{n}.x.y=[1,{{_target_: {t}}}]",
    "+{n}.x={{y: {{z: [[{{_target_: {t}, a: 1}}]]}}}}",
    "++{n}={{_target_: {t}}}",
]
OF_SEVERAL = ["+{n}.x._target_={t}", "++{n}.x={{_target_: {t}}}", "+{n}={{x: {{_target_: {t}}}}}"]
ELSEWHERE = [
    "sampler.phases=[[{{_target_: {t}}},0.5],[softmax,1.0]]",
    "+rank.x={{_target_: {t}}}",
    "+_target_={t}",
    "+x={{_target_: {t}}}",
    "name={{_target_: {t}}}",
]
# Hydra's own settings, and what moves other settings there
HYDRAS = [
    "+hydra.callbacks.x={{_target_: {t}}}",
    "++hydra.callbacks.x._target_={t}",
    "hydra.callbacks={{x: {{_target_: {t}}}}}",
    "+hydra={{callbacks: {{x: {{_target_: {t}}}}}}}",
    "hydra.launcher._target_={t}",
    "hydra.sweeper._target_={t}",
    "+hydra.job_logging.handlers.f={{class: {t}, filename: MARK}}",
    "space@hydra.callbacks.x=nb201",
    "+sampler@_global_=softmax",
    "hydra.searchpath=[pkg://evil_parts]",
    "hydra.searchpath=[file://{{cwd}}]",
    "hydra.run.dir=MARK",
    "hydra.sweep.dir=MARK",
    "hydra.output_subdir=MARK",
    "hydra.job.chdir=true",
    "hydra.mode=MULTIRUN",
    "hydra.job.env_set={{PYTHONSTARTUP: MARK}}",
    "+hydra/launcher=submitit",
    "hydra/job_logging=default",
    "~hydra.job_logging",
    "~hydra/launcher",
    "++hydra.verbose=true",
]
OWN_MODULE = "_target_: supernet.spaces.declared.space.Module"
OTHERS = [  # programs, which are files
    f"++space={{{{{OWN_MODULE}, model: 'evil_parts.py:Evil'}}}}",
    f"space={{{{{OWN_MODULE}, model: './evil_parts.py:Evil', settings: {{{{x: 1}}}}}}}}",
    f"+space={{{{{OWN_MODULE}, model: evil_parts.py:evil}}}}",
    "+space.x='evil_parts.py:Evil'",
    "+space.x=[1,{{y: evil_parts.py:Evil}}]",
]
OTHERS += [  # no classes, but not what this program records
    "seed=1,2",
    "seed=choice(1,2)",
    "seed=range(1,3)",
    "sampler=glob(*)",
    "space=../data/digits",
    "+size/space@space=../../x",
    "modifier=[../learner/gradient]",
    "experiment=/etc/passwd",
    "method=../method/darts",
    "name=${{oc.env:HOME}}",
    "name=a-${{oc.env:${{x}},b}}",
    'name="${{oc.decode:${{oc.env:HOME}}}}"',
    "tracker.entity=${{hydra:runtime.cwd}}",
    "name=../../../MARK",
    "name=/MARK",
    "name='..'",
    "seed",
    "=1",
    "seed=[1",
    "seed=" + "[" * 2000,
    "++",
    "~",
    "",
]


def attacks():
    """Every spelling in some places, and every place with some spellings, with one target; and
    every target in one place of each kind.
    """
    places = [
        spelling.replace("{n}", NODES[(number * factor + factor) % len(NODES)])
        for number, spelling in enumerate(OF_A_NODE)
        for factor in (1, 3)
    ]
    places += [s.replace("{n}", n) for n in SEVERAL for s in OF_SEVERAL]
    places += ELSEWHERE + HYDRAS
    found = [place.format(t=TARGETS[0]) for place in places]
    few = ["space._target_={t}", "+tracker.x={{_target_: {t}}}", HYDRAS[0], ELSEWHERE[0]]
    found += [place.format(t=target) for place in few for target in TARGETS[1:]]
    found += [other.format() for other in OTHERS]
    return list(dict.fromkeys(found))


ATTACKS = attacks()


HONEST = [*TINY, "tracker=none", "method=spos", "searcher.candidates=2"]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The folder of a run that was stopped before its first job ended."""
    run = tmp_path_factory.mktemp("searched") / "run"
    with composition(HONEST) as cfg:
        record(run, cfg, HONEST, Folders(), anew=True)
    state = State(run)
    state.plan = plan_of(Setup(composed(HONEST)))
    state.write()
    return run


@pytest.fixture(scope="module")
def folder(searched, tmp_path_factory):
    """A folder beside which a module can be imported that leaves a mark."""
    place = tmp_path_factory.mktemp("evil")
    (place / "evil_parts.py").write_text(EVIL)
    sys.path.insert(0, str(place))
    yield place
    sys.path.remove(str(place))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def attacked(run, folder, override, command, *typed):
    """What a command says to a run whose record has one more override, and the faults of that.
    ``typed`` are overrides that the user types beside from=.
    """
    record = run / ".hydra" / "overrides.yaml"
    honest = record.read_text()
    record.write_text(yaml.safe_dump([*yaml.safe_load(honest), override]))
    before = contents(folder) | contents(run)
    sys.modules.pop("evil_parts", None)
    try:
        outcome = supernet(command, f"from={run}", *typed, cwd=folder)
    finally:
        after = contents(folder) | contents(run)
        record.write_text(honest)
    faults = []
    if outcome.code != 2 or outcome.err.count("\n") != 1:
        faults.append(f"exit {outcome.code}: {outcome.err[-300:]}")
    if "evil_parts" in sys.modules:
        faults.append("the class was imported")
    if {p for p in after if "__pycache__" not in p.parts} != before.keys() or after[record] != (
        before[record]
    ):
        faults.append("something was written")
    return outcome, faults


@pytest.mark.parametrize("number", range(len(ATTACKS)), ids=lambda number: ATTACKS[number][:60])
def test_no_recorded_override_runs_or_writes_anything(number, searched, folder):
    commands = [name for name in COMMANDS if name != "study"]
    command = commands[number % len(commands)]
    outcome, faults = attacked(searched, folder, ATTACKS[number], command)
    assert faults == [], outcome.err


@pytest.mark.parametrize("node", NODES)
def test_the_type_of_a_typed_setting_is_not_asked_of_a_recorded_class(node, searched, folder):
    """A setting that is typed for the node has the type that the class of the node gives it."""
    recorded = f"{node}._target_=evil_parts.Evil"
    outcome, faults = attacked(searched, folder, recorded, "search", f"{node}.x=1_0")
    assert faults == [], outcome.err


def test_an_honest_record_is_gone_on_with(searched, folder):
    """The record that the attacks begin with is one that is accepted."""
    line = with_parent(parse(["report", f"from={searched}"]))
    assert line.overrides == HONEST and line.folders.recorded is not None
    assert goes_on(line, searched)


@pytest.mark.parametrize(
    ("recorded", "anew"),
    [
        ("tracker._target_=evil_parts.Evil", "tracker._target_=evil_parts.Evil"),
        ("++tracker={_target_: evil_parts.Evil}", "tracker=none"),
        ("name=${oc.env:HOME}", "name=mine"),
    ],
)
@pytest.mark.parametrize("how", ["trust=true", "anew", "trust=false", ""])
def test_the_user_may_say_that_it_is_meant(recorded, anew, how, searched, folder):
    """The line says what to type. The name is still checked: the path of a home has slashes."""
    record = searched / ".hydra" / "overrides.yaml"
    honest = record.read_text()
    record.write_text(yaml.safe_dump([*HONEST, recorded]))
    words = [anew] if how == "anew" else [how] if how else []
    try:
        line = with_parent(parse(["report", f"from={searched}", *words]))
        config = composed(line.overrides, line.folders)
    except UserError as error:
        said = str(error)
        assert how in ("trust=false", "") or "name=/" in said
        assert "name=/" in said or "add trust=true" in said
    else:
        assert how in ("trust=true", "anew")
        assert config.name == "mine" or recorded.startswith(("tracker", "++tracker"))
    finally:
        record.write_text(honest)
