"""The logits are held small, the more the longer the search goes on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from supernet.errors import require
from supernet.mixture import Logits
from supernet.modifiers.modifier import Modifier


@dataclass
class BetaDecay(Modifier):
    """The regularisation of beta-DARTS (Ye et al., CVPR 2022), of the softmax's values in place of
    the logits'.

    The loss of the logits gets ``weight`` times the mean over all slots of ``logsumexp(logits)``,
    whose gradient is the softmax: an option pays in proportion to its own share, so that no option
    runs ahead for having been of use first, and what decides is the gradient at nearly equal shares
    when the weights have learnt. The factor grows on a line from zero to ``weight``, as in the
    authors' code, which has 50.
    """

    weight: float = 50.0

    def __post_init__(self) -> None:
        require("modifier.beta_decay.weight", self.weight, least=0)

    def penalty(self, logits: Logits, progress: float) -> Tensor:
        slots = [torch.logsumexp(logits[group.name], dim=-1) for group in self.space.groups]
        return self.weight * progress * torch.cat(slots).mean()
