"""The values of settings: every number has bounds, text is what was typed, and a hint fits."""

import contextlib
import copy
import dataclasses
import difflib
import importlib
import json
import math
import typing

import pytest
import yaml
from omegaconf import OmegaConf

from supernet.cli.composition import composed, composition, hint, known_keys
from supernet.cli.jobs import job, prepared
from supernet.cli.launch import launch
from supernet.cli.line import parse
from supernet.cli.options import Folders
from supernet.cli.parent import with_parent
from supernet.config import SEVERAL, Config, build, typed
from supernet.data import Augment
from supernet.device import choose_device
from supernet.errors import UserError
from supernet.learners.exponentiated import Exponentiated
from supernet.learners.gradient import Gradient
from supernet.modifiers.pruning import Pruning
from supernet.modifiers.skip_dropout import SkipDropout
from supernet.runs.setup import AT_ONCE, Setup
from supernet.runs.training import training_streams
from supernet.samplers.schedule import Schedule
from supernet.samplers.uniform import Uniform
from supernet.train.loop import StopRequest
from tests.commands import ROOT
from tests.test_config import WHOLE

# --- numbers

WRONG = {int: (10**20, -(10**20), True), float: (math.nan, math.inf, -1e20, True)}


def number_in(hint):
    """int or float, if a setting of this type is a number or nothing; else ``None``."""
    kinds = {one for one in typing.get_args(hint) or (hint,) if one is not type(None)}
    return kinds.pop() if kinds in ({int}, {float}) else None


def numbers_of(kind, where=()):
    """The path and type of every number among the settings of a dataclass."""
    for name, found in typing.get_type_hints(kind).items():
        items = typing.get_args(found)[0] if typing.get_origin(found) is list else None
        if name not in [field.name for field in dataclasses.fields(kind)]:
            continue
        if dataclasses.is_dataclass(found):
            yield from numbers_of(found, (*where, name))
        elif items is not None and number_in(items):
            yield (*where, name, 0), number_in(items)
        elif number_in(found):
            yield (*where, name), number_in(found)


def class_of(node):
    module, _, name = node["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name)


def nodes():
    """Group and option -> the node of the part that it is, for every option of a part."""
    for path in sorted((ROOT / "conf").glob("*/*.yaml")):
        node = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        group = path.parent.name
        if group in SEVERAL:
            group, node = f"{group}.{path.stem}", node.get(path.stem, node)
        elif group == "data":  # the size of the images bounds the numbers of augment
            yield "data.source", path.stem, node["source"]
            continue
        if "_target_" in node:
            yield group, path.stem, node


PARTS = {
    f"{where} {option} {'.'.join(map(str, path))}={value}": (where, node, path, value)
    for where, option, node in nodes()
    for path, kind in numbers_of(class_of(node))
    for value in WRONG[kind]
}
SECTIONS = {
    f"{'.'.join(map(str, path))}={value}": (path, value)
    for path, kind in numbers_of(Config)
    for value in WRONG[kind]
}


def with_value(tree, path, value):
    """The nested settings with another value at ``path``."""
    tree = copy.deepcopy(tree)
    node = tree
    for step in path[:-1]:
        node = node.setdefault(step, {}) if isinstance(node, dict) else node[step]
    if isinstance(path[-1], int):
        node[:] = [value]
    else:
        node[path[-1]] = value
    return tree


def refused(make):
    """The message with which settings are refused."""
    with pytest.raises(UserError) as caught:
        make()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("case", PARTS)
def test_a_number_of_a_part_out_of_its_bounds_is_refused_by_name(case):
    where, node, path, value = PARTS[case]
    node = {name: "x" if one == "???" else one for name, one in node.items()}
    name = path[-2] if path[-1] == 0 else path[-1]
    assert name in refused(lambda: build(with_value(node, path, value), where))


@pytest.mark.parametrize("case", SECTIONS)
def test_a_number_of_a_section_out_of_its_bounds_is_refused_by_name(case):
    path, value = SECTIONS[case]
    tree = with_value(WHOLE | {"study": {"seeds": [0], "shares": [0.5]}}, path, value)
    name = ".".join(map(str, path)).removesuffix(".0")
    if path == ("threads",) and value == 10**20:  # depends on the machine
        assert "threads" in refused(lambda: Setup(composed([f"threads={value}"])))
    else:
        assert name in refused(lambda: typed(Config, tree, ""))


@pytest.mark.parametrize("count", [AT_ONCE + 1, 1000, 20_000, 100_000])
@pytest.mark.parametrize("setting", ["threads", "jobs"])
def test_no_more_at_once_than_a_machine_can_do(setting, count, monkeypatch):
    monkeypatch.setattr("supernet.runs.setup.cores", lambda: 2)
    assert f"{setting}={count}" in refused(lambda: Setup(composed([f"{setting}={count}"])))
    monkeypatch.setattr("supernet.runs.setup.cores", lambda: count)  # a machine that can
    assert Setup(composed([f"{setting}={count}"]))


@pytest.mark.parametrize("limit", [True, False, "true", -1, 1.5, math.nan, math.inf, "2", [2]])
@pytest.mark.parametrize("group", [None, "normal"])
def test_skips_are_a_number_or_a_share(limit, group):
    skips = limit if group is None else {group: limit}
    assert "budget." in refused(lambda: typed(Config, WHOLE | {"budget": {"skips": skips}}, ""))


STAGES = {Pruning: "stages", SkipDropout: "stages", Gradient: "warmups", Exponentiated: "warmups"}


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("number", [True, math.nan, math.inf, -1, "a", None])
@pytest.mark.parametrize("place", [0, 1])
def test_the_numbers_of_a_list_of_stages_have_bounds(kind, number, place):
    stage = [0, 1]
    stage[place] = number
    assert STAGES[kind] in refused(lambda: kind(**{STAGES[kind]: [stage]}))


SWITCHES = {"distinct": Config, "search.recompute": Config, "search.freeze_weights": Config}
SWITCHES |= {"data.augment.flip": Augment, "sampler.mixed": Schedule}
SWITCHES |= {"sampler.distinct": Uniform}


@pytest.mark.parametrize("setting", SWITCHES)
@pytest.mark.parametrize("value", ["2", "-1", "0.5", "1e9", "perhaps", "[true]"])
def test_a_switch_is_true_or_false(setting, value):
    kind, name = SWITCHES[setting], setting.rpartition(".")[2]
    if kind is Config:
        words = [f"{setting}={value}"]
        assert name in refused(lambda: composed(with_parent(parse(words)).overrides))
    else:
        node = {"_target_": f"{kind.__module__}.{kind.__name__}"}
        assert name in refused(lambda: build(node | {name: yaml.safe_load(value)}, "part"))


@pytest.mark.parametrize("kind", ["cpu", "cuda", "mps", "xpu", "meta", "fpga", "CPU", "", " "])
@pytest.mark.parametrize("index", [":1", ":3", ":-1", ":99999999999999999999", ":", ":x"])
def test_a_device_that_is_not_there_is_refused(kind, index):
    try:
        found = choose_device(f"{kind}{index}")
    except UserError as error:
        assert "device=" in str(error) and "\n" not in str(error)
    else:  # a machine may have several accelerators, and one processor
        assert found.type == kind != "cpu"


@pytest.mark.parametrize("group", ["modifier", "guard", "instrument"])
def test_no_option_can_be_chosen_twice(group):
    options = Folders().options(group)
    for one, other in zip(options, options[1:] + options[:1], strict=True):
        line = [f"{group}=[{one},{other},{one}]"]
        assert f"{one} is there twice" in refused(lambda line=line: parse(line))


@pytest.mark.parametrize("twice", [{"methods": ["darts", "spos", "darts"]}, {"seeds": [0, 1, 0]}])
def test_a_study_has_no_run_twice(twice):
    assert "is there twice" in refused(lambda: typed(Config, WHOLE | {"study": twice}, ""))


@pytest.mark.parametrize("name", ["", " ", "''", "' '"])
def test_a_run_has_a_name(name):
    line = [f"name={name}"]
    assert "name" in refused(lambda: composed(with_parent(parse(line)).overrides))


def test_every_training_of_every_run_has_random_numbers_of_its_own():
    indices = [*range(3), 997, 998, 999, 1000, 1001, 1999, 2000, 10**6 - 1]
    drawn = {
        (seed, index): training_streams(seed, index).host("order").bit_generator.state["state"]
        for seed in (0, 1, 2, 999, 1000)
        for index in indices
    }
    assert len({json.dumps(state) for state in drawn.values()}) == len(drawn)


# --- text

TEXTS = [
    *("2024_01_15", "1e3", "1_0", "007", "1.50", "+1", "-0", "0x10", "inf", "nan", "1e-3", ".5"),
    *("true", "TRUE", "false", "off", "null", "None", "NULL"),
    *("a,b", "a, b", "1,2", ",", "[x]", "[1,2]", "[", "a]b", "{a:b}", "{", "(a)", "a)"),
    *("choice(a,b)", "range(1,3)", "glob(*)", "str(1)", "int(1)", "sort(a)", "shuffle(a)"),
    *("x'y", 'x"y', "a\\'b", 'a\\"b', "a\\b", "a\\\\b", "a\\,b", "a\\", "a\\\\", "C:\\new\\table"),
    *("a b", "a=b", "a==b", "a:b", "a@b", "~x", "!x", "*", "a#b", "%s", "&", "|", "<>", "$", "a$b"),
    *("é", "数据", "a;b", "?", "-", "--x", "...", "a{b", "a}b", "a'", "it's, [not] {so}"),
]
SETTINGS = ("name", "data.source.path", "tracker.project", "tracker.entity", "study.published")
SETTINGS += ("rank.target", "budget.latency_table", "retrain.warm_start")
SETTINGS += ("hydra.run.dir", "hydra.sweep.dir", "hydra.job.name")
NOTHING = ("tracker.entity", "study.published", "budget.latency_table", "retrain.warm_start")
NOTHING += ("hydra.job.name",)  # null is a value of these


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_what_was_typed(text):
    settings = {name: text for name in SETTINGS if not (text == "null" and name in NOTHING)}
    words = ["data=npz", *(f"{name}={text}" for name in settings)]
    with composition(with_parent(parse(words)).overrides) as cfg:
        assert {name: str(OmegaConf.select(cfg, name)) for name in settings} == settings


@pytest.mark.parametrize("text", ["1_0", "1e3", "007", "true", "a", "null", "a b"])
def test_the_texts_of_a_sweep_and_of_a_list_are_what_was_typed(text):
    (swept,) = with_parent(parse(["-m", f"name={text},{text}2"])).overrides
    with composition([swept.replace("name=", "tracker.tags=[", 1) + "]"]) as cfg:
        assert list(cfg.tracker.tags) == [text, f"{text}2"]
    for setting in ("tracker.tags", "rank.beside"):
        with composition(with_parent(parse([f"{setting}=[{text},x]"])).overrides) as cfg:
            assert list(OmegaConf.select(cfg, setting)) == [text, "x"]


def test_what_is_no_text_stays_as_it_was():
    words = ["search.lr=1e-3", "search.epochs=1_0", "learner.lr=1e-3", "data.augment.flip=true"]
    words += ["budget.params=1e6", "study.published=null", "study.methods=[darts,spos]", "jobs=2"]
    words += [
        "method=darts",
        "sampler=softmax",
        "space.search.channels=8",
        "name=${method}-x",
        "tracker.tags=[a]",
    ]
    assert with_parent(parse(words)).overrides == words


FOLDERS = ["a${x}b", "a\\'b", 'a"b', "a\\", "a\\\\b", "a,b", "[x]", "a=b", "1e3", "{x}", "\\${x}"]
FOLDERS += ["\\\\${x}", "%(x)s"]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_working_folder_may_have_any_name(name, tmp_path, monkeypatch):
    here = tmp_path / name
    here.mkdir()
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    seen = []

    monkeypatch.setattr("supernet.cli.jobs.execute", lambda *arguments: seen.extend(arguments))
    with contextlib.chdir(here):
        line, _ = prepared(parse(["search"]), StopRequest())
        launch(line, lambda cfg: job(line, cfg, StopRequest(), None, None, None))
    _, config, folder, overrides, *_ = seen
    assert folder.parents[2] == here and overrides == []
    assert (folder / ".hydra" / "overrides.yaml").is_file()
    assert list(tmp_path.iterdir()) == [here]
    assert config.name == composed([]).name


@pytest.mark.parametrize("name", FOLDERS)
def test_settings_may_hold_what_looks_like_a_reference(name):
    tree = WHOLE | {"study": {"target": name}, "rank": {"beside": [name]}}
    config = typed(Config, json.loads(json.dumps(tree)), "")
    assert (config.study.target, config.rank.beside) == (name, [name])
    tracker = {"_target_": "supernet.track.wandb.WandB", "project": name, "tags": [name]}
    built = build(tracker, "tracker")
    assert (built.project, built.tags) == (name, [name])


@pytest.mark.parametrize("setting", ["hydra.run.dir", "hydra.sweep.dir"])
@pytest.mark.parametrize("value", ["", "''", "' '", "/dev/null", "FILE", "FILE/x"])
def test_a_folder_for_the_run_must_be_one(setting, value, tmp_path):
    (tmp_path / "FILE").write_text("precious")
    words = ["search", f"{setting}={value}", *(["-m"] if "sweep" in setting else [])]
    with contextlib.chdir(tmp_path):
        assert setting[:9] in refused(lambda: prepared(with_parent(parse(words)), StopRequest()))
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]
    assert (tmp_path / "FILE").read_text() == "precious"


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_value_that_was_forgotten_is_refused(setting):
    assert setting in refused(lambda: parse([f"{setting}="]))


# --- hints


def typo(name):
    """The name with two of its letters exchanged."""
    middle = len(name) // 2
    return name[: middle - 1] + name[middle] + name[middle - 1] + name[middle + 1 :]


KNOWN = sorted({one for one in known_keys([], Folders()) if not one.endswith("_target_")})


def message(words):
    return refused(lambda: composed(words))


def test_a_typo_gets_a_hint_in_its_place():
    tried = 0
    for setting in KNOWN:
        place, _, name = setting.rpartition(".")
        if len(name) > 3 and typo(name) != name:
            wrong = f"{place}.{typo(name)}" if place else typo(name)
            assert hint(wrong, KNOWN, Folders()) == f"did you mean {setting}?"
            tried += 1
    assert tried > 80


@pytest.mark.parametrize("group", ["searcher", "sampler", "learner", "tracker", "data"])
def test_a_setting_of_another_option_names_the_options_that_have_it(group):
    chosen = {"searcher": "logits", "sampler": "softmax", "learner": "fixed", "tracker": "none"}
    option = chosen.get(group, "digits")
    others = {}
    for where, other, node in nodes():
        if where.partition(".")[0] == group:
            for name in set(node) - {"_target_"}:
                others.setdefault(f"{where}.{name}", set()).add(other)
    known = known_keys([f"{group}={option}"], Folders())
    missing = {setting: have for setting, have in others.items() if setting not in known}
    assert missing
    for setting, have in missing.items():
        said = hint(setting, known, Folders())
        assert said.endswith(f"these have it: {', '.join(sorted(have))}")
    assert message([f"{group}={option}", f"{setting}=1"]).endswith(said)


def test_a_setting_in_the_wrong_place_is_named_with_its_place():
    tops = [one for one in KNOWN if "." not in one]
    for name in {one.rpartition(".")[2] for one in KNOWN if "." in one} - {*KNOWN}:
        places = [one for one in KNOWN if one.rpartition(".")[2] == name]
        if not difflib.get_close_matches(name, tops, cutoff=0.7):
            assert hint(name, KNOWN, Folders()) == f"did you mean {' or '.join(places)}?"


def test_several_values_without_a_sweep_get_the_hint_that_helps():
    for words in (["precision=float32,bf16"], ["method=darts,spos"], ["search.epochs=1,2"]):
        with pytest.raises(UserError, match="add -m"):
            composed(with_parent(parse(words)).overrides)


@pytest.mark.parametrize("word", ["zzz", "xyz.abc", "learning_rate", "foo.bar.baz", "qwerty"])
def test_what_is_like_nothing_gets_no_guess(word):
    assert "did you mean" not in message([f"{word}=1"])


@pytest.mark.parametrize("methods", [["foo"], ["darts", "foo"], ["Darts"], [""], ["darts.yaml"]])
def test_a_method_of_a_study_is_one_that_there_is(methods):
    names = ",".join(f"'{name}'" for name in methods)
    said = message([f"study.methods=[{names}]"])
    assert "study.methods" in said and repr(methods[-1]) in said
