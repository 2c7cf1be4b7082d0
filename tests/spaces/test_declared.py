"""Declared choices: every elastic layer, and what they are combined into. Compared with torch's own
layers, with finite differences, and with brute force.
"""

import itertools
import math
import threading
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from supernet import Choose, Depth, OneOf, declared, elastic
from supernet.cost.budget import Budget
from supernet.cost.count import count
from supernet.errors import UserError
from supernet.export.bundle import source_of
from supernet.export.source import About, run_source
from supernet.mixture import Choice, softmax_mixture
from supernet.task import Classification
from tests.slopes import slope_and_difference
from tests.spaces.test_spaces import assert_same, one_hot, worn


@dataclass(frozen=True)
class Tokens(Classification):
    """Five kinds of tokens."""

    def example(self, batch, device="cpu", noise=None):
        shape = (batch, *self.input_shape)
        return torch.randint(5, shape, generator=noise, device=device)


IMAGES, SEQUENCE, TOKENS = (
    Classification((4, 6, 6), 3),
    Classification((4, 6), 3),
    Tokens((6,), 3, torch.int64),
)
WIDTH, OTHER = Choose("width", (4, 6, 8)), Choose("other", (2, 4))
KERNEL, GROUPS = Choose("kernel", (1, 3, 5)), Choose("groups", (1, 2, 4))
HEADS, HEAD = Choose("heads", (1, 2, 3)), Choose("head", (2, 4))


class Last(nn.Module):
    """Swaps the channels and the last axis."""

    def forward(self, x):
        return x.transpose(1, -1)


def conv(*args, **settings):
    return elastic.Conv2d(*args, padding="same", **settings)


class Scaled(nn.Module):
    """Its own forward reads numbers, and a text."""

    def __init__(self):
        super().__init__()
        self.scales = [Choose("a", (0.5, 2.0)), {"b": Choose("b", (1, 3))}]
        self.kind = Choose("kind", ("relu", "gelu"))
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        kind = getattr(F, self.kind())
        return kind(self.conv(x)) * self.scales[0]() + self.scales[1]["b"]()


class Block(nn.Module):
    def __init__(self, index):
        super().__init__()
        hidden = Choose(f"ratio{index}", (1, 1.5, 2)) * WIDTH
        self.grow = elastic.Conv2d(WIDTH, hidden, 1)
        self.norm = elastic.BatchNorm2d(hidden)
        self.mix = OneOf(
            f"mix{index}",
            {
                "conv": conv(hidden, hidden, Choose(f"kernel{index}", (1, 3)), groups=hidden),
                "pool": nn.AvgPool2d(3, 1, 1),
                "skip": nn.Identity(),
            },
        )
        self.shrink = elastic.Conv2d(hidden, WIDTH, 1)

    def forward(self, x):
        return x + self.shrink(self.mix(torch.sigmoid(self.norm(self.grow(x)))))


BUILT = {  # name -> the module, its task, and whether a path costs as many flops as its network
    "widths": (
        lambda: nn.Sequential(conv(4, WIDTH, 3), nn.Sigmoid(), conv(WIDTH, OTHER, 3)),
        IMAGES,
    ),
    "kernels": (lambda: nn.Sequential(conv(4, WIDTH, KERNEL, dilation=2, stride=2)), IMAGES),
    "transformed": (lambda: nn.Sequential(conv(4, WIDTH, KERNEL, transform=True)), IMAGES),
    "groups": (
        lambda: nn.Sequential(conv(4, WIDTH, 3), conv(WIDTH, WIDTH, KERNEL, groups=WIDTH // 2)),
        IMAGES,
    ),
    "depthwise": (
        lambda: nn.Sequential(conv(4, WIDTH, 3), conv(WIDTH, WIDTH, KERNEL, groups=WIDTH)),
        IMAGES,
    ),
    "chosen groups": (
        lambda: nn.Sequential(conv(4, 8, 1), conv(8, 8, 3, groups=GROUPS, bias=False)),
        IMAGES,
    ),
    "circular": (lambda: nn.Sequential(conv(4, WIDTH, KERNEL, padding_mode="circular")), IMAGES),
    "conv1d": (lambda: nn.Sequential(elastic.Conv1d(4, WIDTH, KERNEL, padding="same")), SEQUENCE),
    "transposed": (
        lambda: nn.Sequential(
            conv(4, WIDTH, 1), elastic.ConvTranspose2d(WIDTH, OTHER, KERNEL, 2, padding="same")
        ),
        IMAGES,
    ),
    "linear": (
        lambda: nn.Sequential(elastic.Linear(6, WIDTH), nn.Sigmoid(), elastic.Linear(WIDTH, OTHER)),
        SEQUENCE,
    ),
    "batchnorm1d": (
        lambda: nn.Sequential(elastic.Conv1d(4, WIDTH, 1), elastic.BatchNorm1d(WIDTH)),
        SEQUENCE,
    ),
    "batchnorm2d": (
        lambda: nn.Sequential(
            conv(4, WIDTH, 1), elastic.BatchNorm2d(WIDTH, momentum=None), conv(WIDTH, 3, 1)
        ),
        IMAGES,
    ),
    "bare batchnorm": (
        lambda: nn.Sequential(conv(4, WIDTH, 1), elastic.BatchNorm2d(WIDTH, affine=False)),
        IMAGES,
    ),
    "layernorm": (
        lambda: nn.Sequential(elastic.Linear(6, WIDTH), elastic.LayerNorm(WIDTH)),
        SEQUENCE,
    ),
    "groupnorm": (
        lambda: nn.Sequential(conv(4, WIDTH, 1), elastic.GroupNorm(WIDTH // 2, WIDTH)),
        IMAGES,
    ),
    "embedding": (
        lambda: nn.Sequential(elastic.Embedding(5, WIDTH), elastic.Linear(WIDTH, 3)),
        TOKENS,
    ),
    "attention": (
        lambda: nn.Sequential(
            elastic.Embedding(5, WIDTH),
            elastic.LayerNorm(WIDTH),
            elastic.MultiheadAttention(WIDTH, HEADS, HEAD, is_causal=True),
            elastic.Linear(WIDTH, 3),
        ),
        TOKENS,
    ),
    "expansion": (lambda: nn.Sequential(conv(4, OTHER * 2, 1), conv(OTHER * 2, 3, 1)), IMAGES),
    "what follows": (
        lambda: nn.Sequential(conv(4, WIDTH, 1), conv(8, 3, 1), elastic.BatchNorm2d(3)),
        IMAGES,
    ),
    "one of": (
        lambda: nn.Sequential(
            conv(4, WIDTH, 1),
            OneOf("op", {"conv": conv(WIDTH, WIDTH, KERNEL), "skip": nn.Identity()}),
            conv(WIDTH, 3, 1),
        ),
        IMAGES,
    ),
    "computed": (
        lambda: nn.Sequential(
            conv(4, WIDTH, 1),
            OneOf(
                WIDTH.same(OTHER),
                {"same": elastic.Identity(OTHER), "other": conv(WIDTH, OTHER, 3)},
            ),
            conv(OTHER, 3, 1),
        ),
        IMAGES,
    ),
    "depth": (
        lambda: nn.Sequential(
            conv(4, WIDTH, 1),
            Depth("depth", [conv(8, WIDTH, 3), conv(WIDTH, OTHER, 3)], least=0),
            conv(8, 3, 1),
        ),
        IMAGES,
    ),
    "all": (
        lambda: nn.Sequential(
            conv(4, WIDTH, 1), Depth("depth", map(Block, range(3))), conv(WIDTH, 3, 1)
        ),
        IMAGES,
    ),
}
PATHS_ALONE = {"values": (Scaled, IMAGES)}  # a text cannot be mixed


def a_space(name):
    build, task = (BUILT | PATHS_ALONE)[name]

    def net():
        return build()

    return declared(net), task


def several(space, number=6):
    rng = np.random.default_rng(1)
    return [space.random(rng) for _ in range(number)]


@pytest.mark.parametrize("name", BUILT | PATHS_ALONE)
@pytest.mark.parametrize("training", [False, True])
def test_path_one_hot_mixture_and_plain_network_agree(name, training, noise):
    """In training mode the BatchNorms of all three use the statistics of the batch."""
    space, task = a_space(name)
    supernet = worn(space.supernet(task), noise).train(training)
    inputs = task.example(3, noise=noise)
    with torch.no_grad():
        for architecture in several(space):
            plain = space.inherit(supernet, architecture).train(training)
            expected = plain(inputs)
            assert_same(supernet(inputs, space.path(architecture)), expected)
            if name in BUILT:
                dense = one_hot(space, architecture)
                dense = {group: Choice.dense(table) for group, table in dense.items()}
                found = supernet(inputs, dense)
                cut = tuple(slice(size) for size in expected.shape)  # the rest is padding
                assert_same(found[cut], expected)
                rest = found.clone()
                rest[cut] = 0
                assert not rest.any()


@pytest.mark.parametrize("name", BUILT)
def test_gradients_of_logits_are_slopes(name, noise):
    """Central differences along a random direction, in float64."""
    space, task = a_space(name)
    supernet = space.supernet(task).double().train()
    inputs = task.example(4, noise=noise)
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    logits = {
        g.name: torch.randn(g.shape, generator=noise, dtype=torch.float64) for g in space.groups
    }
    slope, difference = slope_and_difference(
        lambda tables: supernet(inputs, softmax_mixture(tables)).square().sum(),
        logits,
        noise,
        1e-5,
    )
    assert slope == pytest.approx(difference, rel=1e-5) and abs(slope) > 1e-6


@pytest.mark.parametrize("name", BUILT | PATHS_ALONE)
def test_a_plain_network_is_plain_and_loads_its_own_state(name):
    space, task = a_space(name)
    for architecture in several(space, 3):
        network = space.standalone(architecture, task)
        for module in network.modules():
            assert "supernet" not in type(module).__module__
            values = itertools.chain(vars(module).values(), module._modules.values())
            assert not any("supernet" in type(value).__module__ for value in values)
        state = {key: value.clone() for key, value in network.state_dict().items()}
        again = space.standalone(architecture, task)
        again.load_state_dict(state, strict=True)
        inputs = task.example(2)
        assert torch.equal(again.eval()(inputs), network.eval()(inputs))
        text = space.encode(architecture)
        assert space.decode(text) == architecture


@pytest.mark.parametrize("name", BUILT)
def test_tables_of_costs_are_exact(name):
    """They are compared with counts of plain networks."""
    space, task = a_space(name)
    tables = Budget(space, task).tables
    drawn = {space.encode(one): one for one in several(space, 20)}
    for architecture in drawn.values():
        cost = count(space.standalone(architecture, task), task)
        assert tables["params"].of(architecture) == cost.params > 0
        assert tables["madds"].of(architecture) == cost.madds


@pytest.mark.parametrize("name", BUILT | PATHS_ALONE)
def test_the_source_of_a_plain_network_builds_it_again(name, tmp_path):
    """It imports torch alone, and has no constructor that declares a choice."""
    space, task = a_space(name)
    for architecture in several(space, 2):
        network = space.standalone(architecture, task).eval()
        text, without = source_of(network, About("a", "0", task, mean=[0.0], std=[1.0]))
        assert not without and "__init__(self" not in text and "elastic" not in text
        (tmp_path / "network.py").write_text(text)
        again = run_source(tmp_path / "network.py").network()
        again.load_state_dict(network.state_dict(), strict=True)
        inputs = task.example(2)
        assert torch.equal(again.eval()(inputs), network(inputs))


# --- what torch's own layers say


def test_a_smaller_kernel_is_the_centre_and_a_narrower_layer_the_first_channels(noise):
    space, task = a_space("kernels")
    supernet = space.supernet(task)
    plain = space.inherit(supernet, space.decode("width=6 kernel=3"))[0]
    assert torch.equal(plain.weight, supernet.module[0].weight[:6, :, 1:4, 1:4])
    assert (plain.padding, plain.dilation, plain.stride) == ((2, 2), (2, 2), (2, 2))


def test_transformed_kernels_are_products_with_the_learnt_matrices(noise):
    """W3 is the centre of W5 times a matrix, W1 the centre of W3 times another one."""
    space, task = a_space("transformed")
    supernet = worn(space.supernet(task), noise)
    layer = supernet.module[0]
    three = torch.einsum(
        "oik,kl->oil", layer.weight[..., 1:4, 1:4].flatten(2), layer.transforms["3"]
    )
    one = three.reshape(8, 4, 3, 3)[..., 1:2, 1:2] * layer.transforms["1"][0, 0]
    for kernel, expected in ((3, three.reshape(8, 4, 3, 3)), (1, one)):
        plain = space.inherit(supernet, space.decode(f"width=8 kernel={kernel}"))[0]
        torch.testing.assert_close(plain.weight, expected)


def test_attention_is_torchs_own(noise):
    """Where the heads fill the embedding, it is ``nn.MultiheadAttention`` with the same weights."""

    def net():
        return elastic.MultiheadAttention(8, Choose("heads", (2, 4)))

    task = Classification((5, 8), 3)
    space = declared(net)
    plain = space.standalone(space.decode("heads=4"), task).eval()
    own = nn.MultiheadAttention(8, 4, batch_first=True).eval()
    parts = [plain.query, plain.key, plain.value]
    with torch.no_grad():
        own.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        own.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        own.out_proj.load_state_dict(plain.output.state_dict())
        inputs = task.example(2, noise=noise)
        assert_same(plain(inputs), own(inputs, inputs, inputs)[0])


def test_a_dense_mixture_of_widths_is_the_sum_of_the_padded_slices(noise):
    """One convolution with superposed weights, against a convolution for each width."""
    space, task = a_space("widths")
    supernet = space.supernet(task)
    first = supernet.module[0]
    inputs, weights = task.example(2, noise=noise), torch.rand(1, 3, generator=noise)
    mixture = {"width": Choice.dense(weights), "other": Choice.path([1])}
    seen = []
    first.register_forward_hook(lambda _, given, out: seen.append(out))
    supernet(inputs, mixture)
    expected = sum(
        F.pad(
            weight * F.conv2d(inputs, first.weight[:w], first.bias[:w], padding=1),
            (0, 0, 0, 0, 0, 8 - w),
        )
        for w, weight in zip((4, 6, 8), weights[0], strict=True)
    )
    torch.testing.assert_close(seen[0], expected)


def test_fresh_layers_have_torchs_own_initial_weights_of_their_size():
    """A narrow layer is not a part of a wide one: its weights have the bounds of its own size."""
    space, task = a_space("linear")
    network = space.standalone(space.decode("width=4 other=2"), task)
    assert float(network[2].weight.detach().abs().max()) <= 1 / math.sqrt(4)

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = elastic.Linear(6, WIDTH)
            self.reset_parameters()

        def reset_parameters(self):
            self.linear.bias.data.fill_(7.0)

        def forward(self, x):
            return self.linear(x)

    space = declared(Own)
    assert (space.standalone(space.decode("width=4"), SEQUENCE).linear.bias == 7).all()


def test_parameters_that_layers_share_are_shared_by_the_plain_layers():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.read = elastic.Embedding(5, WIDTH)
            self.write = elastic.Linear(WIDTH, 5, bias=False)
            self.write.weight = self.read.weight

        def forward(self, x):
            return self.write(self.read(x))

    space = declared(Tied)
    network = space.standalone(space.decode("width=6"), TOKENS)
    assert network.write.weight is network.read.weight and network.read.weight.shape == (5, 6)
    table = Budget(space, TOKENS).tables["params"]
    assert table.of(space.decode("width=6")) == 30


def test_another_option_takes_nothing_over_though_its_tensors_have_the_same_shapes():
    def net():
        wide, long = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        return nn.Sequential(
            conv(4, 4, Choose("k", (1, 3))),
            OneOf("op", {"wide 3x3": wide, "long 3x3": long}),
        )

    space = declared(net)
    assert space.groups[1].options == ("wide_3x3", "long_3x3")
    one, other = space.decode("k=1 op=wide_3x3"), space.decode("k=1 op=long_3x3")
    network = space.standalone(one, IMAGES)
    for architecture, names in (
        (one, {"0.weight", "0.bias", "1.weight", "1.bias"}),
        (other, {"0.weight", "0.bias"}),
        (space.decode("k=3 op=long_3x3"), {"0.bias"}),
    ):
        new = space.standalone(architecture, IMAGES)
        assert space.taken_over(network.state_dict(), one, new, architecture).keys() == names


# --- a mixture is bound for one call


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = Choose("scale", (1, 10, 100))
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x * self.scale() * self.weight


@torch.no_grad()
def test_a_mixture_is_bound_for_one_call_in_its_own_thread():
    space = declared(Inner)
    one, other = space.supernet(IMAGES), space.supernet(IMAGES)
    inputs = torch.ones(1)
    paths = [{"scale": Choice.path([option])} for option in range(3)]
    with pytest.raises(UserError, match="outside a call"):
        one.module(inputs)
    # a call inside a call, of another network of the same choices
    one.module.register_forward_pre_hook(lambda _, given: (other(given[0], paths[2]),))
    assert float(one(inputs, paths[1])) == 1000
    with pytest.raises(UserError, match="outside a call"):
        one.module(inputs)

    barrier, found = threading.Barrier(2), {}

    def work(option):
        net = space.supernet(IMAGES)
        net.module.register_forward_pre_hook(lambda *_: (barrier.wait(), None)[1])
        net.requires_grad_(False)
        found[option] = net(inputs, paths[option]).item()

    threads = [threading.Thread(target=work, args=(option,)) for option in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: 1.0, 1: 10.0}


@pytest.mark.parametrize("name", ["all", "attention"])
def test_functional_calls_and_second_derivatives(name, noise):
    """The Hessian of the loss in weights and logits, against a difference of gradients."""
    space, task = a_space(name)
    supernet = space.supernet(task).double()
    inputs = task.example(2, noise=noise)
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    weights = {name: w.detach().clone() for name, w in supernet.named_parameters()}
    name = next(iter(weights))
    table = {g.name: torch.zeros(g.shape, dtype=torch.float64) for g in space.groups}
    group = space.groups[0].name

    def slope(logits, create_graph=False):
        moved = weights | {name: weights[name].clone().requires_grad_()}
        mixture = softmax_mixture(table | {group: logits})
        loss = functional_call(supernet, moved, (inputs, mixture)).square().sum()
        return torch.autograd.grad(loss, moved[name], create_graph=create_graph)[0].sum()

    logits = table[group].clone().requires_grad_()
    (second,) = torch.autograd.grad(slope(logits, True), logits)
    step = torch.zeros_like(logits)
    step[0, 0] = 1e-5
    difference = (slope(table[group] + step) - slope(table[group] - step)) / 2e-5
    assert float(second[0, 0]) == pytest.approx(float(difference), rel=1e-5)
    assert all(parameter.grad is None for parameter in supernet.parameters())


# --- the space


def test_decisions_that_no_active_part_reads_make_no_second_architecture():
    """By brute force: the canonical architectures are as many as there are different networks."""
    space, _ = a_space("all")
    assert [group.name for group in space.groups] == ["width", "depth", "ratio", "mix", "kernel"]
    first = space.decode("width=4 depth=1 ratio=1,1.5,2 mix=pool,conv,conv kernel=3,3,1")
    assert space.encode(space.canonical(first)) == (
        "width=4 depth=1 ratio=1,1,1 mix=pool,conv,conv kernel=1,1,1"
    )
    small = declared(lambda: nn.Sequential(conv(4, 4, 1), Depth("depth", map(Block, range(2)))))
    genes = [gene.values for gene in small.genes]
    found = {small.canonical(small.express(values)) for values in itertools.product(*genes)}
    one_block = 3 * (3 * (2 + 1 + 1))  # width, ratio, kernel of the convolution, pool, skip
    assert len(found) == one_block + 3 * (3 * 4) ** 2


def test_groups_say_what_their_options_are():
    space, _ = a_space("all")
    groups = {group.name: group for group in space.groups}
    mix = groups["mix"]
    assert (mix.slots, mix.options) == (3, ("conv", "pool", "skip"))
    assert (mix.skip, mix.nothing, mix.parameter_free) == ("skip", None, ("pool", "skip"))
    assert groups["width"].skip is None and groups["kernel"].slots == 3


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: nn.Linear(2, 2), "declares no choice"),
        (
            lambda: nn.Sequential(conv(4, Choose("a", (1, 2)), 1), conv(2, Choose("a", (1, 3)), 1)),
            "two choices are called 'a'",
        ),
        (lambda: conv(4, Choose("a", (2, 2)), 1), "written differently"),
        (lambda: conv(4, Choose("a b", (2, 3)), 1), "the name must be"),
        (lambda: conv(4, Choose("a", (2, 0.5)), 1), "is no size"),
        (lambda: conv(4, 4, Choose("k", (2, 3))), "give odd numbers"),
        (lambda: elastic.Conv2d(4, 4, Choose("k", (1, 3))), 'give padding="same"'),
        (lambda: conv(4, Choose("a", (2, 3)), 1, groups=2), "do not divide"),
        (lambda: elastic.GroupNorm(4, WIDTH), "do not divide"),
        (lambda: OneOf(Choose("a", ("x", "y")), {"x": nn.Identity()}), "give the same names"),
        (lambda: Depth(Choose("d", (1, 5)), [nn.Identity()]), "are no numbers of its 1 blocks"),
    ],
)
def test_a_mistake_is_one_line(build, words):
    with pytest.raises(UserError) as error:
        declared(build)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_several_texts_cannot_be_mixed():
    space, task = a_space("values")
    mixture = softmax_mixture({g.name: torch.zeros(g.shape) for g in space.groups})
    with pytest.raises(UserError, match="only numbers can be mixed"):
        space.supernet(task)(task.example(1), mixture)


# --- what is wrong is said before anything runs


class Wrong(nn.Module):
    """A module that is right, unless ``fault`` says otherwise."""

    def __init__(self, fault=""):
        super().__init__()
        self.fault = fault
        self.conv = conv(4, WIDTH, 3)
        self.norm = elastic.BatchNorm2d(WIDTH)
        wide = {"conv": conv(WIDTH, WIDTH, 1), "wide": nn.Conv2d(8, 8, 1), "skip": nn.Identity()}
        if fault != "shapes":
            wide.pop("wide")
        self.op = OneOf("op", wide)
        if fault == "unread":
            self.scale = Choose("scale", (1, 2))
        if fault == "unused":
            self.extra = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        self.head = elastic.Linear(WIDTH, 5 if fault == "outputs" else 3)

    def forward(self, x):
        x = self.op(self.norm(self.conv(x)))
        x = x.mean((2, 3), keepdim=True)
        if self.fault == "lone":
            x = self.norm(x)
        assert self.fault != "refused", "Input height (8) is wrong"
        if self.fault == "dice":
            x = F.dropout(x, 0.5)
        return self.head(x.flatten(1))


@pytest.mark.parametrize(
    ("fault", "batch", "words"),
    [
        ("shapes", 2, "shapes do not meet in op.options.wide of width=4 op=wide: "),
        ("outputs", 2, "returns outputs of shape (2, 5) for two inputs, but the task needs (2, 3)"),
        ("refused", 2, "of width=4 op=conv: Input height (8) is wrong"),
        ("unread", 2, "the choice 'scale' is never read"),
        ("unused", 2, "the weights of extra never get a gradient"),
        ("lone", 1, "the BatchNorm norm sees one value a channel in a batch of 1"),
        ("dice", 2, "returns other outputs each time in evaluation mode"),
    ],
)
def test_what_is_wrong_with_a_module_is_one_line(fault, batch, words):
    before = torch.random.get_rng_state()
    (said,) = declared(Wrong, fault=fault).faults(IMAGES, batch)
    assert words in said and "\n" not in said
    assert not list(declared(Wrong).faults(IMAGES, batch))
    assert torch.equal(torch.random.get_rng_state(), before)
