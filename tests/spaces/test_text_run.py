"""Text from the command line: a search for a decoder, its export, and what does not go together."""

import ast
import random

import numpy as np
import onnxruntime
import pytest
import torch

from supernet.data import Text
from supernet.errors import UserError
from supernet.export import load_bundle, register_timm
from supernet.files import read_json
from tests.commands import finished, supernet

WORDS = ("the", "cat", "sat", "on", "a", "mat")
QUICK = ["size=tiny", "tracker=none", "retrain.seeds=1", "baseline.architectures=1"]
TEXT = ["data=text", "data.source.path=text.txt", "data.source.context=16"]


@pytest.fixture
def folder(tmp_path):
    words = random.Random(0).choices(WORDS, k=1500)
    (tmp_path / "text.txt").write_text(" ".join(words))
    return tmp_path


def test_a_decoder_is_found_and_exported(folder):
    """What a run reports is computed again by NumPy from what ONNX Runtime returns."""
    found = finished(
        *("space=gpt", "method=spos", "searcher=random", "retrain.epochs=12", *TEXT, *QUICK),
        cwd=folder,
    )
    data = Text(str(folder / "text.txt"), context=16).load()
    inputs, targets = next(data.test.stream(torch.arange(len(data.test)), len(data.test)))
    exported = load_bundle(found / "export", trust=True)
    with torch.no_grad():
        outputs = exported(inputs)
        # causal: what comes later changes nothing
        cut = exported(torch.cat((inputs[:, :8], torch.zeros_like(inputs[:, 8:])), 1))
    torch.testing.assert_close(cut[..., :8], outputs[..., :8])
    assert not torch.allclose(cut, outputs)
    session = onnxruntime.InferenceSession(found / "export" / "model.onnx")
    (onnx,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    truth = targets.numpy()
    row = read_json(found / "state.json")["stages"]["retrain/0"]["result"]
    accuracy = (onnx.argmax(1) == truth).mean()
    assert row["accuracy"] == pytest.approx(accuracy, rel=1e-5)
    assert accuracy > 1.5 * np.bincount(truth.ravel()).max() / truth.size  # than the commonest one
    chances = np.exp(onnx.astype(np.float64))
    chances = np.take_along_axis(chances, truth[:, None], 1)[:, 0] / chances.sum(1)
    assert row["loss"] == pytest.approx(-np.log(chances).mean(), rel=1e-4)
    about = read_json(found / "export" / "architecture.json")
    assert about["metadata"]["class_names"] == sorted(set((folder / "text.txt").read_text()))
    source = ast.parse((found / "export" / "network.py").read_text())
    modules = {n.module for n in ast.walk(source) if isinstance(n, ast.ImportFrom)}
    assert modules <= {"torch", "functools", "copy"}
    with pytest.raises(UserError, match="reads no images"):
        register_timm(found / "export", "decoder", trust=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["space=gpt"], "choose data=text"),
        (["space=nb201", *TEXT], "choose another space or other data"),
        (["space=gpt", *TEXT, "data.image_size=1"], "a text has no images"),
        (["space=gpt", *TEXT, "data.augment.cutout=0.3"], "data.augment.cutout: changes images"),
    ],
)
def test_what_does_not_go_together_is_one_line(words, said, folder):
    outcome = supernet("method=spos", *words, *QUICK, cwd=folder)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1) and said in outcome.err
