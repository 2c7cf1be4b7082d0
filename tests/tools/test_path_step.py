"""That the comparison of a path's step with its own network's compares the same step, and counts
what is allocated.
"""

import json
import sys

import numpy as np
import pytest
import torch

from tests.tasks import task_of
from tools import path_step

MIB = 2**20


def test_the_peak_is_what_lives_at_once():
    """One MiB that is let go, then three that live together: three is the most; what is there
    already does not count.
    """
    before = torch.ones(5 * MIB // 4)

    def step() -> None:
        torch.ones(MIB // 4)
        first, second = torch.ones(MIB // 4), torch.ones(2 * MIB // 4)
        before.add_(float(first[0] + second[0]))

    assert 3 * MIB <= path_step.peak_bytes(step) < 3.01 * MIB


def test_both_steps_are_the_same_and_leave_alone_what_is_not_on_the_path(space):
    """Weights that the path does not run keep their bits and get no momentum; the others move as
    the standalone network's do.
    """
    torch.manual_seed(0)
    images, labels = torch.randn(4, 1, 8, 8), torch.arange(4)
    architecture = space.random(np.random.default_rng(1))
    supernet = space.supernet(task_of(path_step.CLASSES, 1))
    standalone = space.inherit(supernet, architecture)
    before = {name: weight.detach().clone() for name, weight in supernet.named_parameters()}
    steps = [
        path_step.stepper(supernet, images, labels, space.path(architecture)),
        path_step.stepper(standalone, images, labels),
    ]
    for _ in range(2):
        torch.testing.assert_close(*(step() for step in steps))
    moved = [
        name
        for name, weight in supernet.named_parameters()
        if not torch.equal(weight, before[name])
    ]
    assert 0 < len(moved) <= len(list(standalone.parameters())) < len(before)
    inherited = dict(space.inherit(supernet, architecture).named_parameters())
    for name, weight in standalone.named_parameters():
        torch.testing.assert_close(inherited[name], weight, rtol=1e-4, atol=1e-6)


def test_it_prints_one_json_object(monkeypatch, capsys):
    small = [
        "--architectures",
        "2",
        "--rounds",
        "1",
        "--batch",
        "4",
        "--size",
        "8",
        "--channels",
        "4",
    ]
    monkeypatch.setattr(sys, "argv", ["path_step.py", "--json", *small])
    path_step.main()
    cases = json.loads(capsys.readouterr().out)["cases"]
    assert [(case["space"], len(case["each"])) for case in cases] == [("nb201", 2), ("darts", 2)]
    for case in cases:
        for ratio in ("time_ratio", "memory_ratio", "resident_ratio"):
            assert (
                case[ratio] == pytest.approx(np.median([one[ratio] for one in case["each"]]))
                and case[ratio] > 0
            )
        assert all(
            one["time_ratio"] == pytest.approx(one["path_ms"] / one["standalone_ms"])
            for one in case["each"]
        )
        assert case["resident_ratio"] > 1
