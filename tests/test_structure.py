"""The shape of the project: who may import whom, what each module alone knows, and that every
variant is complete.
"""

import ast
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore

import supernet
from supernet.cli import composed
from supernet.config import Config, build
from supernet.guards.guard import Guard
from supernet.learners.learner import Learner
from supernet.modifiers.modifier import Modifier
from supernet.run import Run
from supernet.samplers.sampler import Sampler
from supernet.searchers.searcher import Searcher
from supernet.spaces.space import Space
from supernet.track.interface import Tracker
from tests import variants
from tests.commands import ROOT

# Part of the package -> parts that it may import. A part may import itself; what stands lower may
# import only what stands higher.
ALLOWED = {
    "errors": set(),
    "ops": set(),
    "device": {"errors"},
    "randomness": {"device"},
    "files": {"errors"},
    "mixture": {"errors"},
    "task": set(),
    "data": {"errors", "task"},
    "track": {"errors", "files"},
    "report": {"errors", "files", "track"},
    "spaces": {"errors", "mixture", "ops", "task"},
    "cost": {"errors", "files", "device", "randomness", "mixture", "ops", "spaces", "task"},
    "samplers": {"errors", "mixture", "randomness", "spaces", "cost"},
    "learners": {"errors", "mixture", "randomness", "samplers"},
    "modifiers": {"errors", "mixture", "randomness", "spaces", "cost", "samplers"},
    "evaluate": {"errors", "mixture", "task"},
    "instruments": {"errors", "mixture", "spaces", "cost", "learners", "evaluate"},
    "guards": {"errors", "mixture", "spaces", "instruments"},
    "searchers": {"errors", "mixture", "spaces", "cost", "evaluate"},
    "export": {"errors", "files", "mixture", "spaces", "task"},
    "train": {
        "errors",
        "evaluate",
        "files",
        "device",
        "randomness",
        "mixture",
        "ops",
        "data",
        "track",
        "spaces",
        "cost",
        "samplers",
        "learners",
        "modifiers",
        "instruments",
        "guards",
    },
    "config": {"cost", "errors", "evaluate", "instruments", "train"},
}
ALLOWED["environment"] = {"device"}
ALLOWED["state"] = {"errors", "files"}
ALLOWED["run"] = set(ALLOWED) - {
    "samplers",
    "learners",
    "modifiers",
    "guards",
    "instruments",
    "ops",
}
ALLOWED["trial"] = {"config", "cost", "device", "run"}
ALLOWED["study"] = {
    "state",
    "config",
    "errors",
    "evaluate",
    "files",
    "mixture",
    "randomness",
    "run",
    "track",
    "train",
}
ALLOWED["rank"] = {"state", "errors", "evaluate", "mixture", "randomness", "run"}
ALLOWED["cli"] = {"config", "errors", "files", "rank", "report", "run", "study", "track", "train"}

ALONE = {  # package -> the only files that may import it
    "hydra": {"cli.py"},
    "wandb": {"track/wandb.py"},
    "rich": {"track/console.py", "report/summary.py", "study.py"},
    "optuna": {"searchers/through_optuna.py", "searchers/nsga2.py", "searchers/tpe.py"},
    "matplotlib": {"report/cell.py", "report/plots.py"},
    "sklearn": {"data/sources.py"},
    "onnxruntime": {"export/bundle.py"},
    "tests": set(),
    "tools": set(),
}

PACKAGE = ROOT / "supernet"
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """The full names of all modules that a file imports, at the top or later."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("name", sorted({part(path) for path in FILES} - {"__init__"}))
def test_imports_go_one_way(name):
    assert name in ALLOWED, "a new part of the package: say here what it may import"
    for path in FILES:
        if part(path) == name:
            used = {
                module.split(".")[1] for module in imports(path) if module.startswith("supernet.")
            } - {name}
            assert used <= ALLOWED[name], (
                f"{path.relative_to(ROOT)} imports {sorted(used - ALLOWED[name])}"
            )


def test_the_table_has_no_circle():
    """A part stands on parts whose own foundations do not hold it."""
    left = {name: set(below) for name, below in ALLOWED.items()}
    while free := [name for name, below in left.items() if not below & left.keys()]:
        for name in free:
            del left[name]
    assert not left


@pytest.mark.parametrize("package", ALONE)
def test_a_package_is_known_in_its_place_alone(package):
    found = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        for module in imports(path)
        if module.split(".")[0] == package
    }
    assert found == ALONE[package]


def test_only_the_device_module_names_an_accelerator():
    word = re.compile(r"\bcuda\b", re.IGNORECASE)
    found = [
        path.relative_to(PACKAGE) for path in FILES if word.search(path.read_text(encoding="utf-8"))
    ]
    assert found == [Path("device.py")]


CELLS = {"spaces/cells.py", "spaces/nb201.py", "spaces/darts.py"}  # who knows that there are cells


def test_only_the_spaces_of_cells_know_cells():
    """The others know no more of a space than what :class:`Space` and its capabilities say."""
    module = "supernet.spaces.cells"
    names = set(vars(importlib.import_module(module)))
    assert names > {"Cell", "MixedCell", "Geometry", "CellSpace"}
    found = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if any(name.startswith(module) for name in imports(path))
    }
    assert found == CELLS - {"spaces/cells.py"}


def test_only_the_spaces_of_cells_know_the_names_of_operations():
    """As strings in the code. Matplotlib has a word ``none`` of its own, for a colour."""
    operations = {o for make in variants.SPACES.values() for g in make().groups for o in g.options}
    assert operations > {"none", "skip_connect"}
    for path in FILES:
        name = str(path.relative_to(PACKAGE))
        if name in CELLS or name.startswith("ops/"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        known = words & operations - ({"none"} if name in ALONE["matplotlib"] else set())
        assert not known, f"{name} knows {sorted(known)}"


def test_the_package_starts_without_what_only_some_commands_need():
    """A person who mistypes a key waits for what is imported first."""
    heavy = (
        "wandb",
        "matplotlib",
        "onnxruntime",
        "onnx",
        "sklearn",
        "torchvision",
        "timm",
        "optuna",
    )
    code = f"import sys, supernet.cli; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# --- variants and their YAML

OPTIONS = sorted(path for path in (ROOT / "conf").glob("*/*.yaml"))


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_option_composes_and_every_part_builds(path):
    ConfigStore.instance().store("schema", Config)
    group, needed = (
        path.parent.name,
        {"npz": ["data.source.path=x"], "folder": ["data.source.root=x"]},
    )
    tree = asdict(composed([f"{group}={path.stem}", *needed.get(path.stem, [])]))
    parts = {group: tree[group]} if group in tree else {}
    if group == "method":
        assert tree["method"] == path.stem
        several = several_of(tree, "modifier") | several_of(tree, "guard")
        parts = {name: tree[name] for name in ("sampler", "learner", "searcher")} | several
    elif group in ("modifier", "guard"):
        assert list(tree[group]) == [path.stem]
        parts = several_of(tree, group)
    elif group == "data":
        assert tree["data"]["name"] == path.stem
        parts = {
            f"data.{name}": tree["data"][name] for name in ("source", "augment", "search_augment")
        }
    assert parts or group == "size"
    for name, node in parts.items():
        assert type(build(node, name)).__name__ == node["_target_"].rpartition(".")[2]


@pytest.mark.parametrize("space", [path.stem for path in OPTIONS if path.parent.name == "space"])
def test_the_sizes_that_reports_compare_with_are_those_of_size_full(space):
    ConfigStore.instance().store("schema", Config)
    run = Run(composed(["size=full", f"space={space}"]), Path(os.devnull))
    assert run.space.paper == {"search": run.space.search, "evaluation": run.space.evaluation}
    for stage in ("search", "retrain"):
        assert {
            one["value"] - one["full"]
            for name, one in run.fidelity(stage).items()
            if name != "image size"
        } == {0}


def several_of(tree, group):
    return {f"{group}.{name}": node for name, node in tree[group].items()}


@pytest.mark.parametrize("size", [path.stem for path in OPTIONS if path.parent.name == "size"])
@pytest.mark.parametrize("space", [path.stem for path in OPTIONS if path.parent.name == "space"])
def test_every_size_fits_every_space(size, space):
    ConfigStore.instance().store("schema", Config)
    assert Run(composed([f"size={size}", f"space={space}"]), Path(os.devnull)).space.name == space


KINDS = {  # group -> base class, the list of the shared tests
    "space": (Space, variants.SPACES),
    "sampler": (Sampler, variants.SAMPLERS),
    "learner": (Learner, variants.LEARNERS),
    "modifier": (Modifier, variants.MODIFIERS),
    "guard": (Guard, variants.GUARDS),
    "searcher": (Searcher, variants.SEARCHERS),
    "tracker": (Tracker, None),
}


def concrete(base):
    """Every class of the package that is a ``base`` and can be used as one."""
    found = set()
    for module in pkgutil.walk_packages(supernet.__path__, "supernet."):
        for value in vars(importlib.import_module(module.name)).values():
            if (
                inspect.isclass(value)
                and issubclass(value, base)
                and value is not base
                and not inspect.isabstract(value)
            ):
                found.add(value)
    return found


@pytest.mark.parametrize("group", KINDS)
def test_every_variant_has_its_yaml_and_its_line_in_the_shared_tests(group):
    base, listed = KINDS[group]
    kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in concrete(base)}
    if group == "tracker":  # two that are always there or put others together, and are not chosen
        kinds -= {"supernet.track.jsonlines.JsonLines", "supernet.track.interface.Trackers"}
    if group == "sampler":  # what modifiers make of one
        kinds -= {"supernet.modifiers.modifier.Modified"}
    targets = {
        re.search(r"^_target_: (\S+)", path.read_text(encoding="utf-8"), re.M).group(1)
        for path in (ROOT / "conf" / group).glob("*.yaml")
    }
    assert targets == kinds
    if listed is not None:
        assert {
            f"{type(make()).__module__}.{type(make()).__qualname__}" for make in listed.values()
        } == kinds


# --- what git holds


@pytest.fixture(scope="module")
def tracked():
    """Text of every file that git knows of, by its path; skipped where there is no checkout."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git checkout")
    names = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    return {name: (ROOT / name).read_text(encoding="utf-8", errors="replace") for name in names}


def test_the_top_level_is_short(tracked):
    allowed = {"pyproject.toml", "README.md", "LICENSE", "supernet", "conf", "tests", "tools"}
    top = {name.partition("/")[0] for name in tracked}
    assert {name for name in top if not name.startswith(".")} <= allowed
    assert {"pyproject.toml", "README.md", "supernet", "conf", "tests"} <= top


def test_no_file_names_a_package_index(tracked):
    hosts = [
        ".".join(parts)
        for parts in (("pypi", "org"), ("pythonhosted", "org"), ("download", "pytorch", "org"))
    ]
    settings = [
        "-".join(parts) for parts in (("index", "url"), ("extra", "index"), ("find", "links"))
    ]
    for name, text in tracked.items():
        assert not [word for word in hosts + settings if word in text], name
    assert not any(name.endswith(".lock") for name in tracked)


def test_no_file_names_a_place_on_one_machine(tracked):
    places = re.compile(
        "|".join(f"/{root}/[a-z]" for root in ("home", "Users", "root", "work", "tmp", "mnt"))
    )
    for name, text in tracked.items():
        found = places.search(text)
        assert not found, f"{name}: {found and text[found.start() : found.start() + 60]}"
