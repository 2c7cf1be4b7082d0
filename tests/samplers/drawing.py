"""Samplers that have begun, and functions of what they draw."""

import torch

from supernet.mixture import Architecture, Mixture
from supernet.randomness import Streams
from supernet.samplers.sampler import Sampler
from tests.budgets import budget_of


def begun(sampler: Sampler, space, seed: int = 0, **limits: float) -> Sampler:
    sampler.begin(budget_of(space, **limits), Streams(seed), torch.device("cpu"))
    return sampler


def judged(mixture: Mixture) -> torch.Tensor:
    """Takes the place of the loss of a mixture on a step's images: a number that differs between
    mixtures.
    """
    indices = [option for choice in mixture.values() for slot in choice.active for option in slot]
    return torch.tensor(
        [(index + 1) * 0.7**position for position, index in enumerate(indices)]
    ).sum()


def is_path(mixture: Mixture) -> bool:
    return all(
        choice.weights is None and {len(slot) for slot in choice.active} == {1}
        for choice in mixture.values()
    )


def cost(table, mixture: Mixture) -> float:
    """The cost of a path, even if it is not a valid architecture."""
    rows = (
        (name, slot, option)
        for name, choice in mixture.items()
        for slot, (option,) in enumerate(choice.active)
    )
    alone = sum(float(table.options[name][slot, option]) for name, slot, option in rows)
    joint = sum(
        float(term.costs[tuple(mixture[group].active[slot][0] for group, slot in term.slots)])
        for term in table.joint
    )
    return table.fixed + alone + joint


def architecture_of(space, path: Mixture) -> Architecture:
    """The inverse of :meth:`Space.path`."""
    rows = {
        group.name: [group.options[option] for (option,) in path[group.name].active]
        for group in space.groups
    }
    return space.validate(Architecture.of(space.name, **rows))
