"""Skip connections are left out at random."""

from dataclasses import dataclass, field
from typing import Any

import torch

from supernet.errors import require, require_stages
from supernet.mixture import Choice, Logits, Mixture
from supernet.modifiers.modifier import Modifier, skips, weights_of
from supernet.randomness import Streams
from supernet.spaces.space import Space


@dataclass
class SkipDropout(Modifier):
    """Search-space regularisation of P-DARTS (Chen et al., ICCV 2019, section 3.3): dropout after
    each skip option.

    ``stages`` are pairs [share of the search, probability]. From this share on, a skip is left out
    with this probability, which falls on a line to zero at the end of the stage. A skip that stays
    is scaled up, so that its mean does not change. A skip that is left out is not computed.

    Departures: a whole skip is left out for one step, in all cells that read its slot, not single
    numbers of its output. In the authors' code, the probability falls exponentially once the logits
    learn.
    """

    stages: list[Any] = field(default_factory=lambda: [[0.0, 0.0], [0.333, 0.4], [0.667, 0.7]])

    draws = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_stages("modifier.skip_dropout.stages", self.stages)
        for _, probability in self.stages:
            require("modifier.skip_dropout.stages: a probability", probability, least=0, below=1)

    def begin(self, space: Space, streams: Streams) -> None:
        super().begin(space, streams)
        self.skips = skips(space, "skip_dropout")

    def probability(self, progress: float) -> float:
        """The probability at ``progress`` with which a skip is left out."""
        ends = [start for start, _ in self.stages[1:]] + [1.0]
        for (start, probability), end in zip(self.stages, ends, strict=True):
            if start <= progress + 1e-9 < end:
                return probability * (1 - (progress - start) / (end - start))
        return 0.0

    def applied(
        self, mixture: Mixture, logits: Logits, progress: float, noise: torch.Generator
    ) -> Mixture:
        if not (probability := self.probability(progress)):
            return mixture
        changed = dict(mixture)
        for group in self.space.groups:
            if (skip := self.skips.get(group.name)) is None:
                continue
            choice = mixture[group.name]
            stays = (torch.rand(group.slots, generator=noise) >= probability).tolist()
            active = tuple(
                tuple(o for o in slot if o != skip or stay)
                for slot, stay in zip(choice.active, stays, strict=True)
            )
            weights = weights_of(choice, group, next(iter(logits.values())))
            scale = torch.ones_like(weights)
            scale[:, skip] = 1 / (1 - probability)
            changed[group.name] = Choice(active, weights * scale)
        return changed
