"""A penalty that keeps the logits small, and grows during the search."""

from dataclasses import dataclass

import torch
from torch import Tensor

from supernet.bounds import NotNegative
from supernet.mixture import Logits
from supernet.modifiers.modifier import Modifier


@dataclass
class BetaDecay(Modifier):
    """The regularisation of beta-DARTS (Ye et al., CVPR 2022). It acts on the values of the softmax
    instead of the values of the logits.

    It adds to the loss of the logits ``weight`` times the mean over all slots of
    ``logsumexp(logits)``. The gradient of this term is the softmax: each option pays in proportion
    to its own share. Therefore no option gets far ahead only because it was useful first. The
    decision is left to the gradient at nearly equal shares, when the weights have learnt. The
    factor grows on a line from zero to ``weight``, as in the authors' code, whose weight is 50.
    """

    weight: NotNegative = 50.0

    def penalty(self, logits: Logits, progress: float) -> Tensor:
        slots = [torch.logsumexp(logits[group.name], dim=-1) for group in self.space.groups]
        return self.weight * progress * torch.cat(slots).mean()
