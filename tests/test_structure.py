"""The shape of the project: which part may import which, which module alone may use a package, and
that every variant is complete.
"""

import ast
import builtins
import hashlib
import importlib
import inspect
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest
import yaml

import supernet
from supernet.cli.composition import composed
from supernet.cli.jobs import each
from supernet.cli.line import parse
from supernet.cli.messages import WHOLE
from supernet.config import SEVERAL, build
from supernet.guards.guard import Guard
from supernet.instruments.instrument import Instrument
from supernet.learners.learner import Learner
from supernet.modifiers.modifier import Modifier
from supernet.runs.fidelity import fidelity
from supernet.runs.setup import Setup
from supernet.samplers.sampler import Sampler
from supernet.searchers.searcher import Searcher
from supernet.spaces.space import Space
from supernet.track.interface import Tracker
from tests import variants
from tests.commands import ROOT

# Part of the package -> parts that it may import. A part may also import itself. A part imports
# only parts that are listed above it.
ALLOWED = {
    "errors": set(),
    "ops": set(),
    "device": {"errors"},
    "randomness": {"device"},
    "files": {"errors"},
    "shapes": {"errors", "files"},
    "mixture": {"errors"},
    "task": set(),
    "processes": set(),
    "data": {"errors", "files", "processes", "task"},
    "track": {"errors", "files", "shapes"},
    "report": {"errors", "files", "shapes", "track"},
    "spaces": {"errors", "files", "mixture", "ops", "task"},
    "cost": {"errors", "files", "device", "randomness", "mixture", "ops", "spaces", "task"},
    "samplers": {"errors", "mixture", "randomness", "spaces", "cost"},
    "learners": {"errors", "mixture", "randomness", "samplers"},
    "modifiers": {"errors", "mixture", "randomness", "spaces", "cost", "samplers"},
    "evaluate": {"errors", "files", "mixture", "task"},
    "instruments": {"errors", "mixture", "spaces", "cost", "learners", "evaluate"},
    "guards": {"errors", "mixture", "spaces", "instruments"},
    "searchers": {"errors", "mixture", "spaces", "cost", "evaluate"},
    "export": {"errors", "files", "mixture", "shapes", "spaces", "task"},
    "train": {
        "errors",
        "evaluate",
        "files",
        "shapes",
        "device",
        "randomness",
        "task",
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
    "config": {"cost", "errors", "evaluate", "files", "train"},
}
for below in ALLOWED.values():
    if "errors" in below:  # whoever may refuse a setting may also declare its bounds
        below.add("bounds")
ALLOWED["bounds"] = {"errors"}
ALLOWED["environment"] = {"device", "ops"}
ALLOWED["named"] = {"files"}
ALLOWED["tricks"] = {"errors"}
ALLOWED["checklist"] = {"errors", "files", "named", "shapes", "tricks"}
PARTS = {"samplers", "learners", "modifiers", "guards", "instruments", "ops"}
ALLOWED["runs"] = set(ALLOWED) - PARTS - {"checklist", "tricks"}
ALLOWED["run"] = {"config", "environment", "errors", "files", "mixture", "report", "runs"}
ALLOWED["run"] |= {"checklist", "track", "train"}
ALLOWED["trial"] = {"config", "cost", "device", "randomness", "runs", "spaces"}
ALLOWED["study"] = {
    *("checklist", "config", "cost", "errors", "evaluate", "files", "mixture", "randomness"),
    *("report", "run", "runs", "searchers", "shapes", "track", "train", "tricks"),
}
ALLOWED["simulation"] = {
    *("checklist", "config", "cost", "environment", "errors", "evaluate", "files", "mixture"),
    *("randomness", "report", "runs", "searchers", "track", "train"),
}
ALLOWED["reproduce"] = {"errors", "files", "run", "runs"}
ALLOWED["cli"] = {
    *("checklist", "reproduce", "simulation"),
    *("config", "errors", "files", "named", "report", "run", "runs", "shapes", "study", "track"),
    "train",
}

ALONE = {  # package -> the only files that may import it
    "hydra": {
        f"cli/{name}.py"
        for name in ("composition", "jobs", "launch", "messages", "overrides", "texts", "trust")
    },
    "pydantic": {"shapes.py"},
    "yaml": {"shapes.py", "cli/recorded.py"},
    "wandb": {"track/wandb.py"},
    "rich": {
        *("track/console.py", "report/console.py", "report/reproduction.py", "report/summary.py"),
        "study/tables.py",
    },
    "filelock": {"runs/lock.py"},
    "optuna": {
        "searchers/through_optuna.py",
        "searchers/nsga2.py",
        "searchers/tpe.py",
        "searchers/gp.py",
    },
    "matplotlib": {"report/figures.py", "report/graph.py"},
    "jinja2": {"report/page.py"},
    "statsmodels": {"evaluate/statistics.py"},
    "markupsafe": {"report/figures.py"},
    "sklearn": {"data/sources.py", "searchers/predictor.py"},
    "onnxruntime": {"export/bundle.py"},
    "torch_pruning": {"spaces/converted/groups.py"},
    "tests": set(),
    "tools": set(),
}

PACKAGE = ROOT / "supernet"
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """Yields the full names of all modules that a file imports, at the top or later."""
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
    """No part imports, directly or through others, a part that imports it."""
    left = {name: set(below) for name, below in ALLOWED.items()}
    while free := [name for name, below in left.items() if not below & left.keys()]:
        for name in free:
            del left[name]
    assert not left


def test_operations_know_nothing_of_what_makes_them_fast():
    for path in (PACKAGE / "ops").glob("*.py"):
        assert not any(module.startswith("supernet.ops.fast") for module in imports(path)), path


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
NAMES = CELLS | {"spaces/growing/shortcuts.py"}  # who knows the names of operations


def test_only_the_spaces_of_cells_know_cells():
    """Other modules know of a space only what :class:`Space` and its capabilities say."""
    module = "supernet.spaces.cells"
    names = set(vars(importlib.import_module(module)))
    assert names > {"Cell", "MixedCell", "Geometry", "CellSpace"}
    found = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if any(name.startswith(module) for name in imports(path))
    }
    public = {"__init__.py"}  # which names everything that is public
    assert found == CELLS - {"spaces/cells.py"} | public


def test_only_the_spaces_of_cells_know_the_names_of_operations():
    """The names are searched as strings in the code. Matplotlib has a colour that is called
    ``none``.
    """
    spaces = [make() for make in variants.CELL_SPACES.values()]
    operations = {o for space in spaces for g in space.groups for o in g.options}
    assert operations > {"none", "skip_connect"}
    for path in FILES:
        name = str(path.relative_to(PACKAGE))
        if name in NAMES or name.startswith("ops/"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        known = words & operations - ({"none"} if name in ALONE["matplotlib"] else set())
        assert not known, f"{name} knows {sorted(known)}"


LATER = ("torch", "torchvision", "timm", "numpy", "scipy", "sklearn", "wandb", "optuna")
LATER += ("statsmodels", "pandas")
LATER += ("matplotlib", "onnx", "onnxruntime")  # with torch, what takes long to import


@pytest.mark.parametrize(
    ("words", "later"),
    [
        (["--version"], (*LATER, "hydra", "omegaconf")),
        (["--help"], (*LATER, "hydra", "omegaconf")),
        (["--cfg", "job", "method=drnas", "space=darts", "data=folder"], LATER),
        (["--cfg", "hydra"], LATER),
        # a wrong line is refused before what runs is imported
        (["serch"], LATER),
        (["search", "serch.epochs=1"], LATER),
        (["method=dart"], LATER),
        (["search.epochs=0"], LATER),
        (["search.epochs=many"], LATER),
        (["-m", "seed=-1"], LATER),
        (["--cfg", "job", "-m", "seed=1"], LATER),
        (["report", "from=missing"], LATER),
        # what runs needs torch, and nothing else of these before it is used
        (
            ["searcher=random", "searcher.candidates=0"],
            [n for n in LATER[1:] if n not in ("numpy", "scipy")],
        ),
    ],
    ids=" ".join,
)
def test_a_line_is_answered_without_what_it_does_not_need(words, later):
    """Torch takes seconds to import, and whoever asks for the help has to wait for it."""
    code = f"""
import sys, supernet.cli
try:
    supernet.cli.main({words!r})
except SystemExit:
    pass
print(*(name for name in {later!r} if name in sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    said, loaded = done.stdout.splitlines()[:-1], done.stdout.splitlines()[-1]
    assert (loaded, bool(said or done.stderr)) == ("", True)


# --- variants and their YAML

# the options space=module and space=timm need a model
MODEL = {"module": [f"space.model={ROOT / 'tests' / 'spaces' / 'net.py'}:Net"]}
MODEL["timm"] = MODEL["growing_module"] = ["space.model=resnet10t"]
OPTIONS = sorted(path for path in (ROOT / "conf").glob("*/*.yaml"))


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_option_composes_and_every_part_builds(path):
    group, needed = (
        path.parent.name,
        {
            "npz": ["data.source.path=x"],
            "folder": ["data.source.root=x"],
            "text": ["data.source.path=x"],
            **MODEL,
        },
    )
    chosen = [f"{group}={path.stem}", *needed.get(path.stem, [])]
    if group == "experiment":  # its own command says what it needs
        chosen = parse(shlex.split(commands_in(path)[0])[1:]).overrides
        assert f"experiment={path.stem}" in chosen
    tree = asdict(composed(chosen))
    parts = {group: tree[group]} if group in tree else {}
    if group in ("method", *WHOLE):
        assert group != "method" or tree["method"] == path.stem
        parts = {name: tree[name] for name in ("space", "sampler", "learner", "searcher")}
        for several in SEVERAL:
            parts |= several_of(tree, several)
    elif group in SEVERAL:
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


def commands_in(path):
    """The commands in the comments of a YAML file."""
    return re.findall(r"^# (supernet .*)$", path.read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize(
    "path", [p for p in OPTIONS if p.parent.name in WHOLE], ids=lambda path: path.stem
)
def test_the_commands_of_an_experiment_are_short_and_understood(path):
    """Every job of a sweep and every run of a study composes; of those that differ in their seed
    alone, the first is tried. ``from=`` is left out, because it needs a run.
    """
    for command in commands_in(path):
        assert len(command) <= 100
        line = parse([word for word in shlex.split(command)[1:] if not word.startswith("from=")])
        jobs = {tuple(o for o in job if not re.match(r"seed=\d+$", o)): job for job in each(line)}
        for job in jobs.values():
            composed(job)


@pytest.mark.parametrize(("experiment", "swept"), [("all_pairs", 8 + 10), ("policy_pairs", 10)])
def test_a_sweep_that_a_file_asks_for_is_checked_before_it_starts(experiment, swept):
    line = parse(["-m", f"experiment={experiment}", "debug=one_epoch"])
    found = {tuple(job) for job in each(line)}
    differing = {override for job in found for override in job} - set(line.overrides)
    assert len(differing) == swept
    alone = each(parse(["-m", f"experiment={experiment}", "searcher=tpe"]))  # the line comes first
    assert {override for job in alone for override in job if "searcher" in override} == {
        "searcher=tpe"
    }


@pytest.mark.parametrize("space", [path.stem for path in OPTIONS if path.parent.name == "space"])
def test_the_sizes_that_reports_compare_with_are_those_of_size_full(space):
    grows = space.startswith("growing")
    method = ["method=petridish"] if grows else []
    setup = Setup(composed(["size=full", *method, f"space={space}", *MODEL.get(space, [])]))
    if space in variants.CELL_SPACES:
        own = {"search": setup.space.search, "evaluation": setup.space.evaluation}
        assert setup.space.paper == own
    for stage in ("search", "retrain")[grows:]:  # the epochs of growth are those of its paper
        assert {
            one["value"] - one["full"]
            for name, one in fidelity(setup, stage).items()
            if name != "image size"
        } == {0}


def several_of(tree, group):
    return {f"{group}.{name}": node for name, node in tree[group].items()}


@pytest.mark.parametrize("size", [path.stem for path in OPTIONS if path.parent.name == "size"])
@pytest.mark.parametrize("space", [path.stem for path in OPTIONS if path.parent.name == "space"])
def test_every_size_fits_every_space(size, space):
    chosen = [f"size={size}", f"space={space}", *MODEL.get(space, [])]
    if space.startswith("growing"):
        chosen.insert(0, "method=petridish")
    names = {"module": "Net", "timm": "resnet10t", "growing_module": "growing_resnet10t"}
    name = names.get(space, space)
    assert Setup(composed(chosen)).space.name == name


KINDS = {  # group -> base class, the list of the shared tests
    "space": (Space, variants.SPACES | variants.GROWING_SPACES),
    "sampler": (Sampler, variants.SAMPLERS),
    "learner": (Learner, variants.LEARNERS),
    "modifier": (Modifier, variants.MODIFIERS),
    "guard": (Guard, variants.GUARDS),
    "instrument": (Instrument, variants.INSTRUMENTS),
    "searcher": (Searcher, variants.SEARCHERS),
    "tracker": (Tracker, None),
}


def concrete(base):
    """Every class of the package that is a subclass of ``base`` and can be instantiated."""
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
        kinds -= {
            "supernet.runs.work.Rows",
            "supernet.track.jsonlines.JsonLines",
            "supernet.track.interface.Trackers",
        }
    if group == "sampler":  # what modifiers make of one, and what wrappers have in common
        kinds -= {"supernet.modifiers.modifier.Modified", "supernet.samplers.wrapper.Wrapper"}
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
    """Path -> text, for every file that git tracks. Tests with it are skipped if there is no
    checkout.
    """
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


# No file may name a package host, or an option that chooses one, because this would tie
# installations to it. The names are not written here either: each hash is the beginning of the
# sha256 of a name.
PACKAGE_HOSTS = {
    "03e390c8d8a6f2cf",
    "03eabd6c5c4ff24d",
    "19be01096aab533b",
    "26f0a392e6c86735",
    "51c6b9f69c48a75b",
    "8b5bb5eb9d758455",
    "9236dc66571fe8e9",
    "98dedaf133ecc5e2",
    "9b03cc7c69a854b6",
    "aebd7764c21d9350",
    "ba20768a02ee5327",
    "cd88a6fb14237c16",
    "ed6ac267f270ce92",
}


def hash_of(name):
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def words_with_a_hash_of(hashes, text):
    """The words of ``text`` whose hash is in ``hashes``, or that have a part whose hash is in it.

    The parts of ``files.host.example`` are its labels and the domains that contain it
    (``host.example``). Those of ``--where-from-url`` are ``where-from``, ``from-url`` and the
    whole. Case is ignored, and ``_`` is the same as ``-``.
    """

    def parts(word):
        labels = word.split(".")
        yield from labels
        yield from (".".join(labels[start:]) for start in range(len(labels)))
        for label in labels:
            pieces = label.split("-")
            for start in range(len(pieces)):
                yield from ("-".join(pieces[start:end]) for end in range(start + 2, start + 4))

    words = set(re.findall(r"[\w-]+(?:\.[\w-]+)*", text))
    spelt = {word: word.lower().replace("_", "-").strip("-") for word in words}
    return {
        word for word, name in spelt.items() if any(hash_of(part) in hashes for part in parts(name))
    }


def test_a_forbidden_name_is_found_in_whatever_holds_it():
    hashes = {hash_of("host.example"), hash_of("packages"), hash_of("where-from")}
    named = [
        "https://files.host.example/simple",
        "packages.mirror.example:8080/simple",
        "pip install --where-from=here",
        'UV_WHERE_FROM="here"',
        "extra-where-from-url = 1",
    ]
    for text in named:
        assert words_with_a_hash_of(hashes, text), text
    assert not words_with_a_hash_of(
        hashes, "from where? host, example, an example.host, from-where"
    )


def test_no_file_names_a_package_index(tracked):
    for name, text in tracked.items():
        assert not words_with_a_hash_of(PACKAGE_HOSTS, text), name
    assert not any(name.endswith(".lock") for name in tracked)  # a lock file names an index
    settings = tomllib.loads(tracked["pyproject.toml"])["tool"]["uv"]
    assert settings.keys() == {
        "compile-bytecode",
        "constraint-dependencies",
    }  # nor is there a table of indexes


def test_no_file_names_a_place_on_one_machine(tracked):
    places = re.compile(
        "|".join(f"/{root}/[a-z]" for root in ("home", "Users", "root", "work", "tmp", "mnt"))
    )
    for name, text in tracked.items():
        found = places.search(text)
        assert not found, f"{name}: {found and text[found.start() : found.start() + 60]}"


# --- what checks a change, here and elsewhere


def commands_of_ci():
    """Without the sign that a command runs in the background, and its comment."""
    line = r"^(?:pip install uv && )?uv run (.*?)(?: &(?:  #.*)?)?$"
    return re.findall(line, (ROOT / ".ci/run").read_text(), re.M)


def test_the_hooks_run_the_checks_of_ci():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    entries = [hook["entry"] for one in hooks["repos"] for hook in one["hooks"]]
    names = {" ".join(entry.removeprefix("uv run ").split()[:2]) for entry in entries}
    wanted = {command for command in commands_of_ci() if not command.startswith("pytest")}
    assert {command.removesuffix(" --check") for command in wanted} == {
        name.partition(" --")[0] for name in names
    }
    assert {one["repo"] for one in hooks["repos"]} == {"local"}


def test_the_workflow_runs_both_commands_of_the_readme_on_several_versions():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    lines = [step["run"] for step in job["steps"] if "run" in step]
    assert lines == [".ci/run", "pip install uv && uv run supernet"]
    assert "pytest" in commands_of_ci()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    said = " ".join(project["classifiers"])
    assert all(f":: Python :: {version}" in said for version in job["strategy"]["matrix"]["python"])
    assert project["requires-python"] == f">={job['strategy']['matrix']['python'][0]}"


# --- a folder is data, never code

# What can run code, load a library, or make objects from a file -> who uses it, and what guards it.
# A call is known by the last parts of its name.
DANGEROUS = {
    "torch.load": {
        "train/checkpoint.py": "weights_only=True: tensors and plain values; then a shape",
    },
    "torch.export.load": {
        "export/bundle.py": "the file that this process has written in the same function",
    },
    "np.load": {
        "files.py": "allow_pickle=False; then every array is checked",
        "data/sources.py": "the names of the arrays in a file that files.py has read",
    },
    "yaml.load": {"shapes.py": "a SafeLoader without tags that make objects and without aliases"},
    "OmegaConf.load": {
        "cli/composition.py": "an option of the package or of --config-dir; a safe loader",
    },
    "json.load": {"trial.py": "JSON is data; it comes from the process that started this one"},
    "json.loads": {
        "files.py": "JSON is data; its readers have shapes (supernet/shapes.py)",
        "mixture.py": "JSON is data; then checked as an architecture",
    },
    "load_file": {"export/bundle.py": "safetensors holds tensors only; its checksum is verified"},
    "InferenceSession": {"export/bundle.py": "the file that this process has just written"},
    "spec_from_file_location": {
        "spaces/declared/program.py": "the user's own file, space.model; cli/trust.py refuses one "
        "that only a folder names",
    },
    "exec": {
        "export/source.py": "network.py of an export: only if the caller says trust=True, or for "
        "the file that this process has just written",
    },
    "compile": {"export/source.py": "the same"},
    "import_module": {
        "config.py": "the class of a node; a recorded one is refused before (cli/trust.py)",
        "__init__.py": "the package's own modules, by the table MODULES",
    },
    "__import__": {"export/source.py": "what a network.py imports: torch and the standard library"},
    "CDLL": {
        "ops/fast/native.py": "a file of this user alone whose checksum is in its name (kept.py)",
        "device.py": "CDLL(None), this process itself",
    },
    "subprocess.run": {
        "environment.py": "git, for the number of the commit",
        "ops/fast/native.py": "the compiler that is found in PATH, for the sources of the package",
        "cost/memory.py": "this Python with supernet.trial, which gets checked settings",
    },
    "subprocess.Popen": {},
    "literal_eval": {
        "export/source.py": "constants in the package's own source",
        "spaces/darts.py": "lists and texts in the notation of a genotype",
    },
}
# Nobody may use these.
NEVER = {
    *("eval", "os.system", "pickle.load", "pickle.loads", "joblib.load", "torch.hub.load"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "hydra.utils.instantiate"),
    *("instantiate", "get_class", "get_method", "get_object", "locate", "run_path", "run_module"),
    *("dlopen", "LoadLibrary", "marshal.loads", "shelve.open"),
    *("torch.jit.load", "os.popen", "os.execv", "dill.load", "cloudpickle.load"),
}


@cache
def calls_in(path):
    """The full dotted name of everything that a file calls or refers to."""
    aliases, found = {}, set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {(a.asname or a.name): a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            aliases |= {(a.asname or a.name): f"{node.module}.{a.name}" for a in node.names}
    for node in ast.walk(tree):
        parts, inner = [], node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name) and (
            parts or isinstance(getattr(inner, "ctx", 0), ast.Load)
        ):
            found.add(".".join([aliases.get(inner.id, inner.id), *reversed(parts)]))
    return found


def is_use(name, dangerous):
    """Whether a full name means the ``dangerous`` function. Methods may have the name of a built-in
    function: ``network.eval()``, ``re.compile()``.
    """
    name = name.replace("numpy.", "np.")
    if hasattr(builtins, dangerous):
        return name in (dangerous, f"builtins.{dangerous}")
    return name == dangerous or name.endswith(f".{dangerous}")


@pytest.mark.parametrize("dangerous", sorted([*DANGEROUS, *NEVER]))
def test_what_can_run_code_is_used_in_its_place_alone(dangerous):
    """A new use needs a guard, and a line above that says which."""
    found = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if any(is_use(name, dangerous) for name in calls_in(path))
    }
    allowed = DANGEROUS.get(dangerous, {})
    assert found == set(allowed)
    assert all(len(guard) >= len("the same") for guard in allowed.values())


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import torch\ntorch.load(x)", "torch.load"),
        ("from torch import load as f\nf(x)", "torch.load"),
        ("import numpy as np\nread = np.load", "np.load"),
        ("import numpy\nnumpy.load(x)", "np.load"),
        ("from importlib import import_module\nimport_module(x)", "import_module"),
        ("import pickle as p\np.loads(x)", "pickle.loads"),
        ("eval(x)", "eval"),
        ("from hydra.utils import instantiate\nmap(instantiate, x)", "instantiate"),
    ],
)
def test_every_way_to_write_a_call_is_found(code, name, tmp_path):
    path = tmp_path / "some.py"
    path.write_text(code)
    assert any(is_use(one, name) for one in calls_in(path))
