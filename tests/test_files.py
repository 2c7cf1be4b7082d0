"""Atomic writes: a file is written completely or not at all."""

import json
import os

import pytest

from supernet.errors import UserError
from supernet.files import atomic, read_json, write_json, write_text
from tests.disk import small_disk


def test_what_is_written_is_read_back_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "folder" / "values.json"
    value = {"text": "Mischung α", "number": 0.1, "list": [1, None, True]}
    write_json(path, value)
    assert read_json(path) == json.loads(path.read_text(encoding="utf-8")) == value
    write_text(path, "[]")
    assert read_json(path) == [] and os.listdir(path.parent) == ["values.json"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_crash_while_writing_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(error), atomic(path) as temporary:
        temporary.write_text("half of the n")
        assert path.read_text() == "old"
        raise error
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_a_reader_never_meets_half_a_file(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with open(path) as reader:
        write_text(path, "new and longer")
        assert reader.read() == "old" and path.read_text() == "new and longer"


def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with (
        small_disk(1000),
        pytest.raises(
            UserError, match=r"cannot write .*file: File too large; free some space"
        ) as caught,
    ):
        write_text(path, "x" * 5000)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        write_text(tmp_path / "file" / "below", "text")


def test_values_that_are_no_json_never_reach_the_disk(tmp_path):
    path = tmp_path / "values.json"
    write_json(path, 1)
    with pytest.raises(ValueError):
        write_json(path, float("nan"))
    assert read_json(path) == 1


@pytest.mark.parametrize("content", [b"", b'{"half": ', b"\xff\xfe", None])
def test_a_file_that_is_missing_or_no_json_is_one_line_that_names_it(tmp_path, content):
    path = tmp_path / "values.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"values\.json") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)
