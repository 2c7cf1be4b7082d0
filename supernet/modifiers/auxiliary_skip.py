"""An auxiliary skip connection beside the options of every slot; its weight falls to zero."""

import math
from dataclasses import dataclass

import torch

from supernet.bounds import NotNegative
from supernet.errors import UserError, unknown
from supernet.mixture import Choice, Logits, Mixture
from supernet.modifiers.modifier import Modifier, skips, weights_of
from supernet.randomness import Streams
from supernet.spaces.space import Space

DECAYS = ("linear", "cosine")


@dataclass
class AuxiliarySkip(Modifier):
    """The auxiliary skip connection of DARTS- (Chu et al., ICLR 2021, section 3.2, eq. 4), whose
    weight beta falls to zero.

    A skip connection stabilises the training of the options beside it, and the search gives the
    skip option credit for that. A second skip connection, which does not compete with the options,
    takes over this effect. Its weight beta falls from ``start`` to 0 over the search, on a line or
    on half a cosine (``decay``).

    Where the skip option is an identity, a second skip with the weight beta is the same as beta
    added to the weight of the first: the modifier adds beta in every mixture. Where the skip option
    is not an identity, at stride 2, the paper's second skip has a convolution of its own; here both
    skips use the same one.
    """

    start: NotNegative = 1.0
    decay: str = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay not in DECAYS:
            raise UserError(f"modifier.auxiliary_skip.decay: {unknown(self.decay, DECAYS)}")

    def begin(self, space: Space, streams: Streams) -> None:
        super().begin(space, streams)
        self.skips = skips(space, "auxiliary_skip")

    def beta(self, progress: float) -> float:
        """The weight of the auxiliary skip at ``progress``."""
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
