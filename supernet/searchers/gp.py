"""Bayesian optimisation with a Gaussian process."""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from supernet.bounds import CountOrZero
from supernet.searchers.through_optuna import ThroughOptuna

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@dataclass
class GaussianProcess(ThroughOptuna):
    """Bayesian optimisation in Optuna's implementation: a Gaussian process with a Matern kernel
    over the decisions, and the logarithm of the expected improvement (Ament et al., NeurIPS 2023).
    The first ``random`` candidates are drawn uniformly.
    """

    random: CountOrZero = 10

    def sampler(self, seed: int) -> "BaseSampler":
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import GPSampler

        with warnings.catch_warnings():  # Optuna calls it experimental; its version is pinned
            warnings.simplefilter("ignore", ExperimentalWarning)
            return GPSampler(n_startup_trials=self.random, seed=seed, deterministic_objective=True)
