"""Paths that train every option of every slot equally often in each step."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from supernet.cost.budget import TRIES, Budget
from supernet.errors import UserError
from supernet.mixture import Choice, Logits, Mixture
from supernet.randomness import Streams
from supernet.samplers.sampler import Loss, Sampler

AT_ONCE = 256  # sets of paths that are drawn in one call under a budget, which may reject many


@dataclass
class Fair(Sampler):
    """FairNAS's strict fairness (Chu et al., ICCV 2021, algorithm 1).

    For every slot, one random permutation of its options is drawn; path k takes the k-th option of
    each permutation. A step with as many paths as options therefore trains each option exactly once
    before the weights move. Where groups have different numbers of options, the number of paths is
    the least common multiple of these numbers, and each option of a slot is trained equally often.

    Departures: the paper sums the gradients of the paths. Here they are averaged, as for every
    sampler, so the paper's learning rate corresponds to a rate here that is larger by a factor of
    the number of paths. In a space that keeps only some of its edges (DARTS: two in-edges of each
    node), fair paths still run one option on every edge, and need not be valid architectures. Under
    a budget, all paths of a step are drawn again together until each of them is within the budget;
    the cost of a path is the sum of the costs of everything that it runs.
    """

    def begin(self, budget: Budget, streams: Streams, device: torch.device) -> None:
        """Called once before the first step.

        If each option has a cost of its own, the mean cost of the paths is the mean over all
        options, however the paths are drawn. A budget below this mean is impossible.

        Raises:
            UserError: no fair paths are within the budget.
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
                    "in the mean, so some of them exceed the budget; raise the budget, or choose "
                    "sampler=uniform"
                )
        if budget.limits and not self.within(self.permutations(streams.host("fair"), TRIES)).any():
            raise UserError(
                f"budget {budget.limits} with sampler=fair: in each of {TRIES:,} draws, at "
                "least one path exceeded the budget; raise the budget, or choose sampler=uniform"
            )

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        rng = self.streams.host("paths")
        while True:
            sets = self.permutations(rng, AT_ONCE if self.budget.limits else 1)
            allowed = np.flatnonzero(self.within(sets))
            if allowed.size:
                break
        chosen = {name: options[allowed[0]] for name, options in sets.items()}
        return [
            {name: Choice.path(options[:, path].tolist()) for name, options in chosen.items()}
            for path in range(self.paths)
        ]

    @property
    def paths(self) -> int:
        """The number of paths in a step: the least common multiple of the groups' numbers of
        options.
        """
        return math.lcm(*(len(group.options) for group in self.space.groups))

    def permutations(self, rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
        """Draws ``count`` sets of paths: group -> option indices [count, slots, paths].

        Each row (the options of one slot, path by path) holds every option equally often, in random
        order.
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
        """For each of the ``sets`` of paths, whether all of its paths are within the budget
        [count].
        """
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
