"""The learner of ENAS on a bandit: a space of 64 architectures, each with a known reward."""

import math

import pytest
import torch
from torch import nn

from supernet.errors import UserError
from supernet.learners.learner import Bilevel
from supernet.learners.reinforce import ReinforceLearner
from supernet.samplers.uniform import Uniform
from tests.samplers.test_policy import every, policy, probabilities, small

IMAGES = 20


class Bandit(nn.Module):
    """A "supernet" that predicts as many images of a batch correctly as the table of rewards says
    for the architecture.
    """

    def __init__(self, rewards):
        super().__init__()
        self.right = (rewards * IMAGES).round().long().tolist()

    def forward(self, images, mixture):
        index = int("".join(str(option) for (option,) in mixture["edges"].active), 2)
        return torch.stack(
            [torch.arange(IMAGES) < self.right[index], torch.arange(IMAGES) >= self.right[index]],
            dim=1,
        ).float()


def bandit(rewards) -> Bilevel:
    batch = torch.zeros(IMAGES, 1, 1, 1), torch.zeros(IMAGES, dtype=torch.long)
    return Bilevel(Bandit(rewards), {}, None, None, None, None, batch, None)


@pytest.fixture
def rewards():
    """One reward for each architecture, in the order of ``every``. More convolutions are better.
    The reward is not a sum over edges.
    """
    return torch.tensor([3 * index.bit_count() + index % 3 for index in range(64)]) / IMAGES


def learner_of(sampler, **settings) -> ReinforceLearner:
    learner = ReinforceLearner(**settings)
    learner.begin({}, sampler)
    return learner


def flat(tensors) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).double()


def estimates(learner, problem, steps: int) -> torch.Tensor:
    """The gradients [steps, parameters], uphill, that the learner gives to its optimiser, while no
    parameter moves.
    """
    parameters, seen = list(learner.policy.controller.parameters()), []
    learner.optimizer = torch.optim.SGD(parameters, lr=0.0)
    learner.optimizer.register_step_pre_hook(
        lambda *_: seen.append(-flat(p.grad for p in parameters))
    )
    baseline = learner.baseline
    for _ in range(steps):
        learner.baseline = baseline
        learner.step(problem)
    return torch.stack(seen)


def test_the_mean_of_the_estimates_is_the_exact_gradient_with_and_without_a_baseline(rewards):
    """Invariant 3. The exact gradient is autograd's, through the sum over all 64 architectures: the
    gradient of E[R] + w H[p].

    The mean is projected on this gradient and on each of its three parts: by the reward, by the
    entropy along the way as if it were a reward, and by the gradient of that entropy. If the
    learner left out a part, the test would fail: each part is more than five standard errors long,
    and the mean may differ by four.
    """
    sampler, weight = policy(small(), spread=10), 2.0
    log_probability, entropy = sampler.likelihood(every(sampler.space))
    probability, parameters = log_probability.exp(), list(sampler.controller.parameters())

    def gradient(objective):
        return flat(torch.autograd.grad(objective.sum(), parameters, retain_graph=True))

    exact = gradient(probability * (rewards - weight * log_probability))
    parts = [gradient(probability * r) for r in (rewards, weight * entropy.detach())]
    parts.append(gradient(probability.detach() * weight * entropy))
    torch.testing.assert_close(sum(parts), exact, rtol=1e-4, atol=1e-5)
    directions = torch.stack([one / one.norm() for one in (exact, *parts)])
    variances = []
    for baseline in (0.0, (probability * (rewards - weight * log_probability)).sum().item()):
        learner = learner_of(sampler, samples=64, entropy_weight=weight)
        learner.baseline = baseline
        along = estimates(learner, bandit(rewards), 40) @ directions.T
        error = along.std(dim=0) / math.sqrt(len(along))
        assert ((along.mean(dim=0) - directions @ exact).abs() < 4 * error).all()
        variances.append(along.var(dim=0))
    assert all(part.norm() > 5 * e for part, e in zip(parts, error[1:], strict=True))
    assert (variances[1] < variances[0] / 2).all()  # the purpose of a baseline


def test_the_moving_average_and_the_entropy_by_hand():
    """A uniform policy over six edges of two options has the entropy 6 ln 2. With a reward of 1/2
    everywhere and w = 0.1, each step returns 1/2 + 0.6 ln 2. Starting from zero, the baseline has
    1/4, 7/16 and 37/64 of it after one, two and three steps.
    """
    sampler = policy(small())
    nn.init.zeros_(sampler.controller.heads[0].weight)
    learner = learner_of(sampler, samples=3, entropy_weight=0.1, baseline_decay=0.75)
    learner.optimizer = torch.optim.SGD(sampler.controller.parameters(), lr=0.0)
    returned = 0.5 + 0.6 * math.log(2)
    for share in (1 / 4, 7 / 16, 37 / 64):
        figures = learner.step(bandit(torch.full((64,), 0.5)))
        assert float(figures["reward"]) == 0.5
        assert float(figures["entropy/policy"]) == pytest.approx(6 * math.log(2))
        assert learner.baseline == pytest.approx(share * returned)


def test_one_estimate_by_hand():
    """If all heads are zero, the gradient of a decision's log-probability in its logits is (chosen
    - 1/2). In the weights of the head it is that times the state of the LSTM. Each is multiplied by
    R + w H - b. The entropy is at its maximum and adds nothing.
    """
    sampler = policy(small(), temperature=2.0, tanh_constant=3.0)
    nn.init.zeros_(sampler.controller.heads[0].weight)
    states = []
    sampler.controller.cell.register_forward_hook(lambda *call: states.append(call[-1][0].detach()))
    rewards = torch.zeros(64)
    rewards[0], rewards[-1] = 0.25, 0.75
    drawn = every(sampler.space)[-1]
    sampler.draw = lambda count, noise: [drawn]
    learner = learner_of(sampler, entropy_weight=0.1)
    learner.baseline = 0.15
    seen = estimates(learner, bandit(rewards), 1)[0]
    gain = 0.75 + 0.6 * math.log(2) - 0.15
    expected = gain * 3.0 / 2.0 * sum(torch.tensor([[-0.5], [0.5]]) * state for state in states)
    torch.testing.assert_close(seen[-16:].reshape(2, 8).float(), expected)
    assert not seen[:-16].any()


def test_the_policy_concentrates_on_the_one_good_architecture():
    rewards = torch.full((64,), 0.1)
    rewards[37] = 0.9
    sampler = policy(small(), temperature=5.0, hidden=16)
    learner, problem, best = (
        learner_of(sampler, samples=16, lr=0.02),
        bandit(rewards),
        every(sampler.space)[37],
    )
    before = float(probabilities(sampler, [best]))
    figures = [learner.step(problem) for _ in range(150)]
    assert before < 0.05 and float(probabilities(sampler, [best])) > 0.8
    assert sampler.budget.best(sampler.scores({})) == best
    assert (
        figures[-1]["reward"] > 0.7
        and figures[-1]["entropy/policy"] < figures[0]["entropy/policy"] / 2
    )


def test_a_heavy_entropy_keeps_the_policy_uniform(rewards):
    sampler = policy(small(), spread=10)
    learner = learner_of(sampler, samples=16, lr=0.02, entropy_weight=10.0)
    before = float(learner.step(bandit(rewards))["entropy/policy"])
    for _ in range(60):
        figures = learner.step(bandit(rewards))
    assert (
        before < 0.97 * 6 * math.log(2) < 0.99 * 6 * math.log(2) < float(figures["entropy/policy"])
    )


def test_it_needs_a_policy():
    with pytest.raises(UserError, match="choose sampler=policy"):
        ReinforceLearner().begin({}, Uniform())
