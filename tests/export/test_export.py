"""An export, compared with what reads it: an isolated Python, torch.export, onnxruntime, timm. The
folder survives failures.
"""

import ast
import copy
import errno
import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from torch import nn

from supernet.errors import UserError
from supernet.export import bundle, export_network, load_bundle, register_timm
from supernet.export.source import run_source
from supernet.mixture import Architecture
from supernet.spaces.cells import Geometry
from supernet.spaces.darts import Darts
from supernet.spaces.nb201 import NB201
from supernet.spaces.space import Space
from tests.tasks import task_of

TASK = task_of(10, 1)
SHAPE = (1, 8, 8)
METADATA = {"mean": [0.3], "std": [0.4], "data": "digits"}
NB201_SMALL = NB201(Geometry(4, 1), Geometry(4, 1))
DARTS_SMALL = Darts(Geometry(4, 2), Geometry(4, 2), auxiliary=True)
# name -> space, architecture (text, or the seed of a random one), weights: "trained" or "inherited"
# from a supernet
CASES = {
    "nb201": (NB201_SMALL, 0, "trained"),
    "nb201_none": (NB201_SMALL, "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", "trained"),
    "nb201_unreachable": (
        NB201_SMALL,
        "|none~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|avg_pool_3x3~2|",
        "inherited",
    ),
    "darts": (DARTS_SMALL, 2, "trained"),
    "darts_inherited": (DARTS_SMALL, 3, "inherited"),
}
# A machine that has only PyTorch and safetensors: other site packages and this project cannot be
# imported.
ISOLATED = """
import runpy, sys
from pathlib import Path

class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("supernet", "timm", "onnx"):
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
sys.path.append(sys.argv[1])
import torch
from safetensors.torch import load_file

for folder in map(Path, sys.argv[2:]):
    network = runpy.run_path(str(folder / "network.py"))["network"]()
    network.load_state_dict(load_file(folder / "model.safetensors"))
    with torch.no_grad():
        logits = network.eval()(torch.load(folder.parent / "images.pt"))
        torch.save(logits, folder.parent / "isolated.pt")
assert "supernet" not in sys.modules
"""


@dataclass
class Exported:
    network: nn.Module
    architecture: Architecture
    space: Space
    folder: Path
    bundle: dict
    images: torch.Tensor
    expected: torch.Tensor


def shake(module: nn.Module, seed: int) -> None:
    """Changes weights and BatchNorm statistics, so that they differ from every initialisation."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0, generator=noise)
            elif tensor.is_floating_point():
                tensor.add_(torch.empty_like(tensor).uniform_(-0.3, 0.3, generator=noise))


def make(name: str, folder: Path) -> Exported:
    space, text, weights = CASES[name]
    architecture = (
        space.decode(text) if isinstance(text, str) else space.random(np.random.default_rng(text))
    )
    images = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(9))
    if weights == "inherited":
        supernet = space.supernet(task_of(10, 1))
        shake(supernet, 7)
        network = space.inherit(supernet, architecture)
        run = supernet.eval(), space.path(architecture)
    else:
        network = space.standalone(architecture, task_of(10, 1))
        shake(network, 7)
        run = network.eval(), None
    with torch.no_grad():
        expected = run[0](images) if run[1] is None else run[0](images, run[1])
    network.train()  # as a training leaves it: the export must set the mode itself
    result = export_network(
        network, architecture, space, task=TASK, folder=folder, metadata=METADATA
    )
    return Exported(network, architecture, space, folder, result, images, expected)


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> dict[str, Exported]:
    """Every case is exported once. Its ``network.py`` runs in one process that does not know this
    project.
    """
    made = {name: make(name, tmp_path_factory.mktemp(name) / "export") for name in CASES}
    for export in made.values():
        torch.save(export.images, export.folder.parent / "images.pt")
    packages = str(Path(torch.__file__).parents[1])
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        ISOLATED,
        packages,
        *(str(export.folder) for export in made.values()),
    ]
    subprocess.run(command, check=True)
    return made


@pytest.fixture(params=CASES)
def exported(request, exports) -> Exported:
    return exports[request.param]


@pytest.fixture
def copied(exports, tmp_path) -> Exported:
    """A small export that the test may damage."""
    original = exports["nb201"]
    folder = shutil.copytree(original.folder, tmp_path / "run" / "export")
    return Exported(**{**vars(original), "folder": folder})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def again(export: Exported) -> dict:
    return export_network(
        export.network,
        export.architecture,
        export.space,
        task=TASK,
        folder=export.folder,
        metadata=METADATA,
    )


def test_every_form_gives_the_same_output(exported):
    """The original is the trained network, or, for inherited weights, the supernet on its path."""
    session = onnxruntime.InferenceSession(
        exported.folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    with torch.no_grad():
        forms = {
            "isolated": torch.load(exported.folder.parent / "isolated.pt"),
            "load_bundle": load_bundle(exported.folder, trust=True)(exported.images),
            "torch.export": torch.export.load(exported.folder / "model.pt2").module()(
                exported.images
            ),
            "onnx": torch.from_numpy(session.run(None, {"images": exported.images.numpy()})[0]),
        }
    assert float(exported.expected.std()) > 1e-3
    for form, output in forms.items():
        scale = exported.expected.abs().max()
        assert float((output - exported.expected).abs().max() / scale) < 1e-4, form
    assert exported.network.training  # unchanged


def test_onnx_takes_any_batch(exported):
    session = onnxruntime.InferenceSession(
        exported.folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    assert session.get_inputs()[0].shape == ["batch", *SHAPE] and session.get_outputs()[
        0
    ].shape == ["batch", 10]


def test_the_source_stands_alone(exported):
    source = (exported.folder / "network.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    ]
    assert {module.partition(".")[0] for module in modules} == {"torch"}
    header, _, rest = source.partition("\n")
    assert "supernet" in header and "supernet" not in rest.lower() and "mix" not in rest.lower()
    assert max(map(len, source.splitlines())) <= 132
    table = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "OPERATIONS"
    )
    chosen = {option for _, options in exported.architecture.choices for option in options}
    assert {key.value for key in table.keys} == chosen - {"none"}


def test_the_auxiliary_head_stays_behind(exports):
    export = exports["darts"]
    assert export.network.auxiliary is not None
    assert load_bundle(export.folder, trust=True).auxiliary is None
    keys = set(safetensors.torch.load_file(export.folder / "model.safetensors"))
    assert keys == {key for key in export.network.state_dict() if not key.startswith("auxiliary.")}


def test_the_description_suffices_to_build_the_network_again(exported):
    about = json.loads((exported.folder / "architecture.json").read_text())
    assert (
        Architecture.from_dict(about)
        == exported.architecture
        == exported.space.decode(about["text"])
    )
    assert (about["classes"], about["input_shape"], about["mean"], about["std"]) == (
        10,
        list(SHAPE),
        [0.3],
        [0.4],
    )
    assert about["metadata"] == METADATA
    network = type(exported.network)(**about["network"]["settings"])
    assert about["network"]["class"] == type(network).__name__
    network.load_state_dict(load_bundle(exported.folder, trust=True).state_dict())
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(exported.images), exported.expected)


def test_the_bundle_lists_what_is_there(exported):
    listed = json.loads((exported.folder / "bundle.json").read_text())
    assert listed == exported.bundle
    found = {
        name: hashlib.sha256(data).hexdigest()
        for name, data in contents(exported.folder).items()
        if name != "bundle.json"
    }
    assert listed["files"] == found
    assert set(listed["largest_relative_difference"]) == {
        "model.safetensors",
        "model.pt2",
        "model.onnx",
    }
    assert [
        path.name for path in exported.folder.parent.iterdir() if path.name.startswith(".")
    ] == []


@pytest.mark.parametrize("name", ["network.py", "model.safetensors", "bundle.json"])
def test_a_spoilt_or_missing_file_is_named(copied, name):
    path = copied.folder / name
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=name.replace(".", r"\.")) as error:
        load_bundle(copied.folder, trust=True)
    assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(UserError, match=f"no such file: .*{name}"):
        load_bundle(copied.folder, trust=True)


@pytest.mark.parametrize(
    "load", [load_bundle, lambda folder, **how: register_timm(folder, "untrusted", **how)]
)
@pytest.mark.parametrize("how", [{}, {"trust": False}])
def test_the_program_in_an_export_runs_only_if_it_is_trusted(load, how, copied, tmp_path):
    source = copied.folder / "network.py"
    source.write_text(f"open({str(tmp_path / 'MARK')!r}, 'w')\n" + source.read_text())
    with pytest.raises(UserError, match=r"network\.py is a program.*say trust=True"):
        load(copied.folder, **how)
    assert not (tmp_path / "MARK").exists()


def test_another_file_in_place_of_bundle_json_is_one_line(copied):
    (copied.folder / "bundle.json").write_text("[1, 2]")
    with pytest.raises(UserError, match=r"bundle\.json is damaged .*remove it"):
        load_bundle(copied.folder, trust=True)


def off_by_a_little(form):
    return lambda *given, **named: lambda images: form(*given, **named)(images) * 1.001


def test_weights_that_differ_are_named(copied, monkeypatch):
    before, save = contents(copied.folder), safetensors.torch.save
    monkeypatch.setattr(
        safetensors.torch, "save", lambda state: save({k: v * 1.01 for k, v in state.items()})
    )
    with pytest.raises(RuntimeError, match=r"model\.safetensors differs"):
        again(copied)
    assert contents(copied.folder) == before


def test_an_onnx_that_differs_is_named(copied, monkeypatch):
    before = contents(copied.folder)
    monkeypatch.setattr(bundle, "_onnx", off_by_a_little(bundle._onnx))
    with pytest.raises(RuntimeError, match=r"model\.onnx differs"):
        again(copied)
    assert contents(copied.folder) == before
    assert [path.name for path in copied.folder.parent.iterdir()] == ["export"]


def test_a_program_that_differs_is_named(copied, monkeypatch):
    before, export = contents(copied.folder), torch.export.export

    def spoil(network, *given, **named):
        network.head[-1].bias.data += 0.1
        return export(network, *given, **named)

    monkeypatch.setattr(torch.export, "export", spoil)
    with pytest.raises(RuntimeError, match=r"model\.pt2 differs"):
        again(copied)
    assert contents(copied.folder) == before


def test_a_network_of_nan_is_refused(copied):
    network = copy.deepcopy(copied.network)
    with torch.no_grad():
        network.head[-1].bias[0] = float("nan")
    before = contents(copied.folder)
    with pytest.raises(UserError, match="not finite"):
        export_network(
            network,
            copied.architecture,
            copied.space,
            task=TASK,
            folder=copied.folder,
            metadata=METADATA,
        )
    assert contents(copied.folder) == before


def test_a_full_disk_loses_nothing(copied, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = contents(copied.folder)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(UserError, match="No space left on device"):
            again(copied)
    assert contents(copied.folder) == before
    assert [path.name for path in copied.folder.parent.iterdir()] == ["export"]


def test_a_stop_between_the_two_renames_is_mended_by_the_next_export(copied, monkeypatch):
    before = contents(copied.folder)
    # what a kill at that moment leaves
    copied.folder.rename(copied.folder.with_name(".export.old"))
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: pytest.fail("stopped"))
    with pytest.raises(pytest.fail.Exception):
        again(copied)
    assert contents(copied.folder) == before


def test_exporting_again_replaces_its_files_and_keeps_others(copied):
    (copied.folder / "notes.txt").write_text("mine")
    (copied.folder / "network.py").write_text("spoilt")
    again(copied)
    assert (copied.folder / "notes.txt").read_text() == "mine"
    with torch.no_grad():
        torch.testing.assert_close(
            load_bundle(copied.folder, trust=True)(copied.images), copied.expected
        )


def test_source_that_imports_more_than_torch_is_refused(tmp_path):
    path = tmp_path / "network.py"
    path.write_text("import torch\nfrom supernet.ops import OPERATIONS\n")
    with pytest.raises(ImportError, match=r"network\.py imports supernet\.ops"):
        run_source(path)


def test_timm_creates_the_exported_network(copied):
    register_timm(copied.folder, "found_by_test_export", trust=True)
    assert timm.is_model("found_by_test_export") and "found_by_test_export" in timm.list_models(
        "found_*", pretrained=True
    )
    model = timm.create_model("found_by_test_export", num_classes=10)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(copied.images), copied.expected)
    data = timm.data.resolve_model_data_config(model)
    assert (data["input_size"], data["mean"], data["std"]) == (SHAPE, (0.3,), (0.4,))
    pixels = np.random.default_rng(0).integers(256, size=SHAPE[1:], dtype=np.uint8)
    prepared = timm.data.create_transform(**data)(Image.fromarray(pixels))
    np.testing.assert_allclose(
        prepared[0].numpy(), (pixels / 255 - 0.3) / 0.4, rtol=1e-5, atol=1e-6
    )
    assert timm.get_pretrained_cfg("found_by_test_export").num_classes == 10
    with pytest.raises(UserError, match="num_classes=7"):
        timm.create_model("found_by_test_export", num_classes=7)
