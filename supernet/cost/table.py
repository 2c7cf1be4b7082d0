"""What an architecture costs, as a sum over its choices: exact for parameters and multiply-adds, a
model for latency.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from supernet.cost.count import count
from supernet.errors import UserError
from supernet.mixture import Architecture, Choice, Mixture
from supernet.spaces.capabilities import Costed, Itemised, Slot
from supernet.spaces.space import Space
from supernet.task import Task

CHECKED = 5  # random architectures on which the terms of a space are compared with whole networks


@dataclass(frozen=True)
class Term:
    """What the options of several ``slots`` cost together: ``costs`` (float64) has one axis for
    each slot.
    """

    slots: tuple[Slot, ...]
    costs: Tensor

    @cached_property
    def _nested(self) -> list:
        """The same numbers as ``costs``, which are looked up thirty times as fast."""
        return self.costs.tolist()

    def of(self, path: Mixture) -> float:
        """The cost in a mixture of one option for each slot."""
        found = self._nested
        for group, slot in self.slots:
            found = found[path[group].active[slot][0]]
        return found


@dataclass(frozen=True)
class CostTable:
    """The costs of a space's architectures, as a sum of terms.

    ``fixed`` is what every network of the space costs, ``options[group]`` (float64 [slots,
    options]) what each choice adds by itself, and each of ``joint`` what several choices add
    together.
    """

    space: Space
    fixed: float
    options: dict[str, Tensor]
    joint: tuple[Term, ...] = ()

    def of(self, architecture: Architecture) -> float:
        """The cost of an architecture."""
        total, path = self.fixed, self.space.path(architecture)
        for name, choice in path.items():
            total += sum(
                row[option] for row, (option,) in zip(self._rows[name], choice.active, strict=True)
            )
        for term in self.joint:
            total += term.of(path)
        return total

    def __neg__(self) -> "CostTable":
        """The table of the opposite costs."""
        return CostTable(
            self.space,
            -self.fixed,
            {name: -table for name, table in self.options.items()},
            tuple(Term(term.slots, -term.costs) for term in self.joint),
        )

    @cached_property
    def _rows(self) -> dict[str, list[list[float]]]:
        """The same numbers as ``options``, which are looked up thirty times as fast: budgets draw
        thousands of architectures.
        """
        return {name: table.tolist() for name, table in self.options.items()}

    def expected(self, mixture: Mixture) -> Tensor:
        """The mean cost of architectures drawn by a dense mixture, differentiable in its weights
        (Cai et al., ICLR 2019, eq. 8).

        Slots are drawn independently, so that a term over several slots has the mean over all
        combinations, weighted by the products of their probabilities. A slot counts as often as the
        space keeps it (:meth:`Space.presence`): in DARTS's cells 2 of a node's in-edges.
        """
        total = torch.zeros(())
        for name, choice in mixture.items():
            table = self.options[name] * self.space.presence(name)[:, None]
            total = total + (choice.weights * table.to(choice.weights)).sum()
        for term in self.joint:
            mean = term.costs
            for group, slot in reversed(term.slots):  # one axis after the other, the last first
                row = mixture[group].weights[slot] * self.space.presence(group)[slot]
                mean = mean.to(row) @ row
            total = total + mean
        return total + self.fixed


def counted(space: Space, task: Task) -> dict[str, CostTable]:
    """The tables of ``params`` and ``madds`` (multiply-adds an input), as
    :func:`supernet.cost.count.count` has them. There is none for a space that is not
    :class:`~supernet.spaces.capabilities.Costed`.

    Raises:
        UserError: the terms of the space do not give the costs of its networks.
    """
    if isinstance(space, Itemised):
        return counted_by_modules(space, task)
    if isinstance(space, Costed):
        return counted_by_differences(space, task)
    return {}


# --- of a supernet that holds each option as a module of its own


def counted_by_modules(space: Itemised, task: Task) -> dict[str, CostTable]:
    """The tables of a space from the modules of one supernet."""
    with torch.device("meta"):
        network = space.supernet(task, "evaluation").eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(task.example(1, "meta"), everything(space))
    flops = counter.get_flop_counts()
    root = type(network).__name__

    def params(name: str, module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters(recurse=False))

    def madds(
        name: str, module: nn.Module
    ) -> int:  # of leaves: the counter books a module's flops with its parents too
        leaf = not any(True for _ in module.children())
        return sum(flops.get(f"{root}.{name}", {}).values()) // 2 if leaf else 0

    return {"params": tabulated(space, network, params), "madds": tabulated(space, network, madds)}


def everything(space: Space) -> Mixture:
    """The mixture that runs every option of every slot."""
    return {group.name: Choice.dense(torch.ones(group.shape)) for group in space.groups}


def nothing(space: Space) -> dict[str, Tensor]:
    """A table of zeros for each group, for the costs of its options."""
    return {group.name: torch.zeros(group.shape, dtype=torch.float64) for group in space.groups}


def tabulated(
    space: Itemised, network: nn.Module, cost: Callable[[str, nn.Module], float]
) -> CostTable:
    """A table from the cost of each single module of a supernet, its children not counted."""
    options = nothing(space)
    places = space.candidates(network)
    fixed = 0.0
    for name, module in network.named_modules():
        parts = name.split(".")
        place = next(
            (places[p] for i in range(len(parts), 0, -1) if (p := ".".join(parts[:i])) in places),
            None,
        )
        if place is None:
            fixed += cost(name, module)
        else:
            group, slot, index = place
            options[group][slot, index] += cost(name, module)
    return CostTable(space, fixed, options)


# --- of any other space: from whole networks that differ in one term


def counted_by_differences(space: Costed, task: Task) -> dict[str, CostTable]:
    """The tables of a space from the counts of whole standalone networks, checked on a few random
    architectures.

    Raises:
        UserError: the terms do not give the costs of these.
    """
    costs = {one: count(space.standalone(one, task), task) for one in compared(space)}
    tables = {
        metric: decomposed(space, {one: getattr(cost, metric) for one, cost in costs.items()})
        for metric in ("params", "madds")
    }
    rng = np.random.default_rng(0)
    for one in (space.random(rng) for _ in range(CHECKED)):
        cost = count(space.standalone(one, task), task)
        for metric, table in tables.items():
            if table.of(one) != getattr(cost, metric):
                raise UserError(
                    f"the space {space.name}: its terms() give {table.of(one):,.0f} {metric} for "
                    f"{space.encode(one)}, which has {getattr(cost, metric):,}; put all slots that "
                    "one layer depends on into one term"
                )
    return tables


def anchor(space: Space) -> Architecture:
    """The architecture of the first value of every gene, from which others are told apart."""
    return space.express([gene.values[0] for gene in space.genes])


def variants(space: Costed, slots: tuple[Slot, ...]) -> list[Architecture]:
    """The architectures that have any options in ``slots`` and those of the anchor elsewhere, the
    options of the last slot running fastest.
    """
    groups = {group.name: group for group in space.groups}
    found = []
    for options in itertools.product(*(groups[group].options for group, _ in slots)):
        rows = {name: list(row) for name, row in anchor(space).choices}
        for (group, slot), option in zip(slots, options, strict=True):
            rows[group][slot] = option
        found.append(space.validate(Architecture.of(space.name, **rows)))
    return found


def compared(space: Costed) -> list[Architecture]:
    """The architectures whose costs :func:`decomposed` needs."""
    found = [anchor(space)] + [one for slots in space.terms() for one in variants(space, slots)]
    return list(dict.fromkeys(found))


def decomposed(space: Costed, costs: Mapping[Architecture, float]) -> CostTable:
    """The table from the costs of whole networks: those of :func:`compared`.

    What the anchor costs is fixed. Each term in turn gets what its variants cost beyond the sum of
    the terms before it. This is the anchored decomposition of a function; it is exact if the costs
    are a sum of functions of these terms, overlapping ones too: the rest is then such a sum as
    well, and zero wherever only the slots of one term differ from the anchor, hence zero.
    """
    shape = {group.name: len(group.options) for group in space.groups}
    table = CostTable(space, float(costs[anchor(space)]), nothing(space))
    for slots in space.terms():
        rest = [costs[one] - table.of(one) for one in variants(space, slots)]
        values = torch.tensor(rest, dtype=torch.float64)
        if len(slots) == 1:
            ((group, slot),) = slots
            options = {name: rows.clone() for name, rows in table.options.items()}
            options[group][slot] += values
            table = CostTable(space, table.fixed, options, table.joint)
        else:
            term = Term(slots, values.reshape([shape[group] for group, _ in slots]))
            table = CostTable(space, table.fixed, table.options, (*table.joint, term))
    return table
