"""The architecture with the highest value within limits, found by an integer linear program.

For each slot and option, a variable in {0, 1} says whether the option is chosen. The space's rules
and the limits are rows over these variables. If a table has terms over several slots, each
combination of their options has a variable of its own in [0, 1]. For each slot and option of the
term, the variables of the combinations with that option must add up to the option's variable.
Exactly one option of a slot is chosen, so that only one solution remains: the variable of the
chosen combination is one, and all others are zero. So each term has its exact cost, and these
variables need not be integers.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from supernet.cost.table import CostTable
from supernet.mixture import Architecture
from supernet.spaces.capabilities import Slot
from supernet.spaces.space import Space

Limit = tuple[CostTable, float]


class Columns:
    """The column of each variable: first one for each slot and option, then one for each
    combination of the slots in ``joint``.
    """

    def __init__(self, space: Space, joint: Sequence[tuple[Slot, ...]]):
        self.space, self.groups = space, {group.name: group for group in space.groups}
        self.start: dict[str, int] = {}
        self.chosen = 0  # the number of variables that choose an option
        for group in space.groups:
            self.start[group.name] = self.chosen
            self.chosen += group.slots * len(group.options)
        self.joint: dict[tuple[Slot, ...], int] = {}
        self.total = self.chosen
        for slots in dict.fromkeys(joint):
            self.joint[slots] = self.total
            self.total += len(list(self.combinations(slots)))

    def combinations(self, slots: tuple[Slot, ...]) -> Iterator[tuple[int, ...]]:
        """The combinations of options (indices) of the slots. The last slot changes fastest."""
        return itertools.product(*(range(len(self.groups[group].options)) for group, _ in slots))

    def of(self, group: str, slot: int, option: int) -> int:
        """The column of one choice."""
        return self.start[group] + slot * len(self.groups[group].options) + option

    def row(self, table: CostTable) -> np.ndarray:
        """The costs of a table without its fixed part."""
        row = np.zeros(self.total)
        row[: self.chosen] = np.concatenate(
            [np.asarray(table.options[name], dtype=np.float64).ravel() for name in self.groups]
        )
        for term in table.joint:
            start = self.joint[term.slots]
            costs = np.asarray(term.costs, dtype=np.float64).ravel()
            row[start : start + len(costs)] += costs
        return row

    def rules(self) -> list[tuple[np.ndarray, int]]:
        """The space's rules: each row, and the value that its sum must have."""
        rows = []
        for rule in self.space.rules():
            row = np.zeros((1, self.total))
            row[0, [self.of(rule.group, s, o) for s in rule.slots for o in rule.options]] = 1
            rows.append((row, rule.count))
        return rows

    def marginals(self) -> list[np.ndarray]:
        """The rows that connect combinations with choices. Each sum must be zero."""
        rows = []
        for slots, start in self.joint.items():
            combinations = np.array(list(self.combinations(slots)))
            for axis, (group, slot) in enumerate(slots):
                for option in range(len(self.groups[group].options)):
                    row = np.zeros((1, self.total))
                    row[0, start + np.flatnonzero(combinations[:, axis] == option)] = 1
                    row[0, self.of(group, slot, option)] = -1
                    rows.append(row)
        return rows

    def architecture(self, solution: np.ndarray) -> Architecture:
        """The architecture that a solution chooses."""
        choices = {}
        for name, group in self.groups.items():
            table = solution[self.start[name] :][: group.slots * len(group.options)]
            best = table.reshape(group.shape).argmax(axis=1)
            choices[name] = [group.options[option] for option in best]
        return Architecture.of(self.space.name, **choices)


def maximised(value: CostTable, limits: Sequence[Limit]) -> Architecture | None:
    """The valid architecture with the highest ``value`` whose cost by each table is within its
    limit; ``None`` if there is none. Branch and bound proves that it is optimal.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp  # half a second to import

    joint = [term.slots for table in (value, *(t for t, _ in limits)) for term in table.joint]
    columns = Columns(value.space, joint)
    objective = columns.row(value)
    constraints = [LinearConstraint(row, count, count) for row, count in columns.rules()]
    constraints += [LinearConstraint(row, 0, 0) for row in columns.marginals()]
    for table, limit in limits:
        row = columns.row(table)[None]
        # The tolerances of the solver are absolute, but metrics range from fractions to thousands
        # of millions.
        unit = np.abs(row).max() or 1.0
        constraints.append(LinearConstraint(row / unit, -np.inf, (limit - table.fixed) / unit))
    integrality = np.zeros(columns.total)
    integrality[: columns.chosen] = 1
    while True:
        found = milp(
            -objective / (np.abs(objective).max() or 1.0),
            constraints=constraints,
            integrality=integrality,
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": 0.0},
        )
        if found.x is None:
            return None
        architecture = columns.architecture(np.rint(found.x))
        if all(table.of(architecture) <= limit for table, limit in limits):
            return architecture
        # The solver's tolerance allowed a tiny excess: exclude this architecture and solve again.
        cut = np.rint(found.x)
        cut[columns.chosen :] = 0
        constraints.append(LinearConstraint(cut[None], -np.inf, cut.sum() - 1))
