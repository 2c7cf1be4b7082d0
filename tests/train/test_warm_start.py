"""Weights are taken over from an earlier network only for the same operation in the same place."""

import shutil

import numpy as np
import pytest
import torch

from supernet.errors import UserError
from supernet.mixture import Architecture
from supernet.runs.training import Train
from supernet.spaces.cells import Cell, Geometry
from supernet.spaces.darts import Darts
from supernet.spaces.nb201 import EDGES, NB201
from tests.compare import identical
from tests.tasks import task_of
from tests.variants import SPACES, TRAINED_SPACES

ONE = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_3x3~0|nor_conv_1x1~1|none~2|"
OTHER = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|none~0|nor_conv_1x1~1|nor_conv_3x3~2|"
SAME = {"from_0_to_1", "from_1_to_3"}  # the edges whose operation both have


def network(text, space=None, classes=3, form="evaluation"):
    space = space or SPACES["nb201"]()
    return space.standalone(space.decode(text), task_of(classes, 1), form)


def taken_over(state, of, new, text):
    """What the network ``new`` of the architecture ``text`` takes over from ``state``, a state of
    the architecture ``of``.
    """
    space = SPACES["nb201"]()
    return space.taken_over(state, space.decode(of), new, space.decode(text))


@pytest.fixture(params=TRAINED_SPACES)
def pair(request):
    """A space, an architecture, and two networks of it with different weights."""
    space = SPACES[request.param]()
    architecture = space.random(np.random.default_rng(0))
    return space, architecture, *(space.standalone(architecture, task_of(3, 1)) for _ in range(2))


def test_the_same_architecture_becomes_the_same_function(pair, noise):
    space, architecture, origin, new = pair
    images = torch.randn(4, 1, 8, 8, generator=noise)
    for _ in range(3):
        origin(images)  # moves the BatchNorm statistics
    origin.eval(), new.eval()
    with torch.no_grad():
        assert not torch.allclose(new(images), origin(images))
        shared = space.taken_over(origin.state_dict(), architecture, new, architecture)
        new.load_state_dict(shared, strict=False)
        assert shared.keys() == new.state_dict().keys()
        assert torch.equal(new(images), origin(images))


def test_shared_edges_are_equal_and_others_are_left_alone():
    origin, new = network(ONE), network(OTHER)
    fresh = {name: value.clone() for name, value in new.state_dict().items()}
    shared = taken_over(origin.state_dict(), ONE, new, OTHER)
    new.load_state_dict(shared, strict=False)
    theirs = origin.state_dict()
    for name, value in new.state_dict().items():
        edge = next((part for part in name.split(".") if part.startswith("from_")), None)
        if edge is None or edge in SAME:
            assert name in shared and torch.equal(value, theirs[name])
        else:
            assert name not in shared and torch.equal(value, fresh[name])
    # both convolutions have a BatchNorm with the same name and shape
    assert any("from_0_to_2" in name and name in theirs for name in fresh)


def test_what_has_another_shape_is_drawn_fresh():
    """A network of other classes shares all but the last layer. A network of twice the width shares
    nothing, which is no error.
    """
    origin, wide = network(ONE), NB201(Geometry(8, 1), Geometry(8, 1))
    shared = taken_over(origin.state_dict(), ONE, network(ONE, classes=5), ONE)
    assert origin.state_dict().keys() - shared.keys() == {"head.4.weight", "head.4.bias"}
    counters = taken_over(origin.state_dict(), ONE, network(ONE, wide), ONE)
    assert all(name.endswith(("num_batches_tracked", "head.4.bias")) for name in counters)


def test_operations_are_those_of_the_architecture():
    """This holds for every edge that has tensors, in each of the three cells."""
    space = SPACES["nb201"]()
    found = space.operations(network(ONE).state_dict(), space.decode(ONE))
    expected = {
        f"from_{s}_to_{t}": option
        for (s, t), option in zip(EDGES, space.decode(ONE)["edges"], strict=True)
        if option.startswith("nor_conv")
    }
    assert {name.split(".")[-2]: option for name, option in found.items()} == expected
    assert len(found) == 3 * len(expected)


@pytest.mark.parametrize(("before", "after"), [(5, 5), (5, 6), (6, 5)])
def test_the_cells_of_darts_read_their_own_group_at_any_depth(before, after):
    """In networks of 5 and of 6 cells, layer 2 has the same width, but is a reduction cell only in
    the second. The operations of the layers are compared, not their groups.
    """
    make = {depth: Darts(Geometry(4, depth), Geometry(4, depth)) for depth in (before, after)}
    rng = np.random.default_rng(0)
    for _ in range(4):
        one, other = make[before].random(rng), make[after].random(rng)
        old = make[before].standalone(one, task_of(3, 1))
        new = make[after].standalone(other, task_of(3, 1))
        shared = make[after].taken_over(old.state_dict(), one, new, other)
        ran = [
            {f"{n}.edges.{edge}.": o for n, c in cells(net) for edge, o in c.operations.items()}
            for net in (old, new)
        ]
        for name, value in new.state_dict().items():
            edge = next((edge for edge in ran[1] if name.startswith(edge)), None)
            theirs = old.state_dict().get(name)
            fits = theirs is not None and theirs.shape == value.shape
            same = edge is None or ran[0].get(edge) == ran[1][edge]
            assert (name in shared) == (fits and same), name


def cells(net):
    return [(name, module) for name, module in net.named_modules() if isinstance(module, Cell)]


# --- in a run

RETRAIN = {"epochs": 1, "batch_size": 8, "seeds": 1, "auxiliary_weight": 0.0, "ema_decay": 0.5}


def test_a_run_starts_from_another_runs_network_and_says_how_much_of_it(make_run, tmp_path):
    space, first, said = SPACES["nb201"](), tmp_path / "first", []
    make_run(space, folder=first, architecture=ONE, retrain=RETRAIN).retrain()
    settings = {
        "retrain": RETRAIN | {"seeds": 2, "warm_start": str(first)},
        "baseline": {"architectures": 1},
    }
    run = make_run(space, folder=tmp_path / "second", architecture=OTHER, **settings)
    run.progress.message = said.append
    trained, train = {}, run.work.train

    def watched(stage, rows=None):
        trained[stage.name] = {
            name: value.clone() for name, value in stage.network.state_dict().items()
        }
        # the average starts from the same weights
        assert identical(trained[stage.name], dict(stage.trained().state_dict()))
        return train(stage, rows)

    run.work.train = watched
    run.retrain()
    saved = torch.load(first / "checkpoints" / "retrain-0.pt")["state"]["average"]
    for name in ("stem.0.weight", "blocks.0.edges.from_0_to_1.body.0.weight", "head.4.weight"):
        assert torch.equal(trained["retrain/0"][name], saved[name]) and torch.equal(
            trained["retrain/1"][name], saved[name]
        )
        assert not torch.equal(trained["random/0"][name], saved[name])
    start = run.results()["retrain"]["warm_start"]
    new = network(OTHER)
    shared = taken_over(saved, ONE, new, OTHER)
    taken = sum(weight.numel() for name, weight in new.named_parameters() if name in shared)
    everything = sum(weight.numel() for weight in new.parameters())
    assert (
        start == {"from": str(first), "weights": taken, "of": everything} and 0 < taken < everything
    )
    assert f"retrain/0: {taken:,} of {everything:,} weights are taken over from {first}" in said
    # The key depends on the origin: another origin is another training. A finished training does
    # not need its origin any more.
    key = run.state.stages["retrain/0"]["key"]
    architecture = Architecture.from_dict(run.results()["architecture"])
    warm, scratch = (Train("retrain", 0, architecture, init) for init in ("warm", "scratch"))
    assert key == run.work.key(warm) != run.work.key(scratch)
    shutil.rmtree(first)
    again = make_run(space, folder=tmp_path / "second", architecture=OTHER, **settings)
    again.retrain()
    assert again.results()["retrain"] == run.results()["retrain"]
    more = settings | {"retrain": settings["retrain"] | {"seeds": 3}}
    with pytest.raises(UserError, match=r"retrain.warm_start=.*first: holds no retrained network"):
        make_run(space, folder=tmp_path / "third", architecture=OTHER, **more)


def test_an_origin_that_is_lost_before_it_was_needed_is_named(make_run, tmp_path):
    space, first = SPACES["nb201"](), tmp_path / "first"
    make_run(space, folder=first, architecture=ONE, retrain=RETRAIN).retrain()
    run = make_run(
        space,
        folder=tmp_path / "second",
        architecture=OTHER,
        retrain=RETRAIN | {"warm_start": str(first)},
    )
    shutil.rmtree(first)
    with pytest.raises(
        UserError, match=r"retrain.warm_start=.*: the network retrain/0 .* is gone; restore it"
    ):
        run.retrain()


def test_two_starts_are_refused(make_run, tmp_path):
    with pytest.raises(
        UserError, match=r"retrain.warm_start and retrain.init=inherit are two starts"
    ):
        make_run(
            SPACES["nb201"](), retrain=RETRAIN | {"warm_start": str(tmp_path), "init": "inherit"}
        )
