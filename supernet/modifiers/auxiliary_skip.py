"""A skip connection beside the options of every slot, which fades."""

import math
from dataclasses import dataclass

import torch

from supernet.errors import UserError, require, unknown
from supernet.mixture import Choice, Logits, Mixture
from supernet.modifiers.modifier import Modifier, skips, weights_of
from supernet.randomness import Streams
from supernet.spaces.space import Space

DECAYS = ("linear", "cosine")


@dataclass
class AuxiliarySkip(Modifier):
    """The auxiliary skip connection of DARTS- (Chu et al., ICLR 2021, section 3.2, eq. 4), whose
    weight beta falls to zero.

    A skip steadies the training of whatever stands beside it, and is credited for it; a second one,
    outside the competition, takes over that service. Its weight falls from ``start`` to 0 over the
    search, on a line or half a cosine.

    Where the skip option is an identity, a second one with the weight beta is the same as beta
    added to the weight of the first: this is what is done, in every mixture. Where it is none, at
    stride 2, the paper's second skip has a convolution of its own; here both use the same.
    """

    start: float = 1.0
    decay: str = "linear"

    def __post_init__(self) -> None:
        require("modifier.auxiliary_skip.start", self.start, least=0)
        if self.decay not in DECAYS:
            raise UserError(f"modifier.auxiliary_skip.decay: {unknown(self.decay, DECAYS)}")

    def begin(self, space: Space, streams: Streams) -> None:
        super().begin(space, streams)
        self.skips = skips(space, "auxiliary_skip")

    def beta(self, progress: float) -> float:
        return self.start * (
            1 - progress if self.decay == "linear" else (1 + math.cos(math.pi * progress)) / 2
        )

    def applied(
        self, mixture: Mixture, logits: Logits, progress: float, noise: torch.Generator
    ) -> Mixture:
        changed = dict(mixture)
        for group in self.space.groups:
            if (skip := self.skips.get(group.name)) is None:
                continue
            choice = mixture[group.name]
            weights = weights_of(choice, group, next(iter(logits.values())))
            extra = torch.zeros_like(weights)
            extra[:, skip] = self.beta(progress)
            active = tuple(slot if skip in slot else (*slot, skip) for slot in choice.active)
            changed[group.name] = Choice(active, weights + extra)
        return changed
