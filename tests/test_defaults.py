"""The YAML files in conf/ have the same values as the defaults of the dataclasses, so that a run
from Python and a run from the command line are the same.

The rule: a node with a ``_target_`` lists every setting of its class, with the default of the
class. A line with another value has a comment that begins with ``paper:`` or ``here:`` and gives
the reason. A line with such a comment must have another value. Settings without a default are not
compared. ``Augment`` is not compared either: its default is to do nothing, and each data set has
its own. The recipes (methods, sizes, experiments, debug) exist to differ from the defaults; only
``size=full`` must equal them.
"""

import dataclasses
import importlib
import re

import pytest
import yaml
from omegaconf import OmegaConf

from supernet.config import Config, DataSettings, build
from supernet.data import Augment
from tests.commands import ROOT

REASON = re.compile(r"#.*\b(paper|here):")
RECIPES = {"method", "size", "experiment", "debug"}
FILES = [p for p in sorted((ROOT / "conf").glob("*/*.yaml")) if p.parent.name not in RECIPES]


def defaults_of(kind):
    """Setting -> default, for the settings that have a default."""
    found = {}
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return {name: value for name, value in found.items() if value != "???"}


def class_of(target):
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def nodes_of(mapping, values, where=""):
    """The mappings with a ``_target_``, at any depth: path, values, and the line of each key."""
    lines = {key.value: key.start_mark.line for key, _ in mapping.value}
    if "_target_" in values:
        yield where, values, lines
    for key, value in mapping.value:
        if isinstance(value, yaml.MappingNode):
            yield from nodes_of(value, values[key.value], f"{where}{key.value}.")


def faults(text):
    """The violations of the rule in the YAML ``text``, one line for each."""
    lines = text.splitlines()
    values = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    for where, node, at in nodes_of(yaml.compose(text), values):
        kind = class_of(node["_target_"])
        if kind is Augment:
            continue
        for field in dataclasses.fields(kind):
            if field.name not in node:
                yield f"{where}{field.name}: is missing"
        yield from differences(where, node, defaults_of(kind), lines, at)


def with_objects(value):
    """A setting with a part in place of each node, as in the default of the ``phases``."""
    if isinstance(value, dict) and "_target_" in value:
        return build(value, "part")
    return [with_objects(one) for one in value] if isinstance(value, list) else value


def differences(where, node, defaults, lines, at):
    """Yields values that differ from the default without a reason, and reasons at values that do
    not differ.
    """
    for name in node.keys() & defaults.keys():
        reason = REASON.search(lines[at[name]])
        value = with_objects(node[name])
        if value != defaults[name] and not reason:
            yield f"{where}{name}: {value}, but by default {defaults[name]}; say why"
        if value == defaults[name] and reason:
            yield f"{where}{name}: is the default, and the comment says otherwise"


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_a_part_has_the_defaults_of_its_class(path):
    assert not list(faults(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("candidates: 7", "by default 100; say why"),
        ("candidates: 7   # here: a test", None),
        ("candidates: 100   # paper: a hundred", "the comment says otherwise"),
        ("# candidates: 100", "is missing"),
    ],
)
def test_the_rule_sees_what_is_against_it(line, fault):
    found = list(faults(f"_target_: supernet.searchers.random.Random\n{line}\n"))
    assert (fault is None and not found) or (len(found) == 1 and fault in found[0])


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.parent.name == "data"], ids=lambda p: p.stem
)
def test_a_data_set_is_used_by_default_as_its_settings_say(path):
    values = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert values.keys() == {field.name for field in dataclasses.fields(DataSettings)}
    defaults = defaults_of(DataSettings)
    assert {name: values[name] for name in defaults} == defaults


def test_the_full_size_is_the_defaults():
    text = (ROOT / "conf" / "size" / "full.yaml").read_text(encoding="utf-8")
    blocks, values = defaults_of(Config), OmegaConf.to_container(OmegaConf.create(text))
    for key, settings in yaml.compose(text).value:
        at = {setting.value: setting.start_mark.line for setting, _ in settings.value}
        defaults = dataclasses.asdict(blocks[key.value])
        assert values[key.value].keys() <= defaults.keys()
        assert not list(
            differences(f"{key.value}.", values[key.value], defaults, text.splitlines(), at)
        )
