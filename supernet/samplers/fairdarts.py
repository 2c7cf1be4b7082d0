"""All options, each weighted by the sigmoid of its own logit."""

from dataclasses import dataclass

import torch
from torch import Tensor

from supernet.errors import require
from supernet.mixture import Choice, Logits, Mixture
from supernet.samplers.sampler import Loss, Sampler


@dataclass
class FairDARTS(Sampler):
    """FairDARTS (Chu et al., ECCV 2020, section 4): options do not compete, and a loss pulls their
    weights to zero or one.

    The zero-one loss is ``-mean((sigmoid(logits) - 1/2)^2)`` (eq. 4), weighted by
    ``zero_one_weight``, which is 10 in the authors' code. The scores are the sigmoids.

    Departures: the paper keeps the options whose sigmoid passes a threshold (0.85), at most two
    edges a node, and has no option that gives nothing; here the space's rule derives one option a
    slot. Where a group has an option that gives nothing, no loss but the zero-one loss would move its logit, whichever
    way it happened to start; it is left out of that, stays at one half, and is derived where all
    others fall below. The cost term counts options by the softmax of the logits.
    """

    zero_one_weight: float = 10.0

    def __post_init__(self) -> None:
        require("sampler.zero_one_weight", self.zero_one_weight, least=0)

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
