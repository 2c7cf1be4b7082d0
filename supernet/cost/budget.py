"""Hard limits on what an architecture may cost. Within them, this module finds the best, the
cheapest and random architectures.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from supernet.cost.count import count
from supernet.cost.program import Limit, maximised
from supernet.cost.settings import COUNTED
from supernet.cost.table import CostTable, counted, nothing
from supernet.errors import UserError
from supernet.mixture import Architecture, Mixture
from supernet.spaces.capabilities import Costed, capable
from supernet.spaces.space import Space
from supernet.task import Task

FEW_TRIES = 200
TRIES = 10_000  # if this many random draws find no architecture within the budget, chance will not


class Budget:
    """The limits on the architectures of a space. ``tables`` holds a table of costs for each
    metric; ``limits`` holds a limit for some of them.

    Parameters and multiply-adds are counted here. The tables of other metrics are given as
    ``measured``.

    Skip connections can be limited too, as in P-DARTS (Chen et al., ICCV 2019, section 3.3: two of
    the eight edges of the normal cell). ``skips/GROUP`` limits their number in one group, ``skips``
    in each group that has any. A limit between 0 and 1 is a share of the edges that an architecture
    has there, rounded down. As in that paper, the limit applies to architectures and not to
    mixtures: it adds nothing to :meth:`excess`. (A penalty on the logits of skips put the option
    that returns zeros in their place.)

    A space that is not :class:`~supernet.spaces.capabilities.Costed` has no tables. Its costs are
    counted, one network at a time. They can be limited if the space says so
    (:attr:`~supernet.spaces.space.Space.limited`); then no architecture is proven to be the best.
    """

    def __init__(
        self,
        space: Space,
        task: Task,
        limits: Mapping[str, float] | None = None,
        measured: Mapping[str, CostTable] | None = None,
    ):
        self.space, self.task, self.limits = space, task, dict(limits or {})
        self.measured = dict(measured or {})
        if (skips := self.limits.pop("skips", None)) is not None:
            self.limits |= {f"skips/{name}": skips for name in skip_tables(space)}
        for metric in list(self.limits):
            kind, _, group = metric.partition("/")
            if kind == "skips" and group not in skip_tables(space):
                raise UserError(
                    f"budget.skips: the space {space.name} has no such group with skip "
                    f"connections: {metric}"
                )
            if kind == "skips" and 0 < self.limits[metric] < 1:
                self.limits[metric] = int(
                    self.limits[metric] * float(space.presence(group).sum()) + 1e-6
                )
        for metric, limit in self.limits.items():
            if self.space.limited and metric in COUNTED:
                continue
            self.require_table(metric, f"budget.{metric}={figure(limit)}", "leave the limit out")
            least = self.cheapest(metric)
            if self.tables[metric].of(least) > limit:
                raise UserError(
                    f"budget.{metric}={figure(limit)}: no architecture of the space {space.name} "
                    "is that cheap; the cheapest, "
                    f"{space.encode(least)}, needs {figure(self.tables[metric].of(least))}"
                )
        if len(self.limits) > 1:
            self._best_within(CostTable(space, 0.0, nothing(space)))

    @cached_property
    def tables(self) -> dict[str, CostTable]:
        skips = {
            f"skips/{name}": table
            for name, table in skip_tables(self.space).items()
            if f"skips/{name}" in self.limits
        }
        return counted(self.space, self.task) | self.measured | skips

    def require_table(self, metric: str, needed_by: str, instead: str) -> CostTable:
        """The table of a metric.

        Raises:
            UserError: there is none, because the space is not
                :class:`~supernet.spaces.capabilities.Costed`. The message names ``needed_by`` (the
                setting that needs the table) and says what to do ``instead``.
        """
        if metric not in self.tables:
            capable(self.space, Costed, needed_by, instead)
        return self.tables[metric]

    def costs(self, architecture: Architecture) -> dict[str, float]:
        """Every metric of an architecture. If the space has no tables, its network is counted."""
        found = {}
        if not isinstance(self.space, Costed):
            found = vars(count(self.space.standalone(architecture, self.task), self.task))
        return found | {metric: table.of(architecture) for metric, table in self.tables.items()}

    def allows(self, architecture: Architecture) -> bool:
        """Whether an architecture is within all limits."""
        if not self.limits:  # so that no table is made for nothing
            return True
        costs = {} if self.limits.keys() <= self.tables.keys() else self.costs(architecture)
        return all(
            (costs[metric] if costs else self.tables[metric].of(architecture)) <= limit
            for metric, limit in self.limits.items()
        )

    def excess(self, mixture: Mixture) -> Tensor:
        """The share by which the expected costs of a dense mixture are above the limits, summed
        over the metrics; 0 within the limits. It is differentiable in the weights.
        """
        shares = [
            (self.tables[metric].expected(mixture) - limit) / limit
            for metric, limit in self.limits.items()
            if not metric.startswith("skips/")
        ]
        return torch.stack(shares).clamp(min=0).sum() if shares else torch.zeros(())

    def random(self, rng: np.random.Generator) -> Architecture:
        """A random architecture within the limits, drawn uniformly.

        If ten thousand draws find none, it is the best architecture for random scores. Then it is
        within the limits, but not drawn uniformly.
        """
        for _ in range(self.tries if self.common else 0):
            architecture = self.space.random(rng)
            if self.allows(architecture):
                return architecture
        if self.space.limited:
            raise UserError(
                f"budget: {self.tries} random architectures of the space {self.space.name} have no "
                f"one within {self.limits}; raise the limits, or leave out the random architectures"
            )
        return self.best(
            {group.name: torch.from_numpy(rng.random(group.shape)) for group in self.space.groups}
        )

    @property
    def tries(self) -> int:
        """How many random draws are tried. Without tables, a draw takes a twentieth of a second."""
        return FEW_TRIES if self.space.limited else TRIES

    @cached_property
    def common(self) -> bool:
        """Whether ten thousand draws find an architecture within the limits. The draws are always
        the same, so that a resumed run gets the same answer.
        """
        rng = np.random.default_rng(0)
        return any(self.allows(self.space.random(rng)) for _ in range(self.tries))

    def within(self, draw: Callable[[], Architecture], tries: int = 1000) -> Architecture:
        """The first architecture of ``draw`` that is within the limits. If none of ``tries`` draws
        is, it is the architecture within the limits that is nearest to the last draw.
        """
        for _ in range(tries):
            architecture = draw()
            if self.allows(architecture):
                return architecture
        return self.nearest(architecture)

    def nearest(self, architecture: Architecture) -> Architecture:
        """The architecture within the limits that has the most choices in common with the given
        one.
        """
        path = self.space.path(architecture)
        return self.best(
            {
                g.name: F.one_hot(torch.tensor(path[g.name].active)[:, 0], len(g.options)).double()
                for g in self.space.groups
            }
        )

    def cheapest(self, metric: str = "params") -> Architecture:
        """The architecture that costs the least by one metric. It may break the other limits."""
        return self._solved(-self._table(metric), [])

    def largest(self, metric: str = "params") -> Architecture:
        """The architecture within the limits that costs the most by one metric."""
        return self._best_within(self._table(metric))

    def smallest(self, metric: str = "params") -> Architecture:
        """The architecture within the limits that costs the least by one metric."""
        return self._best_within(-self._table(metric))

    def best(self, scores: Mapping[str, Tensor]) -> Architecture:
        """The valid architecture with the highest total score within the limits. It is proven to be
        optimal.

        If the space's own derivation is within the limits, it is that one. Otherwise an integer
        program finds it (:mod:`supernet.cost.program`).
        """
        derived = self.space.derive(scores)
        if self.allows(derived):
            return derived
        return self._best_within(CostTable(self.space, 0.0, self.space.gains(scores)))

    def _best_within(self, value: CostTable) -> Architecture:
        """The architecture with the highest value within the limits."""
        limits = [(self.tables[metric], limit) for metric, limit in self.limits.items()]
        return self._solved(value, limits)

    def _solved(self, value: CostTable, limits: Sequence[Limit]) -> Architecture:
        """The architecture with the highest value within ``limits``.

        Raises:
            UserError: there is none.
        """
        found = maximised(value, limits)
        if found is None:
            raise UserError(
                f"budget: no architecture of the space {self.space.name} meets all of "
                f"{self.limits} at once; raise one of them"
            )
        return found

    def _table(self, metric: str) -> CostTable:
        return self.require_table(
            metric,
            f"the architecture of most or least {metric}",
            "leave out the setting that needs it",
        )


def figure(cost: float) -> str:
    """A cost for people to read: whole numbers with separators above 1000, else six digits."""
    return f"{cost:,.0f}" if cost >= 1000 else f"{cost:.6g}"


def skip_tables(space: Space) -> dict[str, CostTable]:
    """The tables that count skip connections: group -> table, for the groups that have a skip."""
    found = {}
    for group in space.groups:
        if group.skip is not None:
            tables = nothing(space)
            tables[group.name][:, group.options.index(group.skip)] = 1.0
            found[group.name] = CostTable(space, 0.0, tables)
    return found
