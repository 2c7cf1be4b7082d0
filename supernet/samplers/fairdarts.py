"""All options, each weighted by the sigmoid of its own logit."""

from dataclasses import dataclass

import torch
from torch import Tensor

from supernet.bounds import NotNegative
from supernet.mixture import Choice, Logits, Mixture
from supernet.samplers.sampler import Loss, Sampler


@dataclass
class FairDARTS(Sampler):
    """FairDARTS (Chu et al., ECCV 2020, section 4): the options do not compete, and a loss pulls
    their weights to zero or one.

    The zero-one loss is ``-mean((sigmoid(logits) - 1/2)^2)`` (eq. 4), multiplied by
    ``zero_one_weight``, which is 10 in the authors' code. The scores are the sigmoids.

    Departures: the paper keeps the options whose sigmoid exceeds a threshold (0.85), on at most two
    edges per node, and has no option that gives nothing. Here the space's own rule derives one
    option per slot. The zero-one loss leaves out an option that gives nothing: no other loss moves
    the logit of such an option, so the zero-one loss would push it to the side on which it happened
    to start. Its sigmoid stays at one half, and the option is derived where the sigmoids of all
    others are below one half. The cost term weights the options by the softmax of the logits.
    """

    zero_one_weight: NotNegative = 10.0

    def relaxation(self, logits: Logits, progress: float, noise: torch.Generator) -> Mixture:
        return self.sigmoids(logits)

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        return [self.sigmoids(logits)]

    def mean(self, logits: Logits, progress: float) -> Mixture:
        return self.sigmoids(logits)

    def sigmoids(self, logits: Logits) -> Mixture:
        return {name: Choice.dense(torch.sigmoid(table)) for name, table in logits.items()}

    def penalty(self, logits: Logits, progress: float) -> Tensor:
        counted = [
            logits[group.name][
                :, [index for index, option in enumerate(group.options) if option != group.nothing]
            ].flatten()
            for group in self.space.groups
        ]
        return -self.zero_one_weight * (torch.sigmoid(torch.cat(counted)) - 0.5).square().mean()

    def scores(self, logits: Logits) -> Logits:
        return {name: torch.sigmoid(table.detach()) for name, table in logits.items()}
