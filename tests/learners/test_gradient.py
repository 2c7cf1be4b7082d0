"""Invariant 3: the gradient of the logits is compared with central finite differences of the loss,
in float64.
"""

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from supernet.cost.budget import Budget
from supernet.learners.gradient import (
    Gradient,
    finite_difference_product,
    functional_loss,
    hessian_vector_product,
)
from supernet.learners.learner import Bilevel
from supernet.mixture import Choice, softmax_mixture
from supernet.modifiers.auxiliary_skip import AuxiliarySkip
from supernet.modifiers.beta_decay import BetaDecay
from supernet.modifiers.edge_normalisation import EdgeNormalisation
from supernet.modifiers.modifier import Modified
from supernet.modifiers.pruning import Pruning
from supernet.modifiers.skip_dropout import SkipDropout
from supernet.randomness import Streams
from supernet.samplers.fairdarts import FairDARTS
from supernet.samplers.sampler import Sampler
from supernet.samplers.snas import SNAS
from supernet.samplers.softmax import Softmax
from tests.tasks import task_of
from tests.variants import SPACES, cells_alone


def problem(space, seed: int = 0, sampler: Sampler | None = None) -> Bilevel:
    """A bilevel problem in float64. Its optimiser has made some steps, so that momentum and weight
    decay have an effect.

    The mixture is that of DARTS, or of a ``sampler`` at two fifths of the search, whose draw is
    always the same.
    """
    noise = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        supernet = space.supernet(task_of(3, 2)).double()
    budget = Budget(space, task_of(3, 2))
    sampler = sampler or Softmax()
    sampler.begin(budget, Streams(0), torch.device("cpu"))
    shapes = {group.name: group.shape for group in space.groups} | sampler.tables()
    logits = {
        n: (0.5 * torch.randn(s, generator=noise, dtype=torch.float64)).requires_grad_()
        for n, s in shapes.items()
    }
    sampler.advance(logits, 0.4)
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.05, momentum=0.9, weight_decay=3e-2)

    def batch():
        images = torch.randn(4, 2, 8, 8, generator=noise, dtype=torch.float64)
        return images, torch.randint(3, (4,), generator=noise)

    def relax(logits):
        return sampler.relaxation(logits, 0.4, torch.Generator().manual_seed(1))

    def excess(logits):
        return budget.excess(
            {name: Choice.dense(table) for name, table in sampler.probabilities(logits).items()}
        )

    for _ in range(2):
        images, labels = batch()
        F.cross_entropy(supernet(images, relax(logits)), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        for table in logits.values():
            table.grad = None
    # so narrow that the expected cost is above it
    budget.limits["params"] = 1.01 * budget.tables["params"].of(budget.cheapest())
    return Bilevel(
        supernet,
        logits,
        relax,
        F.cross_entropy,
        optimizer,
        batch(),
        batch(),
        excess,
        lambda logits: sampler.penalty(logits, 0.5),
    )


def objective(problem: Bilevel, logits, unrolled: bool) -> float:
    """The validation loss after one real step of torch's SGD on a copy of the weights. It is a
    second implementation of eq. 6.
    """
    import copy

    supernet = copy.deepcopy(problem.supernet)
    if unrolled:
        optimizer = torch.optim.SGD(
            supernet.parameters(),
            **{k: problem.optimizer.param_groups[0][k] for k in ("lr", "momentum", "weight_decay")},
        )
        optimizer.load_state_dict(copy.deepcopy(problem.optimizer.state_dict()))
        images, labels = problem.weight_batch
        F.cross_entropy(supernet(images, problem.relax(logits)), labels).backward()
        optimizer.step()
    images, labels = problem.architecture_batch
    with torch.no_grad():
        loss = F.cross_entropy(supernet(images, problem.relax(logits)), labels)
        return float(loss + problem.excess(logits) + problem.penalty(logits))


def central_difference(
    problem: Bilevel, direction: dict[str, torch.Tensor], unrolled: bool, step: float = 1e-6
) -> float:
    plus, minus = (
        objective(
            problem,
            {
                name: t.detach() + sign * step * direction[name]
                for name, t in problem.logits.items()
            },
            unrolled,
        )
        for sign in (+1, -1)
    )
    return (plus - minus) / (2 * step)


def learnt_gradient(problem: Bilevel, learner: Gradient) -> dict[str, torch.Tensor]:
    """The gradient that the learner gives to its optimiser. Plain SGD with the learning rate 1
    subtracts it from the logits.
    """
    before = {name: table.detach().clone() for name, table in problem.logits.items()}
    learner.optimizer = torch.optim.SGD(problem.logits.values(), lr=1.0)
    learner.step(problem)
    return {name: before[name] - table.detach() for name, table in problem.logits.items()}


@pytest.mark.parametrize(
    ("learner", "tolerance"),
    [
        (Gradient(order="first"), 1e-5),
        (Gradient(order="second"), 1e-5),
        (Gradient(order="second_finite_difference", difference=1e-6), 1e-4),
    ],
    ids=["first", "second", "second_finite_difference"],
)
def test_gradient_equals_the_finite_difference_of_the_bilevel_objective(
    space, learner, tolerance, noise
):
    check(problem(space), learner, tolerance, noise)


# the samplers whose draw, with the same noise, is a smooth function of the logits
FAMILY = {
    "snas": SNAS,
    "fairdarts": FairDARTS,
    "edge normalisation": lambda: Modified(Softmax(), [EdgeNormalisation()]),
    "auxiliary skip": lambda: Modified(SNAS(), [AuxiliarySkip()]),
    "beta decay and pruning": lambda: Modified(Softmax(), [BetaDecay(), Pruning([[0.1, 3]])]),
    "pruning and skip dropout": lambda: Modified(
        FairDARTS(), [Pruning([[0.1, 4], [0.3, 3]]), SkipDropout([[0.0, 0.5]])]
    ),
}


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("sampler", FAMILY)
def test_so_it_does_for_other_samplers_and_with_modifiers(sampler, order, noise):
    check(problem(SPACES["nb201"](), sampler=FAMILY[sampler]()), Gradient(order=order), 1e-5, noise)


def check(p, learner, tolerance, noise):
    """Along random directions. Each has a part in every slot and option."""
    directions = [
        {name: torch.randn(t.shape, generator=noise, dtype=t.dtype) for name, t in p.logits.items()}
        for _ in range(2)
    ]
    expected = [
        central_difference(p, direction, unrolled=learner.order != "first")
        for direction in directions
    ]
    learnt = learnt_gradient(p, learner)
    actual = [
        sum(float((learnt[name] * part).sum()) for name, part in direction.items())
        for direction in directions
    ]
    assert actual == pytest.approx(expected, rel=tolerance)


@cells_alone
def test_the_second_order_term_is_not_negligible(space):
    """If it were negligible, the test above could not tell the two orders apart."""
    first = learnt_gradient(problem(space), Gradient(order="first"))
    second = learnt_gradient(problem(space), Gradient(order="second"))
    assert all((first[name] - second[name]).norm() > 1e-2 * first[name].norm() for name in first)


def test_hessian_vector_product_equals_a_dense_hessian(noise):
    """The loss is so small that its mixed Hessian can be written down."""
    weights = {"w": torch.randn(3, generator=noise, dtype=torch.float64, requires_grad=True)}
    logits = {"a": torch.randn(2, 2, generator=noise, dtype=torch.float64, requires_grad=True)}
    vector = {"w": torch.randn(3, generator=noise, dtype=torch.float64)}
    matrix = torch.randn(4, 3, generator=noise, dtype=torch.float64)

    def loss(weights, logits):
        return torch.tanh(logits["a"].flatten() @ matrix * weights["w"]).sum()

    hessian = torch.autograd.functional.hessian(
        lambda w, a: loss({"w": w}, {"a": a}), (weights["w"], logits["a"])
    )
    dense = hessian[1][0]  # d2/da dw: [2, 2, 3]
    expected = dense @ vector["w"]
    torch.testing.assert_close(hessian_vector_product(loss, weights, logits, vector)[0], expected)
    torch.testing.assert_close(
        finite_difference_product(loss, weights, logits, vector)[0], expected, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("order", ["first", "second", "second_finite_difference"])
def test_learning_leaves_the_weights_their_statistics_and_their_optimiser_alone(space, order):
    """Mistakes of public systems: gradients of the logits step that stay in the weights, and
    weights that the architecture step moves.
    """
    p = problem(space)
    weights = {name: w.detach().clone() for name, w in p.supernet.named_parameters()}
    statistics = {name: buffer.clone() for name, buffer in p.supernet.named_buffers()}
    velocity = [state["momentum_buffer"].clone() for state in p.optimizer.state.values()]
    learner = Gradient(order=order)
    learner.begin(p.logits, None)
    before = {name: table.detach().clone() for name, table in p.logits.items()}
    learner.step(p)
    assert all(
        torch.equal(w, weights[name]) and w.grad is None
        for name, w in p.supernet.named_parameters()
    )
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in p.supernet.named_buffers())
    assert all(
        torch.equal(s["momentum_buffer"], v)
        for s, v in zip(p.optimizer.state.values(), velocity, strict=True)
    )
    assert all(
        table.grad is None and not torch.equal(table, before[name])
        for name, table in p.logits.items()
    )


def test_functional_loss_leaves_batchnorm_statistics_alone(space):
    p = problem(space)
    before = {name: buffer.clone() for name, buffer in p.supernet.named_buffers()}
    value = functional_loss(p, p.weight_batch)(dict(p.supernet.named_parameters()), p.logits)
    images, labels = p.weight_batch
    again = F.cross_entropy(
        functional_call(
            p.supernet,
            {n: b.clone() for n, b in before.items()},
            (images, softmax_mixture(p.logits)),
        ),
        labels,
    )
    assert torch.equal(value, again)
    assert all(torch.equal(buffer, before[name]) for name, buffer in p.supernet.named_buffers())


def test_attention_by_a_fused_kernel_is_differentiated_twice(noise):
    """torch's kernel has no second derivative; the product is that of attention written out."""
    x = torch.randn(2, 2, 5, 4, generator=noise)
    weights = {"w": torch.randn(4, 4, generator=noise, requires_grad=True)}
    logits = {"a": torch.randn(4, generator=noise, requires_grad=True)}
    vector = {"w": torch.randn(4, 4, generator=noise)}

    def by_torch(query):
        return F.scaled_dot_product_attention(query, x, x)

    def written_out(query):
        return torch.softmax(query @ x.transpose(-2, -1) / 2, -1) @ x

    found, expected = (
        hessian_vector_product(
            lambda w, a, attention=attention: attention(x @ w["w"] * a["a"]).square().sum(),
            weights,
            logits,
            vector,
        )
        for attention in (by_torch, written_out)
    )
    torch.testing.assert_close(found, expected)
