"""What a learner is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn, optim

from supernet.mixture import Logits, Mixture
from supernet.samplers.sampler import Sampler

Batch = tuple[Tensor, Tensor]  # images [B, C, H, W] and labels [B]


@dataclass
class Bilevel:
    """The bilevel problem as a learner sees it in one step (Liu et al. 2019, eqs. 3 and 4)."""

    supernet: nn.Module
    logits: Logits
    relax: Callable[[Logits], Mixture]  # a mixture that is differentiable in the logits
    loss: Callable[[Tensor, Tensor], Tensor]  # of outputs and labels
    optimizer: optim.SGD  # of the weights: the inner problem
    weight_batch: Batch  # the inner problem's data
    architecture_batch: Batch  # the outer problem's data
    excess: Callable[[Mixture], Tensor]  # by what share a mixture's expected costs pass the budget


class Learner:
    """Moves the logits, once a step, before the weights move. A subclass is a dataclass whose fields are its settings."""

    learns = True  # whether the logits move at all

    def begin(self, logits: Logits, sampler: Sampler) -> None:
        """Called once before the first step; a learner of a policy finds it in the ``sampler``."""

    def step(self, problem: Bilevel) -> dict[str, Tensor]:
        """Updates ``problem.logits`` in place and leaves everything else as it was; returns figures for the log."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict` gave."""
