"""NSGA-II: a population that spreads along the Pareto front of accuracy and cost."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from supernet.bounds import Two
from supernet.cost.budget import Budget
from supernet.cost.settings import METRICS
from supernet.errors import UserError, unknown
from supernet.evaluate.accuracy import Judgement
from supernet.mixture import Architecture, Logits
from supernet.searchers.through_optuna import ThroughOptuna

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@dataclass
class NSGA2(ThroughOptuna):
    """NSGA-II (Deb et al., 2002) in Optuna's implementation: the highest accuracy for the lowest
    ``cost`` ("params", "madds" or "latency_ms").

    A generation has ``population`` architectures. The crossover is uniform, and each gene of a
    child mutates with probability 1/genes.
    """

    population: Two = 20
    cost: str = "params"

    directions: ClassVar[tuple[Literal["maximize", "minimize"], ...]] = ("maximize", "minimize")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cost not in METRICS:
            raise UserError(f"searcher.cost: {unknown(self.cost, METRICS)}")

    def begin(self, budget: Budget, scores: Logits, rng: np.random.Generator) -> None:
        super().begin(budget, scores, rng)
        self.price = budget.require_table(
            self.cost, f"searcher.cost={self.cost}", "choose another searcher"
        )

    @property
    def batch(self) -> int:
        return self.population

    def sampler(self, seed: int) -> "BaseSampler":
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(population_size=self.population, seed=seed)

    def objectives(self, architecture: Architecture, judgement: Judgement) -> list[float]:
        return [judgement.goodness, self.price.of(architecture)]
