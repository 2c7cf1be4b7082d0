"""A predictor learns from what is judged, and proposes what it expects to be best."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from supernet.bounds import Count, CountOrZero
from supernet.cost.budget import Budget
from supernet.evaluate.accuracy import Judgement
from supernet.mixture import Architecture, Logits
from supernet.searchers.searcher import Judged, Searcher, order

PARENTS = 5  # the best so far, whose neighbours may be proposed


@dataclass
class Predictor(Searcher):
    """Search by a predictor of the accuracy (White et al., AAAI 2021, algorithm 1), in all
    ``candidates`` architectures. The first ``random`` ones are drawn uniformly. Then, again and
    again, the predictor is fitted to all judgements, and proposes ``batch`` architectures.

    They are chosen from ``pool`` random ones and the neighbours of the best five: each gets a
    number that is drawn from the normal distribution of its prediction (independent Thompson
    sampling), and the highest are taken.

    Departure: the predictor is a Gaussian process of scikit-learn, not an ensemble of networks. It
    reads the decisions, each as a number for each value that is 1 or 0, and the logarithm of each
    cost that the space has a table for. It predicts the rank of an accuracy among all, put on a
    normal distribution, because accuracies have a long tail of bad architectures.
    """

    candidates: Count = 100
    random: Count = 20
    batch: Count = 10
    pool: CountOrZero = 500

    def begin(self, budget: Budget, scores: Logits, rng: np.random.Generator) -> None:
        super().begin(budget, scores, rng)
        self.left, self.genes = self.candidates, self.space.genes
        self.judged: dict[Architecture, Judgement] = {}

    def ask(self) -> Sequence[Architecture]:
        count = min(self.batch if self.judged else self.random, self.left)
        self.left -= count
        if not self.judged:
            return [self.budget.random(self.rng) for _ in range(count)]
        return self._expected_best(count) if count else []

    def tell(self, judged: Sequence[Judged]) -> None:
        self.judged.update(judged)

    def _expected_best(self, count: int) -> list[Architecture]:
        pool = self._pool()
        mean, deviation = self._predicted(pool)
        return [pool[i] for i in np.argsort(-self.rng.normal(mean, deviation))[:count]]

    def _pool(self) -> list[Architecture]:
        """What can be proposed: architectures within the budget that are not judged yet."""
        best = sorted(self.judged, key=lambda one: order(self.judged[one]))[:PARENTS]
        around = [one for parent in best for one in self.space.neighbours(parent)]
        near = [one for one in around if self.budget.allows(one)]
        far = [self.budget.random(self.rng) for _ in range(self.pool)]
        new = [one for one in dict.fromkeys([*near, *far]) if one not in self.judged]
        return new or [self.budget.random(self.rng)]

    def _predicted(self, pool: Sequence[Architecture]) -> tuple[np.ndarray, np.ndarray]:
        """The mean and the standard deviation of what is predicted of each architecture."""
        # here, because this takes a second
        from scipy.stats import norm, rankdata
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
        from sklearn.preprocessing import StandardScaler

        features = np.array([self.features(one) for one in (*self.judged, *pool)])
        scaled = StandardScaler().fit_transform(features)
        ranks = rankdata([judgement.goodness for judgement in self.judged.values()])
        kernel = ConstantKernel() * Matern(length_scale=5.0, nu=1.5) + WhiteKernel(0.1)
        process = GaussianProcessRegressor(kernel, random_state=0)
        with warnings.catch_warnings():  # the noise of a table is zero, the least that is allowed
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(scaled[: len(ranks)], norm.ppf((ranks - 0.5) / len(ranks)))
        return process.predict(scaled[len(ranks) :], return_std=True)

    def features(self, architecture: Architecture) -> np.ndarray:
        """What the predictor reads of an architecture [features]."""
        values = self.space.values(architecture)
        chosen = [
            float(value == own)
            for gene, own in zip(self.genes, values, strict=True)
            for value in gene.values
        ]
        costs = [np.log1p(table.of(architecture)) for table in self.budget.tables.values()]
        return np.array([*chosen, *costs])
