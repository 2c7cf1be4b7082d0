"""How much a rival may try: as much as the methods took, searching and all."""

from collections.abc import Sequence
from statistics import fmean

from supernet.config import Config, build
from supernet.runs.trial import epochs_of
from supernet.searchers.searcher import Searcher
from supernet.searchers.successive_halving import SuccessiveHalving
from supernet.study.comparison import Row, finding_seconds

MOST = 10_000  # architectures


def candidates(config: Config, methods: Sequence[Row]) -> int:
    """With how many architectures a search from scratch can begin in the mean time that the
    searches of the methods took; at least one. ``config`` is that of the rival, ``methods`` are the
    results of the methods' runs.

    Both sides then retrain what they have found, which costs the same. A candidate learns from a
    part of the images, so it takes that part of the time of a retraining.
    """
    seconds = fmean(finding_seconds(one) for one in methods)
    retraining = fmean(
        one["retrain"]["seconds"] / len(one["retrain"]["accuracy"]) for one in methods
    )
    affordable = seconds / (retraining * (1 - config.data.architecture_share))
    count = 1
    while count < MOST and trainings(config, count + 1) <= affordable:
        count += 1
    return count


def trainings(config: Config, count: int) -> float:
    """How many whole trainings a search from scratch takes that begins with ``count``
    architectures.
    """
    searcher = build(config.searcher | {"candidates": count}, "searcher", Searcher)
    if not isinstance(searcher, SuccessiveHalving):
        return count
    total = 0
    for number, trained in enumerate(searcher.counts, start=1):
        share = float(searcher.growth or searcher.eta) ** (number - searcher.rounds)
        total += trained * epochs_of(config.retrain, share)
    return total / config.retrain.epochs
