"""Options of low logits are given up on the way."""

from dataclasses import dataclass, field
from typing import Any

import torch

from supernet.errors import UserError, require_stages
from supernet.mixture import Choice, Logits, Mixture
from supernet.modifiers.modifier import Modifier
from supernet.randomness import Streams
from supernet.spaces.space import Space


@dataclass
class Pruning(Modifier):
    """Search-space approximation of P-DARTS (Chen et al., ICCV 2019, section 3.2) and DrNAS (Chen
    et al., ICLR 2021, section 3.3).

    ``stages`` are pairs [share of the search, options]: from that share on, each slot has only so
    many options left, those of the highest logits at that moment. The others are not computed any
    more, and cost nothing; the sampler sees their logits as minus infinity. At least two must be
    left, so that no slot has the option that gives nothing alone.

    Departure: P-DARTS's weights and logits then start anew, with more cells, which here is
    ``search.depths``; without it, they go on. DrNAS then widens partial channels, which here is
    ``search.widths``. A sampler that does not look at logits goes on drawing what was given up, and
    then runs nothing in that slot.
    """

    stages: list[Any] = field(default_factory=lambda: [[0.333, 5], [0.667, 3]])

    def __post_init__(self) -> None:
        require_stages("modifier.pruning.stages", self.stages)
        for _, options in self.stages:
            if options < 2 or options != int(options):
                raise UserError(
                    f"modifier.pruning.stages: {options} options: must be a whole number of at "
                    "least 2"
                )

    def begin(self, space: Space, streams: Streams) -> None:
        super().begin(space, streams)
        self.kept = {
            group.name: torch.ones(group.shape, dtype=torch.bool) for group in space.groups
        }
        self.passed = 0

    def advance(self, logits: Logits, progress: float) -> None:
        while self.passed < len(self.stages) and progress + 1e-9 >= self.stages[self.passed][0]:
            for name, kept in self.kept.items():
                seen = logits[name].detach().cpu().masked_fill(~kept, -torch.inf)
                best = seen.topk(
                    min(int(self.stages[self.passed][1]), int(kept[0].sum())), dim=-1
                ).indices
                self.kept[name] = torch.zeros_like(kept).scatter_(-1, best, True)
            self.passed += 1

    def seen(self, logits: Logits) -> Logits:
        given_up = {
            name: ~kept.to(logits[name].device)
            for name, kept in self.kept.items()
            if name in logits
        }
        return logits | {
            name: logits[name].masked_fill(mask, -torch.inf) for name, mask in given_up.items()
        }

    def applied(
        self, mixture: Mixture, logits: Logits, progress: float, noise: torch.Generator
    ) -> Mixture:
        changed = dict(mixture)
        for name, kept in self.kept.items():
            rows, choice = kept.tolist(), mixture[name]
            active = tuple(
                tuple(o for o in slot if row[o])
                for slot, row in zip(choice.active, rows, strict=True)
            )
            changed[name] = Choice(active, choice.weights)
        return changed

    def state_dict(self) -> dict[str, Any]:
        return {"kept": dict(self.kept), "passed": self.passed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept, self.passed = dict(state["kept"]), state["passed"]
