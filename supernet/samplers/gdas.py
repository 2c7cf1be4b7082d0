"""One path per step, drawn from the softmax of the logits; gradients pass through its
relaxation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from supernet.bounds import Positive
from supernet.mixture import Choice, Logits, Mixture
from supernet.randomness import concrete
from supernet.samplers.sampler import Loss, Sampler


@dataclass
class GDAS(Sampler):
    """GDAS (Dong & Yang, CVPR 2019, section 3.2, eqs. 3 to 7): the hard Gumbel-softmax with the
    straight-through estimator.

    In each slot, only the option with the largest ``log p + Gumbel noise`` runs, so a step costs
    what a path costs. This option is a draw from p, the softmax of the logits. Its output is
    multiplied by ``1 + (s - s.detach())`` with ``s = softmax((log p + noise) / temperature)``: a
    factor of one whose gradient is that of s. The temperature falls linearly from ``start`` to
    ``end``.

    The straight-through gradient is biased. It is the gradient of the loss linearised at the drawn
    path, with s in place of the path, and it treats the options that did not run as if they gave
    nothing. It is unbiased only for a loss that is linear in the weights of all options, and only
    in the limit of a temperature of zero.

    Departures: the authors' code adds the weights of the options that do not run to the output, as
    numbers; here they do not appear. In the DARTS space each of the 14 edges runs an option, and
    the reduction cell is searched as well. Such draws are not valid architectures of that space.
    Therefore a budget acts through the learner's cost term and through the derivation, not through
    the draws. On an accelerator, each step waits for the logits, because the host must know which
    options run.
    """

    start: Positive = 10.0
    end: Positive = 0.1

    def relaxation(self, logits: Logits, progress: float, noise: torch.Generator) -> Mixture:
        temperature = self.start + (self.end - self.start) * progress
        return {name: self.choice(table, temperature, noise) for name, table in logits.items()}

    def choice(self, table: Tensor, temperature: float, noise: torch.Generator) -> Choice:
        """Draws one option per slot of a group whose logits are ``table`` [slots, options]."""
        soft = concrete(table, temperature, noise)
        drawn = soft.argmax(dim=-1, keepdim=True)
        # not F.one_hot, which reads the largest and the smallest index
        hard = torch.zeros_like(soft).scatter_(-1, drawn, 1.0)
        return Choice(tuple(map(tuple, drawn.tolist())), hard + (soft - soft.detach()))

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        return [self.relaxation(logits, progress, self.streams.tensor("paths"))]
