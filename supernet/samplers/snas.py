"""All options, weighted by a draw from the concrete distribution of the logits."""

from dataclasses import dataclass

import torch

from supernet.bounds import Positive
from supernet.mixture import Choice, Logits, Mixture
from supernet.randomness import concrete
from supernet.samplers.sampler import Loss, Sampler


@dataclass
class SNAS(Sampler):
    """SNAS (Xie et al., ICLR 2019, section 2.2, eq. 4): the weights of a slot are a concrete
    variable, ``softmax((log p + Gumbel noise) / temperature)``, where p is the softmax of the
    logits.

    Its gradient in the logits is pathwise. It is exact for the expected loss of the relaxed draws,
    which differs from the expected loss of one-hot draws at every temperature above zero. The
    temperature falls exponentially from ``start`` to ``end``; the defaults are those of the
    authors' code.

    Departures: the paper trains weights and logits together, on one loss over all training images.
    Here, as with every sampler, the logits learn on images of their own, and each of the two steps
    has a draw of its own.
    """

    start: Positive = 1.0
    end: Positive = 0.03

    def relaxation(self, logits: Logits, progress: float, noise: torch.Generator) -> Mixture:
        temperature = self.start * (self.end / self.start) ** progress
        return {
            name: Choice.dense(concrete(table, temperature, noise))
            for name, table in logits.items()
        }

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        return [self.relaxation(logits, progress, self.streams.tensor("mixtures"))]
