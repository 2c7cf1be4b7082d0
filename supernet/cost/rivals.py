"""The architectures that a derived one has to beat, besides random ones. No search is needed to
know them.
"""

from collections.abc import Iterable, Iterator

from supernet.cost.budget import Budget
from supernet.cost.settings import METRICS
from supernet.errors import UserError, unknown
from supernet.mixture import Architecture
from supernet.spaces.space import Gene, Space

RIVALS = {
    "largest": "the architecture with the most multiply-adds within the budget",
    "whole": "the architecture with the most multiply-adds, whatever the budget is",
    "uniform": "the largest within the budget whose sizes have all the same place in their ranges",
    "hand_made": "the architecture that people have made by hand, if it is within the budget",
}


def require_rivals(names: list[str], space: Space) -> None:
    """Raises a UserError if the space has not all of these rivals."""
    for name in names:
        if name not in RIVALS:
            raise UserError(f"baseline.rivals: {unknown(name, list(RIVALS))}")
        if name == "hand_made" and space.hand_made is None:
            raise UserError(
                f"baseline.rivals=[hand_made]: the space {space.name} has no such architecture; "
                "leave it out"
            )


def within(names: Iterable[str], budget: Budget) -> list[str]:
    """The names of the rivals to train. If the architecture that people made costs more than the
    budget, the largest takes its place. A limit on skip connections is no cost: methods set it.
    """
    made, instead = budget.space.hand_made, dict[str, str]()
    limits = {metric: budget.limits[metric] for metric in METRICS if metric in budget.limits}
    if made is not None and limits:
        costs = budget.costs(budget.space.decode(made))
        if any(costs[metric] > limit for metric, limit in limits.items()):
            instead = {"hand_made": "largest"}
    return list(dict.fromkeys(instead.get(name, name) for name in names))


def rival(name: str, budget: Budget) -> Architecture:
    """The rival of that name.

    Raises:
        UserError: there is no such architecture within the budget.
    """
    space = budget.space
    if name == "hand_made" and space.hand_made is not None:
        return space.decode(space.hand_made)
    if name == "whole":
        return Budget(space, budget.task).largest("madds")
    if name == "largest":
        return budget.largest("madds")
    fitting = list(filter(budget.allows, uniform(space)))
    if not fitting:
        raise UserError(
            "baseline.rivals=[uniform]: no such architecture is within the budget; leave it out"
        )
    return max(fitting, key=lambda one: budget.costs(one)["madds"])


def uniform(space: Space) -> Iterator[Architecture]:
    """The architectures in which every decision has the same place in the range of its options: all
    the first ones, ..., all the last ones. Options that are numbers are put in order first.

    Between the ends there is one architecture for each place that some decision has.
    """
    ranges = [in_order(gene) for gene in space.genes]
    places = {i / (len(one) - 1) for one in ranges if len(one) > 1 for i in range(len(one))}
    for place in sorted(places):
        yield space.express([one[round(place * (len(one) - 1))] for one in ranges])


def in_order(gene: Gene) -> list[str]:
    """The options of a decision, from the smallest to the largest where they are numbers."""
    try:
        return sorted(gene.values, key=float)
    except (TypeError, ValueError):
        return list(gene.values)
