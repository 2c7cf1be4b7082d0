"""DropPath: in training, a branch of a network is left out for some samples."""

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Sets the branch of a sample to zero with ``probability``, and scales the branches that stay,
    so that the mean is the same (Larsson et al. 2017).

    It does so in training only. Random numbers come from ``generator``; ``None`` is torch's own.
    """

    def __init__(self, probability: float = 0.0):
        super().__init__()
        self.probability = probability
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0.0:
            return x
        keep = 1.0 - self.probability
        mask = x.new_empty(len(x), 1, 1, 1).bernoulli_(keep, generator=self.generator)
        return x * (mask / keep)
