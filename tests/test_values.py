"""The values of settings: every number has bounds, text is what was typed, and a hint fits."""

import contextlib
import copy
import dataclasses
import importlib
import json
import math
import typing

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from supernet.cli.commands import job, prepared
from supernet.cli.composition import composed, composition, known_keys
from supernet.cli.entry import with_parent
from supernet.cli.launch import launch
from supernet.cli.line import parse
from supernet.cli.options import Folders
from supernet.config import SEVERAL, Config, build, typed
from supernet.device import choose_device
from supernet.errors import UserError
from supernet.runs.setup import AT_ONCE, Setup
from supernet.runs.training import training_streams
from tests.commands import ROOT
from tests.test_config import WHOLE

# --- numbers

WRONG = {int: (10**20, -(10**20), True), float: (math.nan, math.inf, -1e20, True)}
# what the yaml of an option leaves open
OPEN = {"npz": ["data.source.path=x"], "folder": ["data.source.root=x"]}


def number_in(hint):
    """int or float, if a setting of this type is a number or nothing; else ``None``."""
    kinds = {one for one in typing.get_args(hint) or (hint,) if one is not type(None)}
    return kinds.pop() if kinds in ({int}, {float}) else None


def numbers_of(kind, where=()):
    """The path and type of every number among the settings of a dataclass."""
    for name, hint in typing.get_type_hints(kind).items():
        if name not in [field.name for field in dataclasses.fields(kind)]:
            continue
        if dataclasses.is_dataclass(hint):
            yield from numbers_of(hint, (*where, name))
        elif typing.get_origin(hint) is list and number_in(typing.get_args(hint)[0]):
            yield (*where, name, 0), number_in(typing.get_args(hint)[0])
        elif number_in(hint):
            yield (*where, name), number_in(hint)


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
        elif group == "data":
            for part in ("source", "augment"):
                yield f"data.{part}", path.stem, node[part]
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
    tree = with_value(WHOLE | {"study": {"seeds": [0]}}, path, value)
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


STAGES = ("search.depths", "search.widths", "modifier.pruning.stages", "learner.warmups")


@pytest.mark.parametrize("setting", STAGES)
@pytest.mark.parametrize("number", ["true", "nan", "inf", "-1", "a"])
@pytest.mark.parametrize("place", [0, 1])
def test_the_numbers_of_a_list_of_stages_have_bounds(setting, number, place):
    stage = ["0", "1"]
    stage[place] = number
    line = [f"{setting}=[[{','.join(stage)}]]"]
    line += ["modifier=[pruning]"] if "pruning" in setting else []
    assert setting.rpartition(".")[2] in refused(lambda: Setup(composed(line)))


SWITCHES = ("distinct", "search.recompute", "search.freeze_weights", "data.augment.flip")
SWITCHES += ("data.search_augment.flip", "sampler.mixed")


@pytest.mark.parametrize("setting", SWITCHES)
@pytest.mark.parametrize("value", ["2", "-1", "0.5", "1e9", "perhaps", "[true]"])
def test_a_switch_is_true_or_false(setting, value):
    line = ["sampler=schedule", f"{setting}={value}"]
    message = refused(lambda: Setup(composed(with_parent(parse(line)).overrides)))
    assert setting.rpartition(".")[2] in message


@pytest.mark.parametrize("kind", ["cpu", "cuda", "mps", "xpu", "meta", "fpga", "CPU", "", " "])
@pytest.mark.parametrize("index", [":1", ":3", ":-1", ":99999999999999999999", ":", ":x"])
def test_a_device_that_is_not_there_is_refused(kind, index):
    try:
        found = choose_device(f"{kind}{index}")
    except UserError as error:
        assert "device=" in str(error) and "\n" not in str(error)
    else:  # a machine may have several accelerators, and one processor
        assert found.type == kind != "cpu"


@pytest.mark.parametrize("group", ["modifier", "guard", "instrument", "study.methods"])
def test_nothing_can_be_chosen_twice(group):
    options = Folders().options("method" if group == "study.methods" else group)
    for one, other in zip(options, options[1:] + options[:1], strict=True):
        line = [f"{group}=[{one},{other},{one}]"]
        assert one in refused(lambda line=line: composed(with_parent(parse(line)).overrides))


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
SETTINGS = {  # setting -> what chooses it
    "name": [],
    "data.source.path": ["data=npz"],
    "data.source.root": ["data=folder"],
    "tracker.project": [],
    "tracker.entity": [],
    "study.target": [],
    "study.published": [],
    "rank.published": [],
    "budget.latency_table": [],
    "retrain.warm_start": [],
    "hydra.run.dir": [],
    "hydra.sweep.dir": [],
    "hydra.job.name": [],
}
NOTHING = ("tracker.entity", "study.published", "rank.published", "budget.latency_table")
NOTHING += ("retrain.warm_start",)  # null is a value of these


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_what_was_typed(text):
    for data in ("npz", "folder"):
        chosen = [f"data={data}"]
        settings = {
            name: text
            for name, needs in SETTINGS.items()
            if needs in ([], chosen) and not (text == "null" and name in NOTHING)
        }
        words = [*chosen, *(f"{name}={text}" for name in settings), f"tracker.tags=[{quote(text)}]"]
        with composition(with_parent(parse(words)).overrides) as cfg:
            found = {name: str(OmegaConf.select(cfg, name)) for name in settings}
            assert found == settings
            assert OmegaConf.select(cfg, "tracker.tags") == [text]


def quote(text):
    """A text as an item of a list, in quotes if Hydra would split the list there."""
    return text if set(text) <= set("abcdefghijklmnopqrstuvwxyzN_0123456789.+-") else quoted(text)


def quoted(text):
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()


@pytest.mark.parametrize("text", ["1_0", "1e3", "007", "true", "a", "'a,b'"])
def test_the_texts_of_a_sweep_and_of_a_list_are_what_was_typed(text):
    plain = text.strip("'")
    (swept,) = with_parent(parse(["-m", f"name={text},{text}2"])).overrides
    with composition([swept.replace("name=", "tracker.tags=[", 1) + "]"]) as cfg:
        assert next(iter(cfg.tracker.tags)) == plain
    for setting in ("tracker.tags", "rank.beside"):
        with composition(with_parent(parse([f"{setting}=[{text},x]"])).overrides) as cfg:
            assert list(OmegaConf.select(cfg, setting)) == [plain, "x"]


def test_what_is_no_text_stays_as_it_was():
    words = ["search.lr=1e-3", "search.epochs=1_0", "learner.lr=1e-3", "data.augment.flip=true"]
    words += ["budget.params=1e6", "study.published=null", "study.methods=[darts,spos]", "jobs=2"]
    words += ["sampler=softmax", "space.search.channels=8", "name=${method}-x", "tracker.tags=[a]"]
    assert with_parent(parse(words)).overrides == words


FOLDERS = ["a${x}b", "${x}", "a\\'b", "a'b", 'a"b', "a\\", "a\\\\b", "a,b", "[x]", "a b", "a=b"]
FOLDERS += ["null", "1e3", "2024_01_15", "{x}", "$x", "\\${x}", "\\\\${x}", "a#b", "%(x)s", "é"]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_working_folder_may_have_any_name(name, tmp_path, monkeypatch):
    here = tmp_path / name
    here.mkdir()
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    seen = []

    def execute(line, config, folder, overrides):
        seen.append((folder, config, composed(overrides)))

    monkeypatch.setattr("supernet.cli.commands.execute", execute)
    with contextlib.chdir(here):
        line = prepared(with_parent(parse(["search", f"study.published={here}/x.npz"])))
        launch(line, lambda cfg: job(line, cfg))
    ((folder, config, again),) = seen
    assert folder.parents[2] == here and (folder / ".hydra" / "overrides.yaml").is_file()
    assert list(tmp_path.iterdir()) == [here]
    if "${" not in name:  # as it was typed, a reference is one
        assert config.study.published == again.study.published == f"{here}/x.npz"


@pytest.mark.parametrize("name", FOLDERS)
def test_settings_may_hold_what_looks_like_a_reference(name):
    tree = WHOLE | {"name": name, "rank": {"beside": [name]}}
    config = typed(Config, json.loads(json.dumps(tree)), "")
    assert (config.name, config.rank.beside) == (name, [name])
    tracker = {"_target_": "supernet.track.wandb.WandB", "project": name, "tags": [name]}
    built = build(tracker, "tracker")
    assert (built.project, built.tags) == (name, [name])


@pytest.mark.parametrize("setting", ["hydra.run.dir", "hydra.sweep.dir"])
@pytest.mark.parametrize("value", ["", "''", "' '", "/dev/null", "FILE", "FILE/x"])
def test_a_folder_for_the_run_must_be_one(setting, value, tmp_path):
    (tmp_path / "FILE").write_text("precious")
    words = ["search", f"{setting}={value}", *(["-m"] if "sweep" in setting else [])]
    with contextlib.chdir(tmp_path):
        assert setting[:9] in refused(lambda: prepared(with_parent(parse(words))))
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]
    assert (tmp_path / "FILE").read_text() == "precious"


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_value_that_was_forgotten_is_refused(setting):
    assert setting in refused(lambda: with_parent(parse([*SETTINGS[setting], f"{setting}="])))


# --- hints


def typo(name):
    """The name with two of its letters exchanged."""
    middle = len(name) // 2
    return name[: middle - 1] + name[middle] + name[middle - 1] + name[middle + 1 :]


KNOWN = sorted({one for one in known_keys([], Folders()) if not one.endswith("_target_")})


def message(words):
    return refused(lambda: composed(with_parent(parse(words)).overrides))


@pytest.mark.parametrize("setting", [one for one in KNOWN if typo(one.split(".")[-1])])
def test_a_typo_gets_a_hint_in_its_place(setting):
    place, _, name = setting.rpartition(".")
    if len(name) < 4 or typo(name) == name:
        pytest.skip("nothing is exchanged")
    wrong = f"{place}.{typo(name)}" if place else typo(name)
    assert f"did you mean {setting}?" in message([f"{wrong}=1"])


@pytest.mark.parametrize("group", ["searcher", "sampler", "learner", "tracker", "data"])
def test_a_setting_of_another_option_names_the_options_that_have_it(group):
    chosen = {"searcher": "logits", "sampler": "softmax", "learner": "fixed", "tracker": "none"}
    option = chosen.get(group, "digits")
    others = {}
    for where, other, node in nodes():
        if where.partition(".")[0] == group:
            for name in set(node) - {"_target_"}:
                others.setdefault(f"{where}.{name}", set()).add(other)
    with composition([f"{group}={option}"]) as cfg:
        missing = {key: have for key, have in others.items() if at(cfg, key) is None}
    assert missing
    for setting, have in missing.items():
        said = message([f"{group}={option}", f"{setting}=1"])
        assert said.endswith(f"these have it: {', '.join(sorted(have))}")


def at(cfg, name):
    node = cfg
    for step in name.split("."):
        node = None if node is None else node._get_node(step)
    return node


@pytest.mark.parametrize("name", sorted({one.rpartition(".")[2] for one in KNOWN if "." in one}))
def test_a_setting_in_the_wrong_place_is_named_with_its_place(name):
    if name in KNOWN or name in Folders().groups():
        pytest.skip("it has this place as well")
    said = message([f"{name}=1"])
    if "did you mean" in said:  # nothing that only looks like it
        meant = said.partition("did you mean ")[2].rstrip("?").split(" or ")
        assert all(one in KNOWN for one in meant)
        assert all(one.endswith(f".{name}") for one in meant) or meant[0][:3] == name[:3]
    else:
        assert "see supernet --cfg" in said


@pytest.mark.parametrize("word", ["zzz", "xyz.abc", "learning_rate", "foo.bar.baz", "qwerty"])
def test_what_is_like_nothing_gets_no_guess(word):
    assert "did you mean" not in message([f"{word}=1"])


@pytest.mark.parametrize("methods", [["foo"], ["darts", "foo"], ["Darts"], [""], ["darts.yaml"]])
@pytest.mark.parametrize("command", ["check", "study", "run"])
def test_a_method_of_a_study_is_one_that_there_is(command, methods):
    names = ",".join(f"'{name}'" for name in methods)
    said = message([command, f"study.methods=[{names}]"])
    assert "study.methods" in said and repr(methods[-1]) in said
    assert HydraConfig.instance().cfg is None or "hydra" in HydraConfig.instance().cfg
