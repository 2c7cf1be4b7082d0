"""The policy follows the gradient of the expected reward: what it draws, judged with the shared
weights.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, optim

from supernet.errors import UserError, require
from supernet.learners.learner import Bilevel, Learner, statistics_kept
from supernet.mixture import Logits, Mixture
from supernet.samplers.policy import Policy
from supernet.samplers.sampler import Sampler


@dataclass
class ReinforceLearner(Learner):
    """ENAS's learning of its controller (Pham et al., ICML 2018, sections 2.2 and 3.2): REINFORCE
    (Williams, 1992) with Adam.

    The reward R of an architecture is its accuracy on the batch of the architecture split, with the
    statistics of that batch. With H the entropy of the policy's decisions on the way to it, each of
    ``samples`` draws gives one estimate of the gradient of E[R + ``entropy_weight`` H]: ``(R + w H
    - b) grad log p + w grad H``. The baseline b is the moving average of R + w H over earlier
    steps, which starts from zero and keeps ``baseline_decay`` of itself a step; as it does not
    depend on this step's draws, it leaves the mean as it is.

    The defaults are those of the authors' search of CNN cells on CIFAR-10 (melodyguan/enas,
    scripts/cifar10_micro_search.sh and src/cifar10/main.py). Departures: the controller moves once
    a step beside the weights, by one draw; theirs 30 times after each epoch of 281 steps, by 10
    draws each, so about as many draws in all. The baseline is that of earlier steps; theirs has
    taken in the reward that it is subtracted from. The term w grad H, which their code drops, makes
    the mean of the estimates that very gradient.
    """

    samples: int = 1
    lr: float = 3.5e-3
    entropy_weight: float = 1e-4
    baseline_decay: float = 0.99

    moves = "policy"

    def __post_init__(self) -> None:
        require("learner.samples", self.samples, least=1)
        require("learner.lr", self.lr, above=0)
        require("learner.entropy_weight", self.entropy_weight, least=0)
        require("learner.baseline_decay", self.baseline_decay, least=0, below=1)

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
    """The accuracy of a mixture on the architecture batch, in [0, 1]; the supernet does not
    change.
    """
    images, labels = problem.architecture_batch
    with torch.no_grad(), statistics_kept(problem.supernet):
        outputs: Tensor = problem.supernet(images, mixture)
        return (outputs.argmax(dim=1) == labels).float().mean()
