"""Architectures drawn uniformly from the valid ones within the budget."""

from dataclasses import dataclass

from supernet.bounds import Few
from supernet.mixture import Logits, Mixture
from supernet.samplers.sampler import Loss, Sampler


@dataclass
class Uniform(Sampler):
    """SPOS, single path one-shot (Guo et al., ECCV 2020, section 3.2).

    Each step draws ``paths`` architectures (1 in the paper) and averages their gradients.
    """

    paths: Few = 1

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        rng = self.streams.host("paths")
        return [self.space.path(self.budget.random(rng)) for _ in range(self.paths)]
