"""The spaces of two benchmarks, compared with their published figures. Budgets on them are compared
with brute force.
"""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from supernet.cost.budget import Budget
from supernet.cost.count import count
from supernet.cost.table import counted
from supernet.errors import UserError
from supernet.ops.fast.convolution import Depthwise, FastGradients
from supernet.spaces.nats_size import NATSSize
from supernet.spaces.nb_macro import NBMacro
from tests.tasks import task_of

TASK = task_of(10, 3, (32, 32))
# NATS-Bench: the sizes that its tables give. NAS-Bench-Macro: parameters of the repository's table
PARAMS = {
    NATSSize: {
        "8:8:8:8:8": 11_714,
        "8:8:16:40:40": 107_826,
        "64:64:64:64:64": 713_674,
    },
    NBMacro: {
        "00000000": 387_882,
        "11111111": 1_588_874,
        "22222222": 2_932_586,
        "02012100": 890_666,
    },
}
TABLES = {NATSSize: "nats_size_cifar10.npz", NBMacro: "nb_macro_cifar10.npz"}


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, found in PARAMS.items() for text in found]
)
def test_parameters_are_published(kind, text):
    space = kind()
    network = space.standalone(space.decode(text), TASK)
    assert count(network, TASK).params == PARAMS[kind][text]
    assert space.encode(space.decode(text)) == text


@pytest.mark.parametrize("kind", TABLES)
def test_every_row_of_the_table_is_counted(kind, shared):
    """All 32,768 parameters; all 6,561 parameters and multiply-adds."""
    space, rows = kind(), np.load(shared / TABLES[kind])
    tables = counted(space, TASK)
    architectures = [space.decode(str(text)) for text in rows["arch"]]
    assert len(set(architectures)) == np.prod([len(gene.values) for gene in space.genes])
    for metric in {"params", "madds"} & set(rows):
        found = [tables[metric].of(architecture) for architecture in architectures]
        assert np.array_equal(found, rows[metric])


@pytest.mark.parametrize(
    "space", [NATSSize([4, 8]), NBMacro(4, 8, [1, 2])], ids=["nats_size", "nb_macro"]
)
def test_what_a_budget_derives_is_the_best_by_brute_force(space):
    """Costs of layers depend on two widths, so that the integer program has products."""
    rng = np.random.default_rng(0)
    every = [
        space.express(values) for values in itertools.product(*(g.values for g in space.genes))
    ]
    tables = counted(space, TASK)
    costs = {m: np.array([tables[m].of(one) for one in every]) for m in ("params", "madds")}
    assert any(len(term) > 1 for term in space.terms()) == (space.name == "nats_size")
    for share in (0.1, 0.3, 0.6):
        limits = {metric: float(np.quantile(found, share)) for metric, found in costs.items()}
        budget = Budget(space, TASK, limits)
        scores = {g.name: torch.from_numpy(rng.normal(size=g.shape)) for g in space.groups}
        values = np.array(
            [
                sum(
                    float(scores[group][slot, option])
                    for group, choice in space.path(one).items()
                    for slot, (option,) in enumerate(choice.active)
                )
                for one in every
            ]
        )
        fits = np.all([costs[metric] <= limit for metric, limit in limits.items()], axis=0)
        best = every[int(np.argmax(np.where(fits, values, -np.inf)))]
        assert budget.best(scores) == best and 0 < fits.sum() < len(every)
        assert tables["params"].of(budget.largest("params")) == costs["params"][fits].max()


@pytest.mark.parametrize(
    ("space", "text"),
    [(NATSSize(), "8:8:8"), (NATSSize(), "8:8:8:8:9"), (NBMacro(), "012"), (NBMacro(), "00000003")],
)
def test_other_texts_are_one_line(space, text):
    with pytest.raises(UserError) as error:
        space.decode(text)
    assert "\n" not in str(error.value)


def test_layers_whose_gradients_are_made_fast_become_torchs_own_again():
    space = NBMacro(4, 8, [1])
    supernet = space.supernet(TASK)
    network = space.inherit(supernet, space.decode("2"))
    with FastGradients(network):
        assert Depthwise in {type(module) for module in network.modules()}
    kinds = {type(module) for module in network.modules()}
    assert nn.Conv2d in kinds and Depthwise not in kinds
