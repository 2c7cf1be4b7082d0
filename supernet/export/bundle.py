"""The exported folder. It is written, each form is compared with the original, and only then is the
folder put in place.

| file | what it holds | read by |
|---|---|---|
| ``architecture.json`` | the architecture, and what is needed to build the network | JSON readers |
| ``network.py`` | the source of the network, which imports torch only | Python |
| ``model.safetensors`` | the weights | safetensors |
| ``model.pt2`` | the network as a ``torch.export`` program | ``torch.export.load`` |
| ``model.onnx`` | the same as ONNX, input ``images``, output ``logits`` | onnxruntime and others |
| ``bundle.json`` | checksums, versions, and the difference of each form | JSON readers |

``model.pt2`` and ``model.onnx`` accept any batch size.
"""

import copy
import hashlib
import importlib.metadata
import io
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from supernet.errors import UserError
from supernet.export.assembled import Assembly
from supernet.export.source import About, laid_out, network_source, run_source
from supernet.files import atomic, write_json, write_text
from supernet.mixture import Architecture
from supernet.shapes import Bundle, read
from supernet.spaces.space import Space
from supernet.task import Task

SCHEMA = 1
# the largest allowed difference from the original, relative to the largest output, in float32
TOLERANCE = 1e-4
BATCHES = (1, 5)  # the batch sizes for which every form is compared
PACKAGES = ("supernet", "torch", "safetensors", "onnx", "onnxruntime")


def export_network(
    network: nn.Module,
    architecture: Architecture,
    space: Space,
    *,
    task: Task,
    folder: str | os.PathLike[str],
    metadata: dict[str, Any],
) -> dict[str, Any]:
    """Writes the standalone ``network`` of ``architecture`` into ``folder`` in every form. Returns
    the content of ``bundle.json``.

    Each form is loaded back from its file. In evaluation mode, it must return the output of the
    network, on batches of two sizes. Only then is the folder put in place. Until then, and if
    anything fails, an earlier export in this folder stays unchanged. Files in the folder that an
    export does not write are kept. An auxiliary head is left out.

    ``task`` is what the network was trained for. ``metadata`` holds JSON values. Of these, ``mean``
    and ``std`` normalise the images (per channel, of pixels from 0 to 1); without them they are 0
    and 1.

    Raises:
        UserError: the network's output is not finite, its source cannot be run alone, or the folder
            cannot be written.
        RuntimeError: a form differs from the network; the text names the form.
    """
    original = copy.deepcopy(network).cpu().eval()
    if isinstance(getattr(original, "auxiliary", None), nn.Module):
        original.auxiliary = None  # type: ignore[assignment]
    state = {
        k: v.contiguous().clone()  # two names of one tensor are two tensors in a file
        for k, v in original.state_dict().items()
        if not k.startswith("auxiliary.")
    }
    noise = torch.Generator().manual_seed(0)
    samples = [task.example(size, noise=noise) for size in BATCHES]
    with torch.no_grad():
        expected = [original(images) for images in samples]
    if not all(bool(output.isfinite().all()) for output in expected):
        raise UserError(
            "cannot export the network: its output is not finite; retrain it, with a lower lr or "
            "with clipping"
        )

    text = space.encode(architecture)
    channels = task.input_shape[0] if len(task.input_shape) == 3 else 0  # a text has none
    mean = list(metadata.get("mean", [0.0] * channels))
    std = list(metadata.get("std", [1.0] * channels))
    version = importlib.metadata.version("supernet")
    source, without = source_of(original, About(text, version, task, mean, std))
    description = architecture.to_dict() | {
        "text": text,
        "network": {"class": type(network).__name__, "settings": settings_of(network)},
        "classes": task.outputs,
        "input_shape": list(task.input_shape),
        "mean": mean,
        "std": std,
        "metadata": metadata,
    }

    with _replacing(Path(folder)) as new:
        write_json(new / "architecture.json", description)
        _write(new / "model.safetensors", safetensors.torch.save(state))
        plain, differences = original, dict[str, float]()
        if source:
            write_text(new / "network.py", source)
            try:
                plain, differences = _from_source(new, samples, expected)
            except (UserError, RuntimeError, TypeError, AttributeError) as error:
                if settings_of(network):
                    raise
                without = str(error).splitlines()[0]
                (new / "network.py").unlink()
        differences |= _write_forms(new, plain, samples, expected)
        bundle = {
            "schema": SCHEMA,
            "space": space.name,
            "architecture": text,
            "files": {path.name: _sha256(path) for path in sorted(new.iterdir())},
            "largest_relative_difference": differences,
            **({"no_network_py": without} if without else {}),
            "versions": {"python": platform.python_version()}
            | {name: importlib.metadata.version(name) for name in PACKAGES},
        }
        write_json(new / "bundle.json", bundle)
    return bundle


def source_of(network: nn.Module, about: About) -> tuple[str, str]:
    """The text of ``network.py``, and the reason why there is none.

    A network with an attribute ``settings`` is built by its class again. Any other network is
    assembled from its parts.

    Raises:
        UserError: the class of a network with settings cannot be copied.
    """
    if settings := settings_of(network):
        return network_source(type(network), settings, about), ""
    try:
        found = Assembly(network)
        return laid_out(found.definitions, "", found.kind, found.expression, about), ""
    except UserError as error:
        return "", str(error)


def _from_source(
    folder: Path, samples: list[Tensor], expected: list[Tensor]
) -> tuple[nn.Module, dict[str, float]]:
    """The network that the source and the weights give, and its difference from the ``expected``
    outputs of the samples.
    """
    try:
        plain = _rebuild(folder)
    except (NameError, ImportError, KeyError) as error:
        raise UserError(
            f"cannot export the network: its source does not stand alone ({error}); define "
            "what it uses at the top level of its modules"
        ) from error
    form = "network.py with model.safetensors"
    return plain, {"model.safetensors": _difference(form, plain, samples, expected)}


def _write_forms(
    folder: Path, plain: nn.Module, samples: list[Tensor], expected: list[Tensor]
) -> dict[str, float]:
    """Writes into ``folder`` the forms that are made from the network ``plain``. Returns the
    difference of each form from the ``expected`` outputs of the samples.
    """
    differences: dict[str, float] = {}
    program = torch.export.export(
        plain, (samples[-1],), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    _write(folder / "model.pt2", buffer.getvalue())
    loaded = torch.export.load(folder / "model.pt2").module()
    differences["model.pt2"] = _difference("model.pt2", loaded, samples, expected)

    onnx = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: "batch"},),
    )
    assert onnx is not None
    _write(folder / "model.onnx", onnx.model_proto.SerializeToString())
    differences["model.onnx"] = _difference(
        "model.onnx", _onnx(folder / "model.onnx"), samples, expected
    )
    return differences


def settings_of(network: nn.Module) -> dict[str, Any]:
    """The arguments that build the network again, without an auxiliary head. They are empty if the
    network has no dictionary of them as an attribute ``settings``.
    """
    settings = getattr(network, "settings", None)
    if not isinstance(settings, dict):
        return {}
    return {name: value for name, value in settings.items() if name != "auxiliary"}


def load_bundle(folder: str | os.PathLike[str], *, trust: bool = False) -> nn.Module:
    """The exported network with its weights, in evaluation mode, from ``network.py`` and
    ``model.safetensors``.

    ``network.py`` is a program. It is run only if ``trust`` says that the folder is trusted.

    Raises:
        UserError: the folder is not trusted, or a file is missing or is not the one that was
            exported.
    """
    folder = Path(folder)
    if not trust:
        raise UserError(
            f"{folder / 'network.py'} is a program, which may do anything; if you trust whoever "
            "made this folder, say trust=True"
        )
    bundle = _described(folder)
    files: dict[str, str] = bundle["files"]
    if why := bundle.get("no_network_py"):
        raise UserError(
            f"{folder} has no network.py ({why}); load model.pt2 by torch.export.load, or "
            "model.onnx"
        )
    for name in ("network.py", "model.safetensors"):
        path = folder / name
        if not path.is_file():
            raise UserError(f"no such file: {path}; export the network again")
        if _sha256(path) != files.get(name):
            raise UserError(
                f"{path} is not the file that was exported (its checksum differs); export the "
                "network again"
            )
    return _rebuild(folder)


def _described(folder: Path) -> dict[str, Any]:
    """The content of ``bundle.json``."""
    path = folder / "bundle.json"
    bundle = read(path, Bundle)
    if bundle["schema"] != SCHEMA:
        raise UserError(
            f"{path} does not describe an export of schema {SCHEMA}; export the network again"
        )
    return bundle


def _rebuild(folder: Path) -> nn.Module:
    network = run_source(folder / "network.py").network()
    try:
        network.load_state_dict(
            safetensors.torch.load_file(folder / "model.safetensors"), strict=True
        )
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{folder / 'model.safetensors'} does not fit network.py ({reason}); export the "
            "network again"
        ) from error
    return network.eval()


def _onnx(path: Path) -> Callable[[Tensor], Tensor]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def _difference(
    form: str, run: Callable[[Tensor], Tensor], samples: list[Tensor], expected: list[Tensor]
) -> float:
    """The largest difference of ``run`` from the expected outputs, relative to the largest expected
    output of the same batch.
    """
    found = []
    with torch.no_grad():
        for images, wanted in zip(samples, expected, strict=True):
            output = run(images)
            if output.shape != wanted.shape:
                raise RuntimeError(
                    f"export: {form} gives shape {tuple(output.shape)}, the network "
                    f"{tuple(wanted.shape)}"
                )
            scale = wanted.abs().max().clamp_min(torch.finfo(wanted.dtype).tiny)
            found.append(float((output - wanted).abs().max() / scale))
    # written so that a NaN is an error too
    if not all(difference <= TOLERANCE for difference in found):
        raise RuntimeError(
            f"export: {form} differs from the network by {max(found):.1e} of its output, above "
            f"{TOLERANCE:.0e}"
        )
    return max(found)


def _write(path: Path, content: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Yields a new folder beside ``folder``. When the block ends without an error, the new folder
    replaces ``folder``. If it raises, ``folder`` stays unchanged.

    Files of the old folder that the new one does not have are copied. After a stop at any moment,
    one of the two folders is complete. Between the two renames the old folder has another name;
    then the next export first renames it back.
    """
    folder = folder.resolve()
    new, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    try:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        for stale in (new, old):
            if stale.exists():
                shutil.rmtree(stale)
        new.mkdir(parents=True)
        yield new
        if folder.exists():
            for path in folder.iterdir():
                if not (new / path.name).exists():
                    (shutil.copytree if path.is_dir() else shutil.copy2)(path, new / path.name)
            os.replace(folder, old)
        os.replace(new, folder)
    except OSError as error:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}; free some space or choose another "
            "folder "
            "(what was there before is untouched)"
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
