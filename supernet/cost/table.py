"""The cost of an architecture as a sum over its choices. It is exact for parameters and
multiply-adds, and a model for latency.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from supernet.cost.count import count
from supernet.errors import UserError
from supernet.mixture import Architecture, Choice, Mixture
from supernet.spaces.capabilities import Costed, Itemised, Slot, Termed
from supernet.spaces.space import Space
from supernet.task import Task

METRICS = "params", "madds"
CHECKED = 5  # random architectures: the terms of a space are compared with their whole networks


@dataclass(frozen=True)
class Term:
    """What the options of several ``slots`` cost together. ``costs`` (float64) has one axis for
    each slot.
    """

    slots: tuple[Slot, ...]
    costs: Tensor

    @cached_property
    def _nested(self) -> Any:
        """``costs`` as nested lists: a lookup is thirty times as fast as in a tensor."""
        return self.costs.tolist()

    def of(self, path: Mixture) -> float:
        """The cost of a mixture that runs one option in each slot."""
        found = self._nested
        for group, slot in self.slots:
            found = found[path[group].active[slot][0]]
        return found


@dataclass(frozen=True)
class CostTable:
    """The costs of a space's architectures, as a sum of terms.

    ``fixed`` is the cost of the parts that every network of the space has. ``options[group]``
    (float64 [slots, options]) is the cost that each choice adds by itself. Each of ``joint`` is the
    cost that several choices add together.
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
        """The table with the negative of every cost."""
        return CostTable(
            self.space,
            -self.fixed,
            {name: -table for name, table in self.options.items()},
            tuple(Term(term.slots, -term.costs) for term in self.joint),
        )

    @cached_property
    def _rows(self) -> dict[str, list[list[float]]]:
        """``options`` as nested lists: a lookup is thirty times as fast as in a tensor, and budgets
        draw thousands of architectures.
        """
        return {name: table.tolist() for name, table in self.options.items()}

    def expected(self, mixture: Mixture) -> Tensor:
        """The mean cost of the architectures that a dense mixture draws, differentiable in its
        weights (Cai et al., ICLR 2019, eq. 8).

        Slots are drawn independently. Therefore the mean of a term over several slots is the mean
        over all combinations, weighted by the products of their probabilities. A slot is weighted
        by the probability that the space keeps it (:meth:`Space.presence`): in the cells of DARTS,
        two in-edges of a node are kept.
        """
        total = torch.zeros(())
        for name, choice in mixture.items():
            table = self.options[name] * self.space.presence(name)[:, None]
            weights = weights_of(choice)
            total = total + (weights * table.to(weights)).sum()
        for term in self.joint:
            mean = term.costs
            for group, slot in reversed(term.slots):  # one axis after the other, the last first
                row = weights_of(mixture[group])[slot] * self.space.presence(group)[slot]
                mean = mean.to(row) @ row
            total = total + mean
        return total + self.fixed


def weights_of(choice: Choice) -> Tensor:
    """The weights of a choice of a dense mixture."""
    assert choice.weights is not None
    return choice.weights


def counted(space: Space, task: Task) -> dict[str, CostTable]:
    """The tables of ``params`` and ``madds`` (multiply-adds for one input), as
    :func:`supernet.cost.count.count` counts them. A space that is not
    :class:`~supernet.spaces.capabilities.Costed` has none.

    Raises:
        UserError: the terms of the space do not add up to the costs of its networks.
    """
    if isinstance(space, Itemised):
        return counted_by_modules(space, task)
    if isinstance(space, Termed):
        return checked(space, task, counted_by_terms(space, task))
    if isinstance(space, Costed):
        return checked(space, task, counted_by_differences(space, task))
    return {}


# --- for a supernet that holds each option as a module of its own


def counted_by_modules(space: Itemised, task: Task) -> dict[str, CostTable]:
    """The tables of a space, counted from the modules of one supernet."""
    with torch.device("meta"):
        network = space.supernet(task, "evaluation").eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(task.example(1, "meta"), everything(space))
    flops = counter.get_flop_counts()
    root = type(network).__name__

    def params(name: str, module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters(recurse=False))

    def madds(name: str, module: nn.Module) -> int:
        # Only leaves count: the counter adds the flops of a module to those of its parents too.
        leaf = not any(True for _ in module.children())
        return sum(flops.get(f"{root}.{name}", {}).values()) // 2 if leaf else 0

    return {"params": tabulated(space, network, params), "madds": tabulated(space, network, madds)}


def everything(space: Space) -> Mixture:
    """The mixture that runs every option of every slot."""
    return {group.name: Choice.dense(torch.ones(group.shape)) for group in space.groups}


def nothing(space: Space) -> dict[str, Tensor]:
    """A table of zeros for each group: the costs of options that cost nothing."""
    return {group.name: torch.zeros(group.shape, dtype=torch.float64) for group in space.groups}


def tabulated(
    space: Itemised, network: nn.Module, cost: Callable[[str, nn.Module], float]
) -> CostTable:
    """A table from the cost of each single module of a supernet, without its children."""
    options = nothing(space)
    places = space.candidates(network)
    fixed = 0.0
    for name, module in network.named_modules():
        parts = name.split(".")
        prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        place = next((places[prefix] for prefix in prefixes if prefix in places), None)
        if place is None:
            fixed += cost(name, module)
        else:
            group, slot, index = place
            options[group][slot, index] += cost(name, module)
    return CostTable(space, fixed, options)


# --- for any other space: from whole networks that differ in one term


def counted_by_differences(space: Costed, task: Task) -> dict[str, CostTable]:
    """The tables of a space from the counts of whole standalone networks."""
    costs = {one: count(space.standalone(one, task), task) for one in compared(space)}
    return {
        metric: decomposed(space, {one: getattr(cost, metric) for one, cost in costs.items()})
        for metric in METRICS
    }


def checked(space: Costed, task: Task, tables: dict[str, CostTable]) -> dict[str, CostTable]:
    """The ``tables``, compared with whole networks of a few random architectures.

    Raises:
        UserError: the terms do not add up to the costs of these architectures.
    """
    advice = "put all slots that one layer depends on into one term"
    if isinstance(space, Termed):
        advice = "give each layer the choice that its input has, as in elastic.Linear(width, 10)"
    rng = np.random.default_rng(0)
    for one in (space.random(rng) for _ in range(CHECKED)):
        cost = count(space.standalone(one, task), task)
        for metric, table in tables.items():
            if table.of(one) != getattr(cost, metric):
                raise UserError(
                    f"the space {space.name}: its terms() give {table.of(one):,.0f} {metric} for "
                    f"{space.encode(one)}, which has {getattr(cost, metric):,}; {advice}"
                )
    return tables


def anchor(space: Space) -> Architecture:
    """The architecture of the first value of every gene. Others are compared with it."""
    return space.express([gene.values[0] for gene in space.genes])


def variants(space: Costed, slots: tuple[Slot, ...]) -> list[Architecture]:
    """The architectures that have any options in ``slots``, and the options of the anchor in all
    other slots. The options of the last slot change fastest.
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
    """The table from the ``costs`` of whole networks: those of :func:`compared`.

    The cost of the anchor is fixed. Each term in turn gets the difference between the costs of its
    variants and the sum of the terms before it. This is the anchored decomposition of a function.
    It is exact if the costs are a sum of functions of these terms, even if the terms overlap. For
    then the rest is such a sum as well. It is zero for every architecture that differs from the
    anchor in the slots of one term only. Therefore it is zero everywhere.
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


# --- for a space that says what each of its terms costs


def counted_by_terms(space: Termed, task: Task) -> dict[str, CostTable]:
    """The tables of a space from the costs of the terms in some networks."""
    groups = {group.name: group for group in space.groups}
    terms = {slots: [groups[group].options for group, _ in slots] for slots in space.terms()}
    fixed = dict.fromkeys(METRICS, 0)
    costs = {
        metric: {
            slots: torch.zeros([len(names) for names in options], dtype=torch.float64)
            for slots, options in terms.items()
        }
        for metric in METRICS
    }
    for architecture in covering(space):
        found = space.term_costs(architecture, task)
        fixed = found.get((), fixed)
        for slots, options in terms.items():
            place = tuple(
                names.index(architecture[group][slot])
                for (group, slot), names in zip(slots, options, strict=True)
            )
            for metric in METRICS:
                costs[metric][slots][place] = found.get(slots, {}).get(metric, 0)
    return {metric: table_of_terms(space, fixed[metric], found) for metric, found in costs.items()}


def table_of_terms(
    space: Space, fixed: float, terms: Mapping[tuple[Slot, ...], Tensor]
) -> CostTable:
    """A table from the costs of each term. Terms of one slot are added to those of its options."""
    options, joint = nothing(space), []
    for slots, costs in terms.items():
        if len(slots) == 1:
            ((group, slot),) = slots
            options[group][slot] += costs
        else:
            joint.append(Term(slots, costs))
    return CostTable(space, float(fixed), options, tuple(joint))


def covering(space: Costed) -> Iterator[Architecture]:
    """Architectures that have, together, every combination of the options of each term.

    Each has as many combinations that are still missing as fit together, term after term.
    """
    groups = {group.name: group for group in space.groups}
    first = {(g.name, slot): g.options[0] for g in space.groups for slot in range(g.slots)}
    missing = {
        slots: dict.fromkeys(itertools.product(*(groups[group].options for group, _ in slots)))
        for slots in space.terms()
    }
    for slots in space.terms():
        while missing[slots]:
            chosen: dict[Slot, str] = {}
            for term in sorted(missing, key=lambda term: (term != slots, -len(missing[term]))):
                for options in missing[term]:
                    given = dict(zip(term, options, strict=True))
                    if all(chosen.get(slot, option) == option for slot, option in given.items()):
                        chosen |= given
                        break
            chosen = first | chosen
            for term, left in missing.items():
                left.pop(tuple(chosen[slot] for slot in term), None)
            yield Architecture.of(
                space.name,
                **{g.name: [chosen[g.name, slot] for slot in range(g.slots)] for g in space.groups},
            )
