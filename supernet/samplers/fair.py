"""Paths that train every option of every slot equally often in each single step."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from supernet.cost.budget import TRIES, Budget
from supernet.errors import UserError
from supernet.mixture import Choice, Logits, Mixture
from supernet.randomness import Streams
from supernet.samplers.sampler import Loss, Sampler

AT_ONCE = 256  # sets of paths drawn in one call where a budget may refuse many


@dataclass
class Fair(Sampler):
    """FairNAS's strict fairness (Chu et al., ICCV 2021, algorithm 1).

    For every slot one random permutation of its options is drawn; path k takes the k-th of each, so
    that a step of as many paths as options trains each option exactly once before the weights move.
    (Where groups have different numbers of options there are as many paths as their least common
    multiple, and each option of a slot is trained equally often.)

    Departures: the paper sums the gradients of the paths and here, as for every sampler, they are
    averaged, so that the paper's learning rate corresponds to one that is larger by the number of
    paths. Where a space keeps only some of its edges (DARTS: two in-edges of a node), fair paths
    still run one option on every edge and need not be valid architectures. Within a budget the
    paths are drawn anew, all together, until each of them keeps it; the cost of a path is the sum
    over all that it runs.
    """

    def begin(self, budget: Budget, streams: Streams, device: torch.device) -> None:
        """Raises a UserError where no fair paths keep the budget. Where each option has a cost of
        its own, the mean cost of the paths is that over all options, however they are drawn.
        """
        super().begin(budget, streams, device)
        for metric, limit in budget.limits.items():
            table = budget.tables[metric]
            mean = table.fixed + sum(
                float(costs.mean(dim=1).sum()) for costs in table.options.values()
            )
            if mean > limit and not table.joint:
                raise UserError(
                    f"budget.{metric}={limit:,.0f} with sampler=fair: its paths cost {mean:,.0f} "
                    "in the mean, so some pass it; "
                    "raise it, or choose sampler=uniform"
                )
        if budget.limits and not self.within(self.permutations(streams.host("fair"), TRIES)).any():
            raise UserError(
                f"budget {budget.limits} with sampler=fair: in {TRIES:,} draws there was always a "
                "path that passes it; "
                "raise it, or choose sampler=uniform"
            )

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        rng, found = self.streams.host("paths"), np.flatnonzero([])
        while not found.size:
            sets = self.permutations(rng, AT_ONCE if self.budget.limits else 1)
            found = np.flatnonzero(self.within(sets))
        chosen = {name: table[found[0]] for name, table in sets.items()}
        return [
            {name: Choice.path(table[:, path].tolist()) for name, table in chosen.items()}
            for path in range(self.paths)
        ]

    @property
    def paths(self) -> int:
        return math.lcm(*(len(group.options) for group in self.space.groups))

    def permutations(self, rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
        """``count`` sets of paths: group -> [count, slots, paths], whose rows hold every option
        equally often, in random order.
        """
        return {
            group.name: rng.permuted(
                np.tile(
                    np.arange(len(group.options)),
                    (count, group.slots, self.paths // len(group.options)),
                ),
                axis=-1,
            )
            for group in self.space.groups
        }

    def within(self, sets: dict[str, np.ndarray]) -> np.ndarray:
        """For each set, whether all of its paths keep the budget."""
        keeps = np.ones(len(next(iter(sets.values()))), dtype=bool)
        for metric, limit in self.budget.limits.items():
            table = self.budget.tables[metric]
            costs = [
                np.take_along_axis(table.options[name].numpy()[None], options, -1).sum(1)
                for name, options in sets.items()
            ]
            costs += [
                term.costs.numpy()[tuple(sets[group][:, slot] for group, slot in term.slots)]
                for term in table.joint
            ]
            keeps &= (table.fixed + sum(costs) <= limit).all(axis=1)
        return keeps
