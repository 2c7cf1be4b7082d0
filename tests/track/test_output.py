"""Output that cannot be written does not end a training."""

import io
import os

import pytest
from rich.table import Table

from supernet.track.console import Progress
from supernet.track.output import Output
from tests.commands import TINY, process

ENCODINGS = ["ascii", "latin-1", "cp1252", "cp437", "koi8-r", "shift_jis", "utf-8", "utf-16"]
TEXTS = ["95.00% ± 0.12", "8×8 pixels – 3…", "dossier/été/\N{SNOWMAN}/日本", "plain"]


def table():
    found = Table("method", "95% interval")
    found.add_row("darts", "–")
    found.add_row("spos", "1.00% to 2.00%\N{MULTIPLICATION SIGN}")
    return found


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_an_encoding_does_not_have_is_a_question_mark(encoding, text):
    raw = io.BytesIO()
    progress = Progress(file=io.TextIOWrapper(raw, encoding=encoding), every=0.0)
    progress.message(text)
    progress.message(table())
    with progress.stage("search/0", 2) as update:
        update(2, {"loss": 1.0})
    shown = raw.getvalue().decode(encoding).splitlines()
    assert shown[0] == text.encode(encoding, "replace").decode(encoding)
    assert shown[-1].startswith("search/0: step 2/2")


def reader_gone(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    return open(writing, "w")


def closed(tmp_path):
    file = open(tmp_path / "log", "w")  # noqa: SIM115
    file.close()
    return file


def full(tmp_path):
    return open("/dev/full", "w")


def closed_below(tmp_path):
    file = open(tmp_path / "log", "w")  # noqa: SIM115
    os.close(os.dup(file.fileno()))
    descriptor = os.open(tmp_path / "log", os.O_RDONLY)  # a descriptor that nothing can write to
    os.dup2(descriptor, file.fileno())
    os.close(descriptor)
    return file


BROKEN = {
    "the reader is gone": reader_gone,
    "closed": closed,
    "the disk is full": full,
    "only readable": closed_below,
}


@pytest.mark.parametrize("how", BROKEN)
def test_output_that_is_gone_is_said_once_and_the_work_goes_on(how, tmp_path, capsys):
    if how == "the disk is full" and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    file = BROKEN[how](tmp_path)
    progress = Progress(file=file, every=0.0)
    done = []
    for number in range(3):
        progress.message(f"line {number}")
        progress.message(table())
        with progress.stage("search/0", 2) as update:
            for step in (1, 2):
                update(step, {"loss": 1.0})
                done.append(step)
    assert done == [1, 2] * 3
    said = capsys.readouterr().err
    if how == "closed":  # from the start: whoever closed it knows
        assert said == ""
    else:
        assert said.count("\n") == 1 and "the output ends here" in said and "goes on" in said
    file.close()  # writes nothing more, and so does not fail


def test_a_run_whose_reader_goes_away_is_trained_to_its_end(tmp_path):
    """As in ``PYTHONIOENCODING=ascii supernet search ... | head -1``."""
    line = ["search", *TINY, "tracker=none", "search.supernets=1", "hydra.run.dir=\u00e9t\u00e9"]
    running = process(*line, cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"})
    with running:
        assert running.stdout.readline().endswith("?t?\n")
        running.stdout.close()
        said = running.stderr.read()
    assert running.returncode == 0
    assert "the output ends here" in said and said.count("\n") == 1
    assert "search/0" in (tmp_path / "\u00e9t\u00e9" / "state.json").read_text()


def test_no_output_at_all_is_no_error():
    output = Output(None)
    output.write("lost")
    output.flush()
    assert not output.isatty()
