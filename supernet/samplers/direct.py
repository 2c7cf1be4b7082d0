"""Every option, weighted by its logit itself."""

from dataclasses import dataclass

import torch

from supernet.mixture import Choice, Logits, Mixture
from supernet.samplers.sampler import Loss, Sampler


@dataclass
class Direct(Sampler):
    """The weights omega of Petridish (Hu et al., NeurIPS 2019). An option counts by
    the absolute value of its weight, or with ``signed`` by the weight itself, as in the
    implementation of the project archai.
    """

    signed: bool = False

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        return [self.relaxation(logits, progress, torch.Generator())]

    def relaxation(self, logits: Logits, progress: float, noise: torch.Generator) -> Mixture:
        # a pruned option has no weight
        return {n: Choice.dense(t.where(t.isfinite(), 0.0)) for n, t in logits.items()}

    def probabilities(self, logits: Logits) -> Logits:
        """The share of each option in the sum of the absolute weights."""
        absolute = {name: table.abs() for name, table in logits.items()}
        return {name: table / table.sum(-1, keepdim=True) for name, table in absolute.items()}

    def mean(self, logits: Logits, progress: float) -> Mixture:
        return self.relaxation(logits, progress, torch.Generator())

    def scores(self, logits: Logits) -> Logits:
        return {
            name: table.detach() if self.signed else table.detach().abs()
            for name, table in logits.items()
        }
