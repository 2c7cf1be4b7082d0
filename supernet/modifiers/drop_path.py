"""Options are left out at random, so that the supernet does not depend on any single option."""

from dataclasses import dataclass

import torch

from supernet.bounds import Probability
from supernet.mixture import Choice, Logits, Mixture
from supernet.modifiers.modifier import Modifier, weights_of


@dataclass
class OptionDropout(Modifier):
    """Drop-path in the supernet, a regularisation of the inner problem (Zela et al., ICLR 2020,
    section 5.1).

    Every option except a skip and the option that gives nothing is left out with a probability that
    grows on a line from zero to ``probability`` at the end of the search. An option that stays is
    scaled up, so that its mean does not change. An option that is left out is not computed. The
    paper tries probabilities from 0 to 0.6.

    Departure: an option is left out for all images of a step and in all cells that read its slot,
    not for each image separately.
    """

    probability: Probability = 0.2

    draws = True

    def applied(
        self, mixture: Mixture, logits: Logits, progress: float, noise: torch.Generator
    ) -> Mixture:
        if not (probability := self.probability * progress):
            return mixture
        changed = dict(mixture)
        for group in self.space.groups:
            choice = mixture[group.name]
            kept = (group.skip, group.nothing)
            drops = torch.tensor([option not in kept for option in group.options])
            stays = ((torch.rand(group.shape, generator=noise) >= probability) | ~drops).tolist()
            active = tuple(
                tuple(o for o in slot if stay[o])
                for slot, stay in zip(choice.active, stays, strict=True)
            )
            weights = weights_of(choice, group, next(iter(logits.values())))
            scale = torch.where(drops, 1 / (1 - probability), 1.0).to(weights)
            changed[group.name] = Choice(active, weights * scale)
        return changed
