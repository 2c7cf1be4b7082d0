"""How large a space is: its decisions, its architectures, and what they cost."""

import math
import statistics
from collections.abc import Iterator

from supernet.cost.budget import Budget, figure
from supernet.cost.count import count
from supernet.cost.latency import Bench
from supernet.cost.table import METRICS
from supernet.mixture import Architecture
from supernet.randomness import Streams
from supernet.runs.setup import Setup
from supernet.spaces.capabilities import Costed
from supernet.spaces.growing.space import GrowingSpace

DRAWN = 1001  # random architectures, whose median cost is given
NAMES = {"params": "parameters", "madds": "multiply-adds"}


def profile(setup: Setup, budget: Budget) -> Iterator[str]:
    """Yields the decisions and the number of architectures of the space, and the least, the median
    and the largest cost. The ends are exact, the median is that of random architectures. All are
    within the budget.

    The latency is measured, in milliseconds, for the networks of the least, the median and the most
    multiply-adds.
    """
    if isinstance(setup.space, GrowingSpace):
        yield from of_growth(setup, setup.space)
        return
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


def of_growth(setup: Setup, space: GrowingSpace) -> Iterator[str]:
    """The same for a space that grows: its seeds, and what can be added to them."""
    models = setup.config.growth.models
    yield (
        f"space: {space.name}, grows in up to {space.steps} steps of {space.keep} shortcuts a "
        f"place, until there are {models:,} networks"
    )
    for name in space.seed_names:
        cost = count(space.standalone(space.seed(name), setup.task, "search"), setup.task)
        places = (f"{place}: {len(found)}" for place, found in space.candidates(name).items())
        yield (
            f"seed {name}: {cost.params:,} parameters, {cost.madds:,} multiply-adds; candidates at "
            f"each place: {', '.join(places)}"
        )


def ends(budget: Budget, metric: str, drawn: list[Architecture]) -> list[Architecture]:
    """The architectures of the least, the median and the largest cost."""
    cost = budget.tables[metric].of
    median = statistics.median_low([cost(one) for one in drawn])
    middle = next(one for one in drawn if cost(one) == median)
    return [budget.smallest(metric), middle, budget.largest(metric)]
