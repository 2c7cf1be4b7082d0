"""Streams: a name always gives the same sequence, whatever else draws and wherever a run was
stopped.
"""

import io

import numpy as np
import pytest
import torch

from supernet.randomness import Streams


def host(streams, name, count=5):
    return streams.host(name).integers(2**32, size=count).tolist()


def tensor(streams, name, count=5):
    return torch.rand(count, generator=streams.tensor(name)).tolist()


DRAWS = pytest.mark.parametrize("draw", [host, tensor])


@DRAWS
def test_a_name_gets_its_sequence_whatever_others_draw_before_and_between(draw):
    alone, among = Streams(7), Streams(7)
    expected = draw(alone, "a", 10)
    draw(among, "b"), host(among, "c"), tensor(among, "c")
    first = draw(among, "a")
    draw(among, "b"), host(among, "d"), tensor(among, "d")
    assert first + draw(among, "a") == expected


@DRAWS
def test_every_name_and_seed_has_its_own_sequence(draw):
    sequences = {
        tuple(draw(Streams(seed), name))
        for seed in range(20)
        for name in ("order", "order/weights", "paths", "")
    }
    assert len(sequences) == 80


@DRAWS
def test_a_scope_stands_before_every_name(draw):
    """A name in a scope is the same as the whole name without a scope. Initial weights are tested
    too.
    """
    assert draw(Streams(7, "supernet/1"), "order") == draw(Streams(7), "supernet/1/order")
    assert draw(Streams(7, "supernet/1"), "order") != draw(Streams(7, "supernet/2"), "order")
    weights = []
    for streams, name in ((Streams(7, "a"), "b"), (Streams(7), "a/b"), (Streams(7), "b")):
        with streams.initialising(name):
            weights.append(torch.nn.Linear(3, 3).weight)
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@DRAWS
def test_restarted_streams_are_at_their_beginning_and_leave_the_others_where_they_are(draw):
    streams = Streams(7, "a")
    first = draw(streams, "order")
    assert draw(streams.restarted(), "order") == first
    assert draw(streams, "order") != first


def test_seeds_are_numbers_of_any_size():
    assert host(Streams(2**63), "a") != host(Streams(2**64), "a")


def test_a_saved_state_goes_on_where_it_was():
    streams = Streams(3)
    host(streams, "a"), tensor(streams, "b@c"), tensor(streams, "a")
    file = io.BytesIO()
    torch.save(streams.state_dict(), file)
    expected = [draw(streams, name) for name in ("a", "b@c", "new") for draw in (host, tensor)]
    file.seek(0)
    restored = Streams(0, "another")
    held = restored.host("a")  # code that holds a generator keeps using the same object
    host(restored, "a", 2)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert restored.host("a") is held
    assert [
        draw(restored, name) for name in ("a", "b@c", "new") for draw in (host, tensor)
    ] == expected


def test_a_state_from_a_machine_with_other_devices_can_be_read():
    streams = Streams(3)
    streams.tensor("a")
    state = streams.state_dict()
    state["tensor"]["b@xla"] = state["tensor"]["a@cpu"]
    restored = Streams(0)
    restored.load_state_dict(state)
    assert tensor(restored, "a") == tensor(streams, "a")


def test_initial_weights_come_from_the_name_and_leave_torchs_generator_alone():
    before = torch.get_rng_state()
    weights = []
    for seed, name in ((1, "supernet"), (1, "supernet"), (1, "network"), (2, "supernet")):
        with Streams(seed).initialising(name):
            weights.append(torch.nn.Linear(3, 3).weight)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights[0], weights[1])
    assert not any(torch.equal(weights[0], other) for other in weights[2:])


def test_nothing_draws_from_the_global_generators():
    np.random.seed(0)
    torch.manual_seed(0)
    first = host(Streams(1), "a"), tensor(Streams(1), "a")
    np.random.seed(1)
    torch.manual_seed(1)
    assert (host(Streams(1), "a"), tensor(Streams(1), "a")) == first
