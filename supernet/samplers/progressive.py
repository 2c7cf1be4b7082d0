"""First the largest architecture, then more and more values of every gene, at the end all
values.
"""

import bisect
import math
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch

from supernet.cost.budget import TRIES, Budget
from supernet.errors import UserError
from supernet.mixture import Architecture, Logits, Mixture
from supernet.randomness import Streams
from supernet.samplers.sampler import Loss, Sampler, require_metric


@dataclass
class Progressive(Sampler):
    """Progressive shrinking, after once-for-all (Cai et al., ICLR 2020, section 3.3).

    The values of every gene are put in an order. The first value is the one in the largest
    architecture within the budget. The others are ordered by the cost (``metric``) of that
    architecture with only this gene changed, the most expensive first; values of the same cost keep
    the order in which the space lists them. Values that make that architecture more expensive exist
    only if the budget forbids a larger architecture. They come last, the cheapest first: until they
    join, few draws exceed the budget.

    At first only the first values are drawn. Whenever the progress passes one of ``phases``, some
    of the other values join them. After the last phase the draw is that of
    :class:`~supernet.samplers.uniform.Uniform`.

    One dimension after another widens: kernel, depth, width in the paper. ``dimensions`` are
    patterns of the names of genes; a gene belongs to the first pattern that fits. The phases are
    shared among the dimensions that have genes, and in its own phases an equal share of the values
    of a gene joins. So a space without kernels and depths widens as a whole.

    Departures: the paper distils from the trained largest network; here nothing is distilled. Its
    learned transformation of kernels is a setting of a space.
    """

    phases: list[float] = field(default_factory=lambda: [0.25, 0.5, 0.75])
    dimensions: list[str] = field(default_factory=lambda: ["*kernel*", "*depth*", "*"])
    metric: str = "madds"

    def __post_init__(self) -> None:
        super().__post_init__()
        rising = all(a < b for a, b in zip([0.0, *self.phases], [*self.phases, 1.0], strict=True))
        if not (self.phases and rising):
            raise UserError(
                f"sampler.phases={self.phases}: must be one or more rising shares of the search, "
                "between 0 and 1"
            )

    def begin(self, budget: Budget, streams: Streams, device: torch.device) -> None:
        super().begin(budget, streams, device)
        require_metric(self.metric, budget)
        fitting = [
            [pattern for pattern in self.dimensions if fnmatchcase(gene.name, pattern)]
            for gene in self.space.genes
        ]
        for gene, found in zip(self.space.genes, fitting, strict=True):
            if not found:
                raise UserError(
                    f"sampler.dimensions={self.dimensions}: no pattern fits the decision "
                    f"{gene.name}; add '*' as the last one"
                )
        present = [p for p in self.dimensions if any(found[0] == p for found in fitting)]
        self.dimension = [present.index(found[0]) for found in fitting]
        self.largest = budget.largest(self.metric)
        first, cost = self.space.values(self.largest), budget.tables[self.metric].of
        most = cost(self.largest)
        self.orders = []
        for position, gene in enumerate(self.space.genes):
            others = [value for value in gene.values if value != first[position]]
            costs = {
                v: cost(self.space.express([*first[:position], v, *first[position + 1 :]]))
                for v in others
            }
            self.orders.append(
                [
                    first[position],
                    *sorted(others, key=lambda v: (costs[v] > most, abs(costs[v] - most))),
                ]
            )

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        return [self.space.path(self.draw(bisect.bisect_right(self.phases, progress)))]

    def draw(self, passed: int) -> Architecture:
        """An architecture drawn uniformly from those that are within the budget and contain only
        values that have joined after ``passed`` phases.

        If 10,000 draws find none within the budget, it is the largest architecture, whose values
        have all joined.
        """
        rng = self.streams.host("paths")
        if passed == len(self.phases):
            return self.budget.random(rng)
        # How many dimensions are wide by now; the next one is so in part.
        wide = passed / len(self.phases) * (max(self.dimension) + 1)
        joined = [
            order[: 1 + math.ceil(min(max(wide - dimension, 0), 1) * (len(order) - 1))]
            for dimension, order in zip(self.dimension, self.orders, strict=True)
        ]
        for _ in range(TRIES):
            architecture = self.space.express(
                [values[rng.integers(len(values))] for values in joined]
            )
            if self.budget.allows(architecture):
                return architecture
        return self.largest
