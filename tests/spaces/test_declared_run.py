"""Declared spaces from the command line: search, derivation, retraining, budgets, export, report. A
file that only a folder names is not run.
"""

import ast
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.metrics import jaccard_score

from supernet.cost.count import count
from supernet.cost.latency import read_table
from supernet.errors import UserError
from supernet.export import load_bundle
from supernet.files import read_json
from supernet.mixture import Architecture
from supernet.spaces.declared.space import Module
from supernet.spaces.nb_macro import NBMacro
from tests.commands import ROOT, TINY, finished, supernet
from tests.spaces.segmentation import Ink
from tests.tasks import task_of

FILE = Path(__file__).parent / "net.py"
PAGE = ROOT / "supernet" / "spaces" / "README.md"
EXAMPLE, _ = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
COMMAND, CHECK, _ = (
    shlex.split(line, comments=True)[1:]
    for line in re.findall(r"^supernet .*$", PAGE.read_text().replace("\\\n", ""), re.M)
)
TASK = task_of(10, 1)
QUICK = [*TINY, "tracker=none", "search.epochs=1", "retrain.epochs=1", "retrain.seeds=1"]
QUICK += ["baseline.architectures=1"]
EVOLUTION = ["searcher=evolution", "searcher.candidates=6", "searcher.population=3"]
RUNS = {  # settings, the text of the module, the same space
    "module": (COMMAND, EXAMPLE, lambda folder: Module(f"{folder}/my_net.py:Net")),
    "nb_macro": (
        [
            *("space=nb_macro", "method=spos", "retrain.init=inherit", "budget.madds=20_000"),
            *(*EVOLUTION, "searcher.sample=2"),
        ],
        "",
        lambda folder: NBMacro(stem=4, head=16, blocks=[1, 2]),
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_whole_run(name, tmp_path):
    """The exported network is the user's own source with the choices filled in. The module and its
    command are those of the page beside the code.
    """
    words, text, make = RUNS[name]
    (tmp_path / "my_net.py").write_text(text)
    folder = finished(*words, *QUICK, cwd=tmp_path)
    space = make(tmp_path)
    results, found = (read_json(folder / f"{n}.json") for n in ("results", "architecture"))
    architecture = space.validate(Architecture.from_dict(found))
    assert space.decode(found["text"]) == architecture
    cost = count(space.standalone(architecture, TASK), TASK)
    assert results["cost"].items() >= {"params": cost.params, "madds": cost.madds}.items()
    compared = [results["cost"], *results["random_baseline"]["architectures"]]
    if name == "module":
        table = read_table(folder / "latency.csv", space)
        assert table.of(architecture) <= 5
        (size, *_, latency), _ = space_lines(supernet(*CHECK, *TINY, cwd=tmp_path).out)
        assert size == f"space: Net, 7 decisions, {3 * 9 * 4 * 2 * 2:,} architectures"
        assert latency.startswith("latency of these networks")
    else:
        assert all(0 < one["madds"] <= 20_000 for one in compared)

    exported = load_bundle(folder / "export", trust=True)
    source = (folder / "export" / "network.py").read_text()
    modules = {n.module for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ImportFrom)}
    assert modules <= {"torch", "functools", "copy"}
    assert ("def forward" in source) and ("def __init__" not in source)
    plain = space.standalone(architecture, TASK)
    plain.load_state_dict(exported.state_dict(), strict=True)
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(folder / "export" / "model.onnx")
    (onnx,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = plain.eval()(images)
        assert torch.equal(exported(images), expected)
    torch.testing.assert_close(torch.from_numpy(onnx), expected, rtol=1e-4, atol=1e-5)
    assert found["text"] in (folder / "report.html").read_text(encoding="utf-8")
    if name == "module":
        a_file_is_not_run_that_a_folder_names(folder, tmp_path)


def space_lines(text):
    """The lines of a check about the space, and the others."""
    lines = text.splitlines()
    names = ("space: ", "parameters: ", "multiply-adds: ", "latency of ")
    about = [line for line in lines if line.startswith(names)]
    return about, [line for line in lines if line not in about]


def a_file_is_not_run_that_a_folder_names(folder, tmp_path):
    """Unless the user names the file or trusts the folder. A file that was changed is refused."""
    (tmp_path / "my_net.py").write_text("from pathlib import Path\nPath('MARK').touch()\nNet = 3\n")
    for command in ("retrain", "report", "search"):
        refused = supernet(command, f"from={folder}", cwd=tmp_path)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert "this is a program" in refused.err and "trust=true" in refused.err
        assert not (tmp_path / "MARK").exists()
    (tmp_path / "my_net.py").write_text(EXAMPLE)
    for anew in ("trust=true", "space.model=my_net.py:Net"):
        assert finished("retrain", f"from={folder}", anew, cwd=tmp_path) == folder
    (tmp_path / "my_net.py").write_text(EXAMPLE.replace("torch.relu", "torch.tanh"))
    changed = supernet("retrain", f"from={folder}", "trust=true", cwd=tmp_path)
    assert (changed.code, changed.err.count("\n")) == (2, 1)
    assert "my_net.py:Net: holds something else than when the run" in changed.err


def test_a_network_whose_source_cannot_be_written_is_exported_without_it(tmp_path):
    (tmp_path / "net.py").write_text(
        FILE.read_text()
        .replace("import torch\n", "import numpy as np\nimport torch\n", 1)
        .replace("return self.head(x)", "return self.head(x) * float(np.float32(2))")
    )
    words = ["space=module", "space.model=net.py:Net", "method=spos", "searcher=random"]
    folder = finished(*words, *QUICK, "searcher.candidates=1", cwd=tmp_path)
    bundle = read_json(folder / "export" / "bundle.json")
    assert set(bundle["files"]) == {
        *("architecture.json", "model.safetensors", "model.pt2", "model.onnx")
    }
    assert "imports numpy" in bundle["no_network_py"]
    with pytest.raises(UserError, match=r"has no network.py .*imports numpy"):
        load_bundle(folder / "export", trust=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["space.model=net.py"], "expected FILE.py:NAME"),
        (["space.model=nowhere.py:Net"], "cannot read it"),
        (["space.model=net.py:Nett"], "did you mean 'Net'"),
        (["space.model=broken.py:Net"], "the file cannot be run (ZeroDivisionError"),
        (["space.model=net.py:Net", "space.settings={width:3}"], "unexpected keyword argument"),
        (["space.model=net.py:Net", "guard=[oles]"], "does not hold each option as a module"),
        (["space.model=net.py:Net", "search.depths=[[0,0.5],[0.5,1]]"], "cannot change the size"),
        ([], "space.model"),
    ],
)
def test_a_mistake_is_one_line(words, said, tmp_path):
    shutil.copy(FILE, tmp_path)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    outcome = supernet(*QUICK, "method=darts", "space=module", *words, cwd=tmp_path)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1) and said in outcome.err
    assert not [name for name in sys.modules if name.startswith("broken_")]


def test_a_check_says_how_large_a_space_is_and_what_is_wrong_with_it(tmp_path):
    """The ends are those of all architectures, by brute force; the median is near that of all."""
    words = ["space=nb_macro", "space.blocks=[2]", "method=spos", *QUICK]
    lines = supernet("check", *words, cwd=tmp_path).out.splitlines()
    space = NBMacro(stem=4, head=16, blocks=[2])
    networks = [space.standalone(space.decode(f"{a}{b}"), TASK) for a in range(3) for b in range(3)]
    costs = [count(network, TASK) for network in networks]
    assert "space: nb_macro, 2 decisions, 9 architectures" in lines
    assert "choices: block × 2: identity, mb3_k3, mb6_k5" in lines
    for name, found in (
        ("parameters", sorted(cost.params for cost in costs)),
        ("multiply-adds", sorted(cost.madds for cost in costs)),
    ):
        (line,) = (line for line in lines if line.startswith(f"{name}: "))
        assert line.startswith(f"{name}: {found[0]:,} to {found[-1]:,}, median ")
        median = int(line.rpartition(" ")[2].replace(",", ""))
        assert found.index(median) in (3, 4, 5)
    assert any(line.startswith("latency of these networks, one input: ") for line in lines)

    text = FILE.read_text().replace(
        "self.head = elastic", "self.spare = nn.Linear(2, 2)\n        self.head = elastic"
    )
    (tmp_path / "net.py").write_text(text)
    for command in ("check", "run"):
        wrong = supernet(command, "space=module", "space.model=net.py:Net", *QUICK, cwd=tmp_path)
        assert (wrong.code, wrong.err.count("\n")) == (2, 1)
        assert "the weights of spare never get a gradient" in wrong.err


STILL = [
    f"data.{name}.{what}"
    for name in ("augment", "search_augment")
    for what in ("crop_padding=0", "flip=false")
]
OWN_TASK = [
    *("space=module", f"space.model={FILE.parent / 'segmentation.py'}:Net"),
    "data.source._target_=tests.spaces.segmentation.Ink",
    *("+data.task._target_=tests.spaces.segmentation.Overlap", "+data.task.ink=1.5"),
    *(*STILL, *QUICK, "retrain.epochs=10"),
]


def test_an_own_task_with_a_class_for_each_pixel(tmp_path):
    """What a run reports is recomputed from the exported network, by scikit-learn and NumPy."""
    folder = finished("method=spos", "searcher=random", *OWN_TASK, cwd=tmp_path)
    data = Ink().load()
    exported = load_bundle(folder / "export", trust=True)
    pixels = (data.test.pixels.float() / 255 - data.mean[:, None, None]) / data.std[:, None, None]
    with torch.no_grad():
        outputs = exported(pixels)
    assert outputs.shape == (len(data.test), 2, 8, 8)
    found, truth = outputs.argmax(1).numpy(), data.test.targets.numpy()
    overlaps = [jaccard_score(a.ravel(), b.ravel()) for a, b in zip(truth, found, strict=True)]
    row = read_json(folder / "state.json")["stages"]["retrain/0"]["result"]
    assert row["accuracy"] == pytest.approx(np.mean(overlaps), rel=1e-5) and row["accuracy"] > 0.5
    chances = np.exp(outputs.double().numpy())
    chances = np.take_along_axis(chances, truth[:, None], 1)[:, 0] / chances.sum(1)
    loss = -np.log(chances) * np.where(truth, 1.5, 1.0)
    assert row["loss"] == pytest.approx(loss.mean(), rel=1e-4)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert any("iou" in row for row in rows)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data.augment.flip=true", "moves images, but not the targets of their pixels"),
        ("data.image_size=4", "cannot be averaged down"),
        ("+data.task._target_=tests.spaces.segmentation.Ink", "is no Task"),
        ("+data.task.inc=2", "did you mean 'ink'"),
    ],
)
def test_a_mistake_in_an_own_task_is_one_line(word, said, tmp_path):
    kept = [one for one in OWN_TASK if one.partition("=")[0] != word.partition("=")[0]]
    outcome = supernet("method=spos", *kept, word, cwd=tmp_path)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1) and said in outcome.err
