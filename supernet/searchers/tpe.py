"""The tree-structured Parzen estimator, which prefers values that are more frequent in good
architectures than in bad ones.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from supernet.bounds import CountOrZero
from supernet.searchers.through_optuna import ThroughOptuna

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@dataclass
class TPE(ThroughOptuna):
    """The tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011) in Optuna's
    implementation. The first ``random`` candidates are drawn uniformly.
    """

    random: CountOrZero = 10

    def sampler(self, seed: int) -> "BaseSampler":
        from optuna.samplers import TPESampler

        return TPESampler(n_startup_trials=self.random, seed=seed)
