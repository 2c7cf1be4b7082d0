"""Memory that is not there is one line that says what to change; limits of the process count."""

import contextlib
import resource
import sys

import numpy as np
import pytest
import torch

import supernet.device as device_module
from supernet.cli.composition import composed
from supernet.device import STATUS, available_memory_bytes, kibibytes, require_room
from supernet.errors import UserError, enough_memory
from supernet.runs.preflight import rehearse
from supernet.runs.search import require_room_for_search
from supernet.runs.setup import Setup
from tests.commands import TINY, supernet

CPU = torch.device("cpu")
NO_ROOM = r"^job: there is not enough memory"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="limits are read from /proc")
# what asks for more memory than there can be
ASKING = {
    "torch.empty": lambda: torch.empty(10**15),
    "torch.empty of more than can be counted": lambda: torch.empty(2**40, 2**40),
    "a convolution": lambda: torch.nn.Conv2d(10**7, 10**7, 3),
    "a tensor that grows": lambda: torch.ones(1000, 1).expand(1000, 10**13).contiguous(),
    "numpy.empty": lambda: np.empty(10**15),
    "numpy of more than can be counted": lambda: np.empty((2**40, 2**40)),
    "bytes": lambda: bytearray(2**62),
    "a list": lambda: [0] * 2**60,
    "concatenation": lambda: torch.cat([torch.ones(1).expand(10**14)] * 2),
}


@pytest.mark.parametrize("asking", ASKING)
def test_more_memory_than_there_is_is_one_line(asking):
    with (
        pytest.raises(UserError, match=NO_ROOM + r".*a smaller x\.y") as caught,
        enough_memory("job", "x.y"),
    ):
        ASKING[asking]()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [ValueError("wrong"), RuntimeError("shapes differ"), KeyError("a"), UserError("b")]
)
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as caught, enough_memory("job"):
        raise error
    assert caught.value is error


# a setting of a geometry that is too large, and the memory of the machine
SIZES = {
    "channels=16384": 16 * 2**30,  # the system may grant it, and kill the process later
    "cells=6": 2**16,
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("space", ["nb201", "darts"])
def test_networks_that_cannot_fit_are_refused_before_they_are_made(space, size, monkeypatch):
    monkeypatch.setattr(device_module, "available_memory_bytes", lambda device: SIZES[size])
    line = [*TINY, "tracker=none", f"space={space}", "method=spos"]
    search = Setup(composed([*line, f"space.search.{size}"]))
    with pytest.raises(UserError, match=r"^search.*not enough memory.*space\.search") as caught:
        require_room_for_search(search)
    assert "\n" not in str(caught.value)
    retraining = Setup(composed([*line, f"space.evaluation.{size}"]))
    with pytest.raises(UserError, match=r"^retrain.*not enough memory.*space\.evaluation"):
        rehearse(retraining)


@pytest.mark.parametrize("command", ["search", "check", "run"])
def test_every_command_says_it_in_one_line(command, tmp_path):
    line = [command, *TINY, "tracker=none", "space.search.channels=16384", "space.search.cells=99"]
    outcome = supernet(*line, cwd=tmp_path)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "not enough memory" in outcome.err and "space.search" in outcome.err


def test_images_that_cannot_fit_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(device_module, "available_memory_bytes", lambda device: 2**34)
    source = ["data=folder", f"data.source.root={tmp_path}", "data.source.size=8192"]
    setup = Setup(composed([*TINY, "tracker=none", *source]))
    with pytest.raises(UserError, match=r"^data.source.size=8192.*not enough memory"):
        _ = setup.data


@contextlib.contextmanager
def limited(limit, used, spare):
    """A limit of this process: what it uses now, and ``spare`` bytes."""
    before = resource.getrlimit(limit)
    resource.setrlimit(limit, (kibibytes(STATUS, used) + spare, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(limit, before)


@LINUX
@pytest.mark.parametrize("spare", [2**26, 2**28])
@pytest.mark.parametrize(("name", "used"), [("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")])
def test_the_limits_of_the_process_count(name, used, spare):
    held = kibibytes(STATUS, "VmRSS")
    with limited(getattr(resource, name), used, spare):
        available = available_memory_bytes(CPU)
        with pytest.raises(UserError, match=NO_ROOM):
            require_room("job", held + 2 * spare, CPU, "x")
        with pytest.raises(UserError, match=NO_ROOM), enough_memory("job", "x"):
            torch.empty(2 * spare, dtype=torch.uint8)
    assert available <= held + spare + 2**24
    assert available_memory_bytes(CPU) > available
