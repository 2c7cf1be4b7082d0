"""How large a space is: its decisions, its architectures, and what they cost."""

import math
import statistics
from collections.abc import Iterator

from supernet.cost.budget import Budget, figure
from supernet.cost.latency import Bench
from supernet.cost.table import METRICS
from supernet.mixture import Architecture
from supernet.randomness import Streams
from supernet.runs.setup import Setup
from supernet.spaces.capabilities import Costed

DRAWN = 1001  # random architectures, whose median cost is given
NAMES = {"params": "parameters", "madds": "multiply-adds"}


def profile(setup: Setup, budget: Budget) -> Iterator[str]:
    """Yields the decisions and the number of architectures of the space, and the least, the median
    and the largest cost. The ends are exact, the median is that of random architectures. All are
    within the budget.

    The latency is measured, in milliseconds, for the networks of the least, the median and the most
    multiply-adds.
    """
    space, genes = setup.space, setup.space.genes
    number = math.prod(len(gene.values) for gene in genes)
    many = f"{number:,}" if number < 10**9 else f"{number:.2e}"
    yield f"space: {space.name}, {len(genes)} decisions, {many} architectures"
    groups = (
        f"{group.name}{f' × {group.slots}' if group.slots > 1 else ''}: {', '.join(group.options)}"
        for group in space.groups
    )
    yield f"choices: {'; '.join(groups)}"
    yield from space.notes()
    if not isinstance(space, Costed):
        return
    rng = Streams(setup.config.seed).host("profile")
    drawn = [budget.random(rng) for _ in range(DRAWN)]
    for metric in METRICS:
        cost = budget.tables[metric].of
        least, median, most = (figure(cost(one)) for one in ends(budget, metric, drawn))
        yield f"{NAMES[metric]}: {least} to {most}, median {median}"
    networks = ends(budget, "madds", drawn)
    bench = Bench(space, setup.task, setup.device, Streams(setup.config.seed), rounds=5)
    times = bench.timed(bench.networks(networks))
    least, median, most = (f"{times[one]:.3g}" for one in networks)
    yield f"latency of these networks, one input: {least} to {most} ms, median {median} ms"


def ends(budget: Budget, metric: str, drawn: list[Architecture]) -> list[Architecture]:
    """The architectures of the least, the median and the largest cost."""
    cost = budget.tables[metric].of
    median = statistics.median_low([cost(one) for one in drawn])
    middle = next(one for one in drawn if cost(one) == median)
    return [budget.smallest(metric), middle, budget.largest(metric)]
