"""Options with low logits are pruned during the search."""

import math
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

    ``stages`` are pairs [share of the search, number of options]. From this share on, each slot
    keeps only this number of options: those with the highest logits at that moment. The other
    options are pruned: they are not computed and cost nothing, and the sampler sees minus infinity
    as their logits. At least two options must be left, so that no slot is left with only the option
    that gives nothing.

    Departures: P-DARTS's weights and logits then begin again, with more cells; here the setting
    ``search.depths`` does that, and without it they go on. DrNAS then widens partial channels; here
    the setting ``search.widths`` does that. A sampler that does not read logits still draws pruned
    options; in a slot where it does, nothing runs.
    """

    stages: list[Any] = field(default_factory=lambda: [[0.333, 5], [0.667, 3]])

    def __post_init__(self) -> None:
        super().__post_init__()
        require_stages("modifier.pruning.stages", self.stages)
        for _, options in self.stages:
            if not 2 <= options < math.inf or options != int(options):
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
                count = min(int(self.stages[self.passed][1]), int(kept[0].sum()))
                best = seen.topk(count, dim=-1).indices
                self.kept[name] = torch.zeros_like(kept).scatter_(-1, best, True)
            self.passed += 1

    def seen(self, logits: Logits) -> Logits:
        return logits | {
            name: logits[name].masked_fill(~kept.to(logits[name].device), -torch.inf)
            for name, kept in self.kept.items()
            if name in logits
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
