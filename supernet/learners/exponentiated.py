"""Exponentiated gradients (GAEA): the weights of the mixture themselves learn, on the simplex."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from supernet.bounds import NotNegative, Positive
from supernet.learners.gradient import outer_loss
from supernet.learners.learner import Bilevel, Learner, fixed, require_warmups


@dataclass
class Exponentiated(Learner):
    """GAEA, geometry-aware exponentiated algorithms (Li et al., ICLR 2021, section 3, algorithm 1).

    The architecture parameters are theta, one distribution per slot; the logits hold the logarithm
    of theta. A step is ``theta <- theta * exp(-lr * gradient) / norm``, where the gradient is the
    one in theta, not the one in the logits: mirror descent with the entropy. The default of ``lr``
    is the authors' value for both spaces. As in their code, no entry of theta falls below 1e-5. Any
    sampler that reads logits may relax theta. The gradient is of first order.

    The softmax of log theta is theta divided by its sum. The gradient here is therefore the
    gradient in theta minus its mean under theta. This mean is one constant per slot, and dividing
    by the norm cancels it.
    """

    lr: Positive = 0.1
    cost_weight: NotNegative = 1.0
    warmups: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_warmups(self.warmups)

    def step(self, problem: Bilevel) -> dict[str, Tensor]:
        thetas = {
            name: torch.softmax(table.detach(), dim=-1).requires_grad_()
            for name, table in problem.logits.items()
        }
        with fixed(problem.supernet):
            loss = outer_loss(problem, self.cost_weight)(
                {}, {name: theta.log() for name, theta in thetas.items()}
            )
        gradients = torch.autograd.grad(loss, list(thetas.values()), materialize_grads=True)
        self.followed = dict(zip(problem.logits, gradients, strict=True))
        with torch.no_grad():
            for table, theta, gradient in zip(
                problem.logits.values(), thetas.values(), gradients, strict=True
            ):
                moved = torch.softmax(theta.log() - self.lr * gradient, dim=-1).clamp_min(1e-5)
                table.copy_((moved / moved.sum(dim=-1, keepdim=True)).log())
        return {"architecture_loss": loss.detach()}
