"""Architectures drawn uniformly from the valid ones within the budget."""

from dataclasses import dataclass

from supernet.bounds import Few
from supernet.mixture import Architecture, Logits, Mixture
from supernet.samplers.sampler import Loss, Sampler


@dataclass
class Uniform(Sampler):
    """SPOS, single path one-shot (Guo et al., ECCV 2020, section 3.2).

    Each step draws ``paths`` architectures (1 in the paper) and averages their gradients.

    With ``distinct`` each function is drawn equally often, as the one architecture that stands for
    it (:meth:`~supernet.spaces.space.Space.canonical`). Otherwise a function is drawn the more
    often the more architectures compute it, and weights that are shared rate it too high (Ning et
    al., NeurIPS 2021).
    """

    paths: Few = 1
    distinct: bool = False

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        return [self.space.path(self.drawn()) for _ in range(self.paths)]

    def drawn(self) -> Architecture:
        """A random architecture within the budget."""
        while True:
            architecture = self.budget.random(self.streams.host("paths"))
            if not self.distinct or self.space.canonical(architecture) == architecture:
                return architecture
