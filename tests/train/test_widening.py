"""Partial channels that grow: a widened operation keeps its function, and the search continues
where it was.
"""

import pytest
import torch
from torch import nn

from supernet.errors import UserError
from supernet.learners.gradient import Gradient
from supernet.modifiers.pruning import Pruning
from supernet.ops import OPERATIONS
from supernet.samplers.drnas import DrNAS
from supernet.spaces.cells import Geometry, MixedCell
from supernet.spaces.darts import Darts
from supernet.spaces.nb201 import NB201
from supernet.train.widening import copies, sources_of, widen
from tests.commands import TINY, finished
from tests.compare import identical
from tests.train.stopping import stopped_and_resumed, straight

WIDTHS = [[0.0, 4], [0.5, 2]]
SPACES = {
    "nb201": lambda parts=2: NB201(Geometry(4, 1, parts), Geometry(4, 1)),
    "darts": lambda parts=2: Darts(Geometry(4, 3, parts), Geometry(4, 3), auxiliary=False),
}


def widened(name, narrow, wide, stride, affine, noise):
    """An operation with random weights, the wider one made from it, and the old channel of each
    channel that the wider one reads and writes.
    """
    old, new = (
        OPERATIONS[name](channels, stride, affine, True).double() for channels in (narrow, wide)
    )
    for key, value in old.state_dict().items():
        value.copy_(torch.rand(value.shape, generator=noise) + (0.5 if "var" in key else 0.0))
    sources = sources_of(old, new, noise.clone_state())
    holder, wider = nn.ModuleDict({"one": old}), nn.ModuleDict({"one": new})
    widen(holder, wider, ["one"], torch.optim.SGD([nn.Parameter(torch.zeros(1))]), noise)
    first, *_, last = sources.values() if sources else [None, None]
    return (
        old,
        new,
        first and (first.columns.of if first.columns else first.rows),
        last and last.rows,
    )


@pytest.mark.parametrize(("stride", "affine"), [(1, False), (2, True)])
@pytest.mark.parametrize(("narrow", "wide"), [(1, 2), (4, 6)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_on_copied_channels_a_wider_operation_gives_copies_of_what_it_gave(
    name, narrow, wide, stride, affine, noise
):
    """This holds in evaluation and in training, where BatchNorm uses the statistics of the batch.
    Every operation is a chain of these layers.
    """
    if (name, stride, narrow) == ("skip_connect", 2, 1):
        pytest.skip("a strided skip has two halves, and no space one of a single channel")
    old, new, read, written = widened(name, narrow, wide, stride, affine, noise)
    images = torch.randn(3, narrow, 7, 7, generator=noise, dtype=torch.float64)
    if read is None:
        assert (name, stride) == ("skip_connect", 1)  # nothing to learn
        return
    assert len(read) == len(written) == wide and read[:narrow].tolist() == list(range(narrow))
    assert set(written.tolist()) == set(range(narrow))
    for mode in (False, True):
        with torch.no_grad():
            before, after = old.train(mode)(images), new.train(mode)(images[:, read])
        assert before.std() > 1e-3
        torch.testing.assert_close(after, before[:, written], rtol=0, atol=1e-9)


def test_shares_add_up_to_one_and_none_is_small(noise):
    of, shares = copies(3, 8, noise)
    assert of[:3].tolist() == [0, 1, 2] and of.max() < 3
    torch.testing.assert_close(
        torch.zeros(3).double().index_add(0, of, shares), torch.ones(3).double()
    )
    of, shares = copies(1, 2, noise)
    assert shares.min() > 0.25
    assert torch.equal(copies(4, 4, noise).shares, torch.ones(4).double())


def test_copies_inside_an_operation_do_not_stay_copies(noise):
    """With equal shares, the two depthwise kernels that read copies would always get the same
    gradient.
    """
    _, new, _, _ = widened("sep_conv_3x3", 1, 2, 1, False, noise)
    kernels = new.body[4].weight
    assert torch.equal(kernels[0], kernels[1])
    outputs = new(torch.randn(8, 2, 7, 7, generator=noise, dtype=torch.float64))
    (outputs * torch.randn(outputs.shape, generator=noise)).sum().backward()
    assert (kernels.grad[0] - kernels.grad[1]).abs().max() > 1e-3 * kernels.grad.abs().max()


@pytest.mark.parametrize("name", SPACES)
def test_the_search_goes_on_with_wider_operations(name, search_stage, tmp_path):
    """Logits, their optimiser, pruned options, weights of the same shape, momentum and learning
    rate continue. A stopped search resumes.
    """

    def make(widths=WIDTHS, parts=2):
        settings = {"widths": widths, "modifiers": [Pruning([[0.5, 3]])]}
        return search_stage(SPACES[name](parts), DrNAS(), Gradient(lr=0.1), **settings)

    stage, plain = make(), make([], 4)
    assert parts_of(stage) == {4}
    for index in range(3):
        stage.step(index)
        plain.step(index)
    # until then it is the narrow supernet
    assert identical(stage.supernet.state_dict(), plain.supernet.state_dict())
    logits, old = {k: v.clone() for k, v in stage.detached_logits.items()}, stage.supernet
    momenta = {
        name: dict(stage.weights.optimizer.state[w])
        for name, w in old.named_parameters()
        if w in stage.weights.optimizer.state
    }
    stage.begin_next_phase()
    assert parts_of(stage) == {2} and identical(logits, stage.detached_logits)
    grown, state = 0, stage.supernet.state_dict()
    for key, value in old.state_dict().items():
        assert torch.equal(state[key], value) or ".edges." in key
        grown += state[key].shape != value.shape
    assert grown
    for key, weight in stage.supernet.named_parameters():
        assert (weight in stage.weights.optimizer.state) == (key in momenta)
        if key in momenta:
            momentum, before = (
                stage.weights.optimizer.state[weight]["momentum_buffer"],
                momenta[key]["momentum_buffer"],
            )
            assert momentum.shape == weight.shape and set(momentum.unique().tolist()) == set(
                before.unique().tolist()
            )

    stage = make()
    for index in range(stage.steps):
        figures = stage.step(index)
        if index > 2:
            plain.step(index)
            # there is one cosine for both phases
            assert (
                stage.weights.optimizer.param_groups[0]["lr"]
                == plain.weights.optimizer.param_groups[0]["lr"]
            )
        assert all(value.isfinite() for value in figures.values())
        assert parts_of(stage) == {4 if index < 3 else 2}
    relaxed = stage.sampler.relaxation(stage.logits, 0.9, torch.Generator())
    assert all(len(slot) == 3 for choice in relaxed.values() for slot in choice.active)
    assert all(
        a is b
        for a, b in zip(
            stage.weights.optimizer.param_groups[0]["params"],
            stage.supernet.parameters(),
            strict=True,
        )
    )
    assert parts_of(stage) == {stage.space.search.partial_channels}

    whole = make()
    rows = straight(whole)
    for at in (2, 3, 4) if name == "nb201" else (3,):
        resumed, resumed_rows = stopped_and_resumed(make, at, tmp_path / str(at))
        assert identical(whole.state_dict(), resumed.state_dict()) and resumed_rows == rows


def test_the_last_step_is_as_wide_as_the_space_says(search_stage):
    """This holds however late the widths begin, because later readers of the weights load them into
    the space's own supernet.
    """
    stage = search_stage(
        SPACES["nb201"](1), DrNAS(), Gradient(), widths=[[0.0, 4], [0.98, 2], [0.99, 1]]
    )
    for index in range(stage.steps):
        stage.step(index)
        assert parts_of(stage) == {1 if index == stage.steps - 1 else 4}


def parts_of(stage):
    return {module.divisor for module in stage.supernet.modules() if isinstance(module, MixedCell)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": [[0.1, 2]]}, r"search\.widths=.*: must begin at 0, with whole, falling K"),
        (
            {"widths": [[0.0, 2], [0.5, 4]]},
            r"search\.widths=.*: must begin at 0, with whole, falling K",
        ),
        (
            {"widths": [[0.0, 2.5], [0.5, 2]]},
            r"search\.widths=.*: must begin at 0, with whole, falling K",
        ),
        (
            {"widths": [[0.0, float("inf")], [0.5, 2]]},
            r"search\.widths=.*: must begin at 0, with whole, falling K",
        ),
        (
            {"widths": [[0.0, 2], [0.5, 2]]},
            r"search\.widths=.*: must begin at 0, with whole, falling K",
        ),
        ({"widths": [4, 2]}, r"search\.widths=.*: must be pairs"),
        (
            {"widths": [[0.0, 4], [0.5, 1]]},
            r"search\.widths: must end with the space's own space\.search\.partial_channels; ",
        ),
        (
            {"widths": [[0.0, 3], [0.5, 2]]},
            r"search\.widths: space\.search\.partial_channels=3: must divide .*channels=4",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line(search_stage, settings, message):
    with pytest.raises(UserError, match=message):
        search_stage(SPACES["nb201"](), DrNAS(), Gradient(), **settings)


def test_a_search_runs_without_the_modifiers_of_its_recipe(tmp_path):
    """Their settings remain from the recipe and are ignored."""
    finished("search", *TINY, "method=drnas", "modifier=[]", "search.epochs=1", cwd=tmp_path)


def test_the_recipe_runs_on_both_spaces_and_others_start_from_its_weights(tmp_path):
    """Its supernet ends with the width of the space. A search with widths cannot start from such
    weights, because it starts narrower.
    """
    finished("search", *TINY, "method=drnas", "space=darts", "search.epochs=2", cwd=tmp_path)
    parent = finished("search", *TINY, "method=drnas", "search.epochs=2", cwd=tmp_path)
    child = finished(
        "search",
        f"from={parent}",
        "method=gdas",
        "space.search.partial_channels=2",
        "search.epochs=1",
        cwd=tmp_path,
    )
    assert '"method": "drnas"' in (child / "results.json").read_text()
    anew = finished("search", f"from={child}", "method=drnas", "search.epochs=1", cwd=tmp_path)
    assert '"warm_start": null' in (anew / "results.json").read_text()
