"""What the searchers that use Optuna have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from supernet.bounds import Count
from supernet.cost.budget import Budget
from supernet.evaluate.accuracy import Judgement
from supernet.mixture import Architecture, Logits
from supernet.searchers.searcher import Judged, Searcher

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial


@dataclass
class ThroughOptuna(Searcher, ABC):
    """``candidates`` trials of an Optuna study that is kept in memory. The parameters of the study
    are the genes, as indices of their values.

    A trial outside the budget fails, and the nearest architecture within the budget takes its
    place: the failed trial is not judged, and Optuna's sampler does not use it.
    """

    candidates: Count = 100

    directions: ClassVar[tuple[Literal["maximize", "minimize"], ...]] = ("maximize",)

    @property
    def batch(self) -> int:
        """The number of trials that the study proposes at once."""
        return 1

    @abstractmethod
    def sampler(self, seed: int) -> "BaseSampler":
        """The Optuna sampler that proposes the trials."""

    def objectives(self, architecture: Architecture, judgement: Judgement) -> list[float]:
        """The values that the study optimises, each in its direction of :attr:`directions`."""
        return [judgement.goodness]

    def begin(self, budget: Budget, scores: Logits, rng: np.random.Generator) -> None:
        import optuna  # here, because this takes half a second

        super().begin(budget, scores, rng)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(
            sampler=self.sampler(int(rng.integers(2**31))), directions=self.directions
        )
        self.genes = self.space.genes
        self.parameters: dict[str, BaseDistribution] = {
            gene.name: optuna.distributions.CategoricalDistribution(range(len(gene.values)))
            for gene in self.genes
        }
        self.left = self.candidates

    def ask(self) -> Sequence[Architecture]:
        self.trials = [self._trial() for _ in range(min(self.batch, self.left))]
        self.left -= len(self.trials)
        return [self._express(trial) for trial in self.trials]

    def _trial(self) -> "Trial":
        from optuna.trial import TrialState

        trial = self.study.ask(self.parameters)
        architecture = self._express(trial)
        if self.budget.allows(architecture):
            return trial
        self.study.tell(trial, state=TrialState.FAIL)
        values = self.space.values(self.budget.nearest(architecture))
        self.study.enqueue_trial(
            {
                gene.name: gene.values.index(value)
                for gene, value in zip(self.genes, values, strict=True)
            }
        )
        return self.study.ask(self.parameters)

    def _express(self, trial: "Trial") -> Architecture:
        return self.space.express([gene.values[trial.params[gene.name]] for gene in self.genes])

    def tell(self, judged: Sequence[Judged]) -> None:
        for trial, one in zip(self.trials, judged, strict=True):
            self.study.tell(trial, self.objectives(*one))
