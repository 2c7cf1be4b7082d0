"""Selection by L1: the weights of options learn with the shared weights, and are drawn to zero
(Petridish, Hu et al., NeurIPS 2019).
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, optim

from supernet.bounds import NotNegative, Positive, Probability
from supernet.learners.learner import Learner
from supernet.mixture import Logits
from supernet.samplers.sampler import Sampler


@dataclass
class L1(Learner):
    """SGD on the loss of the shared weights plus ``weight`` times the sum of the absolute values of
    the logits. There is one level: the logits follow the gradient of the step in which the weights
    learn, on the images of the weights.

    Each logit begins at one by the number of options, as in the original code.
    """

    lr: Positive = 0.025
    momentum: Probability = 0.9
    weight: NotNegative = 1e-3

    joint = True

    def begin(self, logits: Logits, sampler: Sampler) -> None:
        self.optimizer = optim.SGD(logits.values(), lr=self.lr, momentum=self.momentum)
        with torch.no_grad():
            for table in logits.values():
                table += 1 / table.shape[-1]

    def follow(self, logits: Logits) -> dict[str, Tensor]:
        for table in logits.values():
            pull = self.weight * table.detach().sign()
            table.grad = pull if table.grad is None else table.grad + pull
        self.followed = {name: cast(Tensor, table.grad) for name, table in logits.items()}
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"l1": torch.stack([table.detach().abs().sum() for table in logits.values()]).sum()}

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
