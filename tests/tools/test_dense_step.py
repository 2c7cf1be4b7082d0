"""That the comparison of a dense mixture's step with the largest network's compares like with like,
and prints what it promises.
"""

import json
import sys

import pytest

from supernet.spaces.nats_size import NATSSize
from tools import dense_step


def test_a_mixture_of_two_sizes_needs_the_memory_of_one_network_and_not_of_two():
    found = dense_step.compared(NATSSize([15, 16]), batch=64, pixels=16, rounds=1)
    assert found["memory_ratio"] == pytest.approx(1, abs=0.3)


def test_figures_of_each_space_that_is_asked_for(monkeypatch, capsys):
    words = ["dense_step", "--space", "nats_size", "--rounds", "1", "--batch", "2", "--size", "8"]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)
    dense_step.main()
    figures = json.loads(capsys.readouterr().out)
    assert figures.keys() == {"torch", "threads", "nats_size"}
    one = figures["nats_size"]
    assert one["time_ratio"] == one["dense_ms"] / one["largest_ms"]
    assert one["memory_ratio"] == one["dense_bytes"] / one["largest_bytes"]
