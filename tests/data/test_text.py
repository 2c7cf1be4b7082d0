"""Texts as data: what the tokens stand for, the windows, and what is no text."""

import numpy as np
import pytest
import torch

from supernet.data import Batches, Text
from supernet.errors import UserError
from supernet.task import NextToken

POEM = "Ein Häuschen – klein, fein.\n日本 🙂\n" * 20


@pytest.mark.parametrize("tokens", ["characters", "bytes"])
def test_windows_and_targets_are_the_text(tokens, tmp_path):
    """Each part is put together again from its windows; the targets are one token further."""
    (tmp_path / "poem.txt").write_bytes(POEM.encode())
    data = Text(str(tmp_path / "poem.txt"), tokens, context=7, test_share=0.25).load()
    whole = list(POEM) if tokens == "characters" else list(POEM.encode())
    first = round(0.75 * len(whole))
    for part, text in ((data.train, whole[:first]), (data.test, whole[first:])):
        found, targets = next(part.stream(torch.arange(len(part)), len(part)))
        assert found.dtype == targets.dtype == torch.int64 and found.shape[1] == 7
        names = np.array(data.class_names, dtype=object)
        used = len(part) * 7
        assert [*map(str, text[:used])] == names[found.flatten().numpy()].tolist()
        assert [*map(str, text[1 : used + 1])] == names[targets.flatten().numpy()].tolist()
        assert len(text) - 1 - used < 7
    assert data.task == NextToken((7,), len(set(whole)))
    assert sorted(data.class_names) == sorted(map(str, set(whole)))


def test_batches_of_tokens_are_the_windows_in_a_random_order(tmp_path):
    (tmp_path / "poem.txt").write_text(POEM, encoding="utf-8")
    data = Text(str(tmp_path / "poem.txt"), context=5).load()
    batches = Batches(
        *(data.train, torch.arange(len(data.train)), 4),
        **{"mean": data.mean, "std": data.std, "order": np.random.default_rng(0)},
        noise=torch.Generator(),
    )
    drawn = [next(batches) for _ in range(batches.steps_per_epoch)]
    found = torch.cat([inputs for inputs, _ in drawn])
    assert sorted(found.tolist()) != found.tolist()
    left = [row.tolist() for row in data.train.inputs]
    for row in found.tolist():
        left.remove(row)  # each window is drawn at most once
    assert len(left) == len(data.train) % 4
    for inputs, targets in drawn:
        assert torch.equal(inputs[:, 1:], targets[:, :-1])


def test_another_text_has_another_fingerprint(tmp_path):
    marks = set()
    for name, text in (("a", POEM), ("b", POEM), ("c", POEM[:-2] + "a\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        marks.add(Text(str(tmp_path / name), context=5).load().fingerprint)
    assert len(marks) == 2


@pytest.mark.parametrize(
    ("content", "settings", "said"),
    [
        (None, {}, "cannot read it"),
        (b"\xff\xfe" * 1000, {}, "not text in UTF-8 .byte 0."),
        (b"abc" * 20, {}, "too few for windows of 64"),
        (b"a" * 1000, {}, "1 differ, are too few"),
        (b"abc" * 1000, {"tokens": "character"}, "did you mean 'characters'"),
        (b"abc" * 1000, {"context": 0}, "must be at least 1"),
    ],
)
def test_what_is_no_text_is_one_line(content, settings, said, tmp_path):
    if content is not None:
        (tmp_path / "text").write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        Text(str(tmp_path / "text"), **settings).load()
    assert "\n" not in str(error.value)


def test_the_characters_of_shakespeare(shared):
    """The file of char-rnn has 1,115,394 characters, of which 65 differ."""
    path = shared / "tiny_shakespeare.txt"
    if not path.is_file():
        pytest.skip("no such text here")
    data = Text(str(path), context=256).load()
    assert data.task == NextToken((256,), 65)
    inputs, _ = next(data.train.stream(torch.arange(1), 1))
    text = "".join(data.class_names[token] for token in inputs[0].tolist())
    assert text.startswith("First Citizen:\nBefore we proceed any further, hear me speak.")
    windows = [(round(1_115_394 * share) - 1) // 256 for share in (0.9, 0.1)]
    assert [len(data.train), len(data.test)] == windows
