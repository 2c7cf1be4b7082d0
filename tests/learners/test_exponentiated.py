"""Exponentiated gradients, compared with the closed form and with their minimum."""

import torch

from supernet.learners.exponentiated import Exponentiated
from supernet.learners.learner import Bilevel
from supernet.mixture import Choice
from supernet.samplers.snas import SNAS
from tests.learners.test_gradient import problem
from tests.variants import SPACES


def linear(costs: torch.Tensor) -> tuple[Bilevel, dict]:
    """A "supernet" whose loss is the sum of costs times weights of one group."""
    logits = {"a": torch.zeros(costs.shape, dtype=costs.dtype).requires_grad_()}

    class Costs(torch.nn.Module):
        def forward(self, images, mixture):
            return (mixture["a"].weights * costs).sum()

    batch = torch.zeros(1, 1, 1, 1), torch.zeros(1, dtype=torch.long)
    relax = lambda logits: {"a": Choice.dense(logits["a"].softmax(-1))}  # noqa: E731
    return Bilevel(
        Costs(),
        logits,
        relax,
        lambda outputs, _: outputs,
        None,
        batch,
        batch,
        lambda _: torch.zeros(()),
    ), logits


def test_after_n_steps_of_a_linear_loss_the_weights_are_the_softmax_of_n_times_the_costs(noise):
    costs = torch.randn(3, 4, generator=noise, dtype=torch.float64)
    bilevel, logits = linear(costs)
    for _ in range(7):
        Exponentiated(lr=0.2).step(bilevel)
    torch.testing.assert_close(logits["a"].detach().softmax(-1), (-7 * 0.2 * costs).softmax(-1))


def test_no_weight_leaves_the_simplex_or_dies():
    bilevel, logits = linear(torch.tensor([[100.0, 0.0], [0.0, 0.0]]))
    for _ in range(50):
        Exponentiated(lr=1.0).step(bilevel)
    theta = logits["a"].detach().exp()
    torch.testing.assert_close(theta.sum(-1), torch.ones(2))
    assert 0.9e-5 < theta[0, 0] < 1.1e-5


def test_a_step_multiplies_by_the_exponential_of_the_gradient_in_the_weights():
    """On a real supernet and a random relaxation. The gradient is computed by hand in theta, not in
    the logits.
    """
    p = problem(SPACES["nb201"](), sampler=SNAS())
    theta = p.logits["edges"].detach().softmax(-1)
    images, labels = p.architecture_batch

    def loss(shares):
        logits = {"edges": shares.log()}
        return p.loss(p.supernet(images, p.relax(logits)), labels) + p.excess(logits)

    slope = torch.zeros_like(theta)
    for index in range(theta.numel()):
        step = torch.zeros_like(theta).view(-1)
        step[index] = 1e-6
        slope.view(-1)[index] = (
            loss(theta + step.view_as(theta)) - loss(theta - step.view_as(theta))
        ).detach() / 2e-6
    expected = theta * torch.exp(-0.3 * slope)
    Exponentiated(lr=0.3).step(p)
    torch.testing.assert_close(
        p.logits["edges"].detach().exp(),
        expected / expected.sum(-1, keepdim=True),
        rtol=1e-6,
        atol=1e-9,
    )
