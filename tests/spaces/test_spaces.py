"""What every space must do: three forms of one network agree, notations round-trip, and a
derivation gives back an architecture.
"""

import copy
import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from supernet.errors import UserError
from supernet.mixture import Architecture, Choice, softmax_mixture
from tests.slopes import slope_and_difference
from tests.tasks import task_for, task_of
from tests.variants import ALL_SPACES, CELL_SPACES, GROWING_SPACES, SPACES

TASK = task_of(10, 3)


@pytest.fixture(params=ALL_SPACES)
def space(request):
    """Every space, also those outside the package."""
    return (ALL_SPACES | GROWING_SPACES)[request.param]()


# Marks a test that also holds for spaces whose architectures are no table of decisions.
also_growing = pytest.mark.parametrize("space", ALL_SPACES | GROWING_SPACES, indirect=True)


def one_hot(space, architecture) -> dict[str, torch.Tensor]:
    """The architecture as one table of zeros and ones for each group."""
    return {
        group.name: torch.tensor(
            [[float(o == chosen) for o in group.options] for chosen in architecture[group.name]]
        )
        for group in space.groups
    }


def worn(network: nn.Module, noise: torch.Generator) -> nn.Module:
    """The network in evaluation mode, with weights and BatchNorm statistics that differ from those
    of a fresh one.
    """
    for value in [
        *network.parameters(),
        *(b for n, b in network.named_buffers() if n.endswith("running_mean")),
    ]:
        value.data += 0.1 * torch.randn(value.shape, generator=noise)
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.data *= 0.5 + torch.rand(buffer.shape, generator=noise)
    return network.eval()


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal, up to 1e-5 of the largest output."""
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


@also_growing
def test_path_one_hot_mixture_and_standalone_agree(space, noise):
    """Invariant 1."""
    task = task_for(space)
    supernet = worn(space.supernet(task), noise)
    images = task.example(3, noise=noise)
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for _ in range(10):
            architecture = space.random(rng)
            standalone = space.inherit(supernet, architecture).eval()
            expected = standalone(images)
            dense = {
                name: Choice.dense(table) for name, table in one_hot(space, architecture).items()
            }
            assert_same(supernet(images, space.path(architecture)), expected)
            assert_same(supernet(images, dense), expected)


def test_a_path_computes_no_more_than_the_chosen_operations(space, noise):
    """No candidate is computed and multiplied by zero: a path costs what its network costs."""
    task = task_for(space)
    supernet, inputs = space.supernet(task), task.example(2, noise=noise)
    rng = np.random.default_rng(2)
    for _ in range(3):
        architecture = space.random(rng)
        standalone = space.inherit(supernet, architecture)
        path, alone = FlopCounterMode(display=False), FlopCounterMode(display=False)
        with path:
            supernet(inputs, space.path(architecture))
        with alone:
            standalone(inputs)
        assert path.get_total_flops() == alone.get_total_flops() > 0


def test_gradients_of_logits_are_slopes_of_the_loss(space, noise):
    """Central differences along a random direction, in float64."""
    task = task_for(space)
    with torch.random.fork_rng():
        # With seed 0, a ReLU of the space "elastic" has its kink between the two points: there a
        # step of 1e-7 finds the slope that the gradients say.
        torch.manual_seed(4)
        supernet = space.supernet(task).double().train()
    if task.dtype.is_floating_point:
        task = dataclasses.replace(task, dtype=torch.float64)
    inputs = task.example(4, noise=noise)
    logits = {
        g.name: torch.randn(g.shape, generator=noise, dtype=torch.float64) for g in space.groups
    }
    projection = torch.randn(4, *task.output_shape, generator=noise, dtype=torch.float64)
    slope, difference = slope_and_difference(
        lambda tables: (supernet(inputs, softmax_mixture(tables)) * projection).sum(),
        logits,
        noise,
        1e-6,
    )
    assert slope == pytest.approx(difference, rel=1e-5) and abs(slope) > 1e-3


def test_a_path_leaves_the_batchnorm_statistics_that_its_network_gets(space, noise):
    """One training step on the path, compared with the standalone network with the same weights."""
    task = task_for(space)
    supernet = worn(space.supernet(task), noise)
    architecture = space.random(np.random.default_rng(3))
    standalone = space.inherit(supernet, architecture)
    inputs = task.example(4, noise=noise)
    standalone.train()(inputs)
    supernet.train()(inputs, space.path(architecture))
    found = space.inherit(supernet, architecture).state_dict()
    for name, value in standalone.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


@also_growing
def test_the_canonical_architecture_is_one_of_the_space_and_its_own(space):
    rng = np.random.default_rng(9)
    for _ in range(20):
        found = space.canonical(space.random(rng))
        assert space.validate(found) == space.canonical(found)


@also_growing
def test_a_dense_mixture_sends_gradients_to_all_weights_and_logits(space, noise):
    task = task_for(space)
    supernet = space.supernet(task)
    logits = {g.name: torch.zeros(g.shape, requires_grad=True) for g in space.groups}
    # A cell must not be invariant to the loss: the supernet ends in a linear layer behind
    # BatchNorms.
    output = supernet(task.example(4, noise=noise), softmax_mixture(logits))
    (output * torch.randn(output.shape, generator=noise)).sum().backward()
    assert all(parameter.grad is not None for parameter in supernet.parameters())
    assert all((table.grad.abs().sum(dim=1) > 0).all() for table in logits.values())


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))],
    ids=["copy", "pickle"],
)
@also_growing
def test_a_supernet_that_has_run_can_be_copied(space, copied, noise):
    task = task_for(space, 3, 2)
    supernet = space.supernet(task)
    mixture = softmax_mixture({group.name: torch.zeros(group.shape) for group in space.groups})
    images = task.example(4, noise=noise)
    supernet(images, mixture)
    other = copied(supernet)
    expected = supernet(images, mixture)
    assert torch.equal(other(images, mixture), expected)
    other(images, mixture).sum().backward()
    assert all(p.grad is None for p in supernet.parameters())
    assert any(p.grad is not None for p in other.parameters())


@also_growing
def test_text_and_json_round_trip(space):
    """Invariant 6, notations."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        architecture = space.random(rng)
        assert space.decode(space.encode(architecture)) == architecture
        assert Architecture.from_json(architecture.to_json()) == architecture
        assert space.validate(architecture) == architecture


def test_deriving_from_one_hot_logits_gives_the_architecture_back(space):
    """Invariant 6, derivation."""
    rng = np.random.default_rng(4)
    for _ in range(50):
        architecture = space.random(rng)
        scores = {
            name: torch.softmax(5 * table, -1)
            for name, table in one_hot(space, architecture).items()
        }
        assert space.derive(scores) == architecture


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(list(ALL_SPACES)))
def test_whatever_is_derived_is_valid(seed, name):
    space, noise = ALL_SPACES[name](), torch.Generator().manual_seed(seed)
    space.validate(
        space.derive({g.name: torch.randn(g.shape, generator=noise) for g in space.groups})
    )


def test_random_architectures_are_uniform(space):
    """Every option is as frequent in each slot as symmetry demands. Chi-squared, at five standard
    deviations.
    """
    rng, draws = np.random.default_rng(5), 2000
    for group in space.groups:
        counts = np.zeros(group.shape)
        for _ in range(draws):
            for slot, option in enumerate(space.random(rng)[group.name]):
                counts[slot, group.options.index(option)] += 1
        for row in counts:
            # In DARTS, "none" (edges that are not kept) has a frequency of its own; the others are
            # equally frequent.
            rest = row[1:] if group.slots == 14 else row
            expected = rest.sum() / len(rest)
            statistic = ((rest - expected) ** 2 / expected).sum()
            freedom = len(rest) - 1
            assert statistic < freedom + 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: Architecture("other", a.choices), "space"),
        (lambda a: Architecture(a.space, a.choices[:-1]), "groups"),
        (
            lambda a: Architecture(
                a.space, ((a.choices[0][0], a.choices[0][1][:-1]), *a.choices[1:])
            ),
            "slots",
        ),
        (
            lambda a: Architecture(
                a.space, ((a.choices[0][0], ("convv", *a.choices[0][1][1:])), *a.choices[1:])
            ),
            "convv",
        ),
    ],
)
def test_a_foreign_architecture_is_refused_in_one_line(space, change, message):
    with pytest.raises(UserError, match=message) as error:
        space.validate(change(space.random(np.random.default_rng(6))))
    assert "\n" not in str(error.value)


@also_growing
def test_text_that_is_no_architecture_is_refused_in_one_line(space):
    for text in (
        "",
        "nonsense",
        "|||",
        "Genotype()",
        "Genotype(normal=3)",
        "+".join(["|none~0|"] * 3),
        "__import__('os')",
    ):
        with pytest.raises(UserError) as error:
            space.decode(text)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", CELL_SPACES)
def test_groups_say_rightly_what_their_options_are(name, noise):
    """Compared with the modules of a supernet. A skip is the identity if it keeps the size of its
    input. "nothing" has no module. A parameter-free option has no parameters in its module.
    """
    space, images = CELL_SPACES[name](), {}
    supernet = space.supernet(TASK, "evaluation").eval()
    places = space.candidates(supernet)
    for name in places:
        module = supernet.get_submodule(name)
        module.register_forward_hook(lambda _, given, out, n=name: images.update({n: (given, out)}))
    groups = {group.name: group for group in space.groups}
    supernet(
        torch.randn(1, 3, 8, 8, generator=noise),
        {name: Choice.dense(torch.ones(group.shape)) for name, group in groups.items()},
    )
    seen = {group: set() for group in groups}
    for name, (group, _, option) in places.items():
        option = groups[group].options[option]
        seen[group].add(option)
        if name not in images or images[name][0][0].shape != images[name][1].shape:
            continue  # a cell may rectify the input of a module itself; a stride of two reduces
        ((given,), out), parameters = images[name], list(supernet.get_submodule(name).parameters())
        assert torch.equal(given, out) == (option == groups[group].skip)
        assert (not parameters) == (option in groups[group].parameter_free)
    for name, group in groups.items():
        assert set(group.options) - seen[name] == {group.nothing}
        assert {group.skip, group.nothing} < set(group.parameter_free) < set(group.options)


def test_genes_are_independent_and_name_each_architecture_once(space):
    """Any combination of values is valid, and ``express`` and ``values`` are inverse. Random genes
    are random architectures.
    """
    rng = np.random.default_rng(7)
    for _ in range(50):
        values = [gene.values[rng.integers(len(gene.values))] for gene in space.genes]
        assert space.values(space.validate(space.express(values))) == values


def test_neighbours_and_mutations_differ_in_one_gene(space):
    rng = np.random.default_rng(8)
    architecture = space.random(rng)
    neighbours = space.neighbours(architecture)
    assert (
        len(set(neighbours)) == len(neighbours) == sum(len(gene.values) - 1 for gene in space.genes)
    )
    for other in [*neighbours, *(space.mutate(architecture, rng) for _ in range(50))]:
        space.validate(other)
        pairs = zip(space.values(architecture), space.values(other), strict=True)
        assert sum(a != b for a, b in pairs) == 1


def test_the_size_of_nb201_is_published():
    assert math.prod(len(gene.values) for gene in SPACES["nb201"]().genes) == 15625
