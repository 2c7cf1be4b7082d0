"""NSGA-II: a population that spreads along the front of accuracy and cost."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from supernet.cost.budget import METRICS
from supernet.errors import UserError, require, unknown
from supernet.evaluate.accuracy import Judgement
from supernet.mixture import Architecture
from supernet.searchers.through_optuna import ThroughOptuna

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@dataclass
class NSGA2(ThroughOptuna):
    """The most accuracy for the least ``cost`` ("params", "madds" or "latency_ms"), by generations
    of ``population`` (Deb et al., 2002), as Optuna has it: uniform crossover, and each gene of a
    child mutates with probability 1/genes.
    """

    population: int = 20
    cost: str = "params"

    directions: ClassVar[tuple[str, ...]] = ("maximize", "minimize")

    def __post_init__(self):
        super().__post_init__()
        require("searcher.population", self.population, least=2)
        if self.cost not in METRICS:
            raise UserError(f"searcher.cost: {unknown(self.cost, METRICS)}")

    @property
    def batch(self) -> int:
        return self.population

    def sampler(self, seed: int) -> "BaseSampler":
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(population_size=self.population, seed=seed)

    def objectives(self, architecture: Architecture, judgement: Judgement) -> list[float]:
        return [judgement.accuracy, self.budget.tables[self.cost].of(architecture)]
