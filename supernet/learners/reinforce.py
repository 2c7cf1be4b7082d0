"""A policy that follows the gradient of its expected reward. The reward of an architecture is its
accuracy with the shared weights.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, optim

from supernet.bounds import Few, NotNegative, Positive, Probability
from supernet.errors import UserError
from supernet.learners.learner import Bilevel, Learner, statistics_kept
from supernet.mixture import Logits, Mixture
from supernet.samplers.policy import Policy
from supernet.samplers.sampler import Sampler


@dataclass
class ReinforceLearner(Learner):
    """ENAS's training of its controller (Pham et al., ICML 2018, sections 2.2 and 3.2): REINFORCE
    (Williams, 1992) with Adam.

    The reward R of an architecture is its accuracy on the batch of the architecture split, with the
    BatchNorm statistics of that batch. p is the probability of the architecture, and H is the sum
    of the entropies of the decisions that lead to it. Each of ``samples`` draws gives one estimate
    of the gradient of E[R + w H], where w is ``entropy_weight``:
    ``(R + w H - b) grad log p + w grad H``. The baseline b is the moving average of R + w H over
    earlier steps; it starts at zero and keeps the share ``baseline_decay`` of its value in each
    step. The baseline does not depend on the draws of this step, so it does not change the mean of
    the estimate.

    The defaults are those of the authors' search for CNN cells on CIFAR-10 (melodyguan/enas,
    scripts/cifar10_micro_search.sh and src/cifar10/main.py).

    Departures: here the controller moves once in each step of the weights, by one draw. The
    authors' controller moves 30 times after each epoch of 281 steps, by 10 draws each time, which
    is about as many draws in all. Here the baseline is that of earlier steps; the authors' baseline
    already includes the reward from which it is subtracted. The authors' code leaves out the term w
    grad H; with it, the mean of the estimates is exactly the gradient above.
    """

    samples: Few = 1
    lr: Positive = 3.5e-3
    entropy_weight: NotNegative = 1e-4
    baseline_decay: Probability = 0.99

    moves = "policy"

    def begin(self, logits: Logits, sampler: Sampler) -> None:
        if sampler.scores_from != self.moves:
            raise UserError(
                "learner=reinforce moves a policy, and this sampler has none; choose sampler=policy"
            )
        self.policy, self.baseline = cast(Policy, sampler), 0.0
        self.optimizer = optim.Adam(self.policy.controller.parameters(), lr=self.lr)

    def step(self, problem: Bilevel) -> dict[str, Tensor]:
        architectures, log_probability, entropy = self.policy.sample(self.samples)
        paths = [self.policy.space.path(architecture) for architecture in architectures]
        # .cpu() is the only place where a step waits for the device
        rewards = torch.stack([accuracy(problem, path) for path in paths]).cpu()
        returns = rewards + self.entropy_weight * entropy.detach()
        gain = (returns - self.baseline) * log_probability + self.entropy_weight * entropy
        (-gain.mean()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.baseline = self.baseline_decay * self.baseline + (1 - self.baseline_decay) * float(
            returns.mean()
        )
        return {"reward": rewards.mean(), "entropy/policy": entropy.detach().mean()}

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "baseline": self.baseline}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.baseline = state["baseline"]


def accuracy(problem: Bilevel, mixture: Mixture) -> Tensor:
    """The accuracy of a mixture on the architecture batch, in [0, 1]. The supernet does not
    change.
    """
    images, labels = problem.architecture_batch
    with torch.no_grad(), statistics_kept(problem.supernet):
        outputs: Tensor = problem.supernet(images, mixture)
        return (outputs.argmax(dim=1) == labels).float().mean()
