"""The mixture's weights themselves learn, on the simplex, by exponentiated gradients (GAEA)."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from supernet.errors import require
from supernet.learners.gradient import outer_loss
from supernet.learners.learner import Bilevel, Learner, fixed, require_warmups


@dataclass
class Exponentiated(Learner):
    """GAEA, geometry-aware exponentiated algorithms (Li et al., ICLR 2021, section 3, algorithm 1).

    What learns is theta, a distribution a slot, of which the logits are the logarithm. A step is
    ``theta <- theta * exp(-lr * gradient) / norm`` with the gradient in theta, not in the logits:
    mirror descent with the entropy. ``lr`` is the authors' for both spaces; no entry of theta falls
    below 1e-5, as in their code. Any sampler that reads logits may relax theta; the gradient is of
    first order.

    The softmax of log theta is theta over its sum, so that the gradient here is the one in theta
    less its mean under theta: a constant a slot, which the norm takes away.
    """

    lr: float = 0.1
    cost_weight: float = 1.0
    warmups: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        require("learner.lr", self.lr, above=0)
        require("learner.cost_weight", self.cost_weight, least=0)
        require_warmups(self.warmups)

    def step(self, problem: Bilevel) -> dict[str, Tensor]:
        theta = {
            name: torch.softmax(table.detach(), dim=-1).requires_grad_()
            for name, table in problem.logits.items()
        }
        with fixed(problem.supernet):
            loss = outer_loss(problem, self.cost_weight)(
                {}, {name: share.log() for name, share in theta.items()}
            )
        gradient = torch.autograd.grad(loss, list(theta.values()), materialize_grads=True)
        self.followed = dict(zip(problem.logits, gradient, strict=True))
        with torch.no_grad():
            for table, share, slope in zip(
                problem.logits.values(), theta.values(), gradient, strict=True
            ):
                moved = torch.softmax(share.log() - self.lr * slope, dim=-1).clamp_min(1e-5)
                table.copy_((moved / moved.sum(dim=-1, keepdim=True)).log())
        return {"architecture_loss": loss.detach()}
