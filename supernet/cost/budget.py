"""Hard limits on what an architecture may cost, and the best, the cheapest and random architectures
within them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from supernet.cost.count import count
from supernet.cost.program import maximised
from supernet.cost.table import CostTable, counted, nothing
from supernet.errors import UserError, unknown
from supernet.mixture import Architecture, Mixture
from supernet.spaces.capabilities import Costed, capable
from supernet.spaces.space import Space
from supernet.task import Task

COUNTED = ("params", "madds")  # the costs that every budget has, whatever it limits
METRICS = (*COUNTED, "latency_ms")
TRIES = 10_000  # draws before a budget counts as too narrow to hit by chance


@dataclass
class BudgetSettings:
    """Upper limits of a derived network, in the evaluation geometry; ``None`` is no limit."""

    params: float | None = None
    madds: float | None = None  # multiply-adds of one input
    latency_ms: float | None = None  # of one forward pass, by the latency table
    latency_table: str | None = (
        None  # a CSV file of one's own, as supernet latency writes it; None measures on this device
    )
    latency_batch: int = 1  # images in that pass
    # skip connections of each group, or of those that are named: {normal: 2}; below 1, a share of
    # its edges
    skips: Any = None

    def limits(self) -> dict[str, float]:
        """Metric -> limit, of those that are set; ``skips/GROUP`` is a metric, and ``skips`` stands
        for all groups.
        """
        limits = {"params": self.params, "madds": self.madds, "latency_ms": self.latency_ms}
        if isinstance(self.skips, Mapping):
            limits |= {f"skips/{group}": limit for group, limit in self.skips.items()}
        else:
            limits["skips"] = self.skips
        return {metric: limit for metric, limit in limits.items() if limit is not None}

    @property
    def measures(self) -> bool:
        """Whether there is to be a latency table: for a limit, or because one is given."""
        return self.latency_ms is not None or self.latency_table is not None

    def require_cost(self, key: str, metric: str) -> None:
        """Raises a UserError unless ``metric``, the setting ``key``, is one that there is a table
        of.
        """
        if metric not in METRICS:
            raise UserError(f"{key}: {unknown(metric, METRICS)}")
        if metric not in COUNTED and not self.measures:
            raise UserError(
                f"{key}={metric}: there is no latency table; set budget.latency_ms, or "
                "budget.latency_table to a file that "
                "supernet latency wrote"
            )


class Budget:
    """The limits on a space's architectures; ``tables`` gives the cost of each metric, ``limits``
    bounds some of them.

    Parameters and multiply-adds are counted here; the tables of other metrics are ``measured``.
    Skip connections can be limited too, as P-DARTS does (Chen et al., ICCV 2019, section 3.3: two
    of the normal cell's eight edges): ``skips/GROUP`` bounds their number in a group, ``skips`` in
    each; a limit between 0 and 1 is a share, rounded down, of the edges that an architecture has
    there. As in that paper the limit is one of architectures, not of mixtures: it adds nothing to
    the :meth:`excess`. (A penalty on the logits of skips put the option that gives nothing in
    their place.)

    A space that is not :class:`~supernet.spaces.capabilities.Costed` has no tables, so that its
    costs cannot be limited; they are counted, network by network.
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
            self.limits |= {f"skips/{name}": skips for name in skip_tables(space)} or {
                "skips": skips
            }
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
            self.require_table(metric, f"budget.{metric}={figure(limit)}", "leave the limit out")
            least = self.cheapest(metric)
            if self.tables[metric].of(least) > limit:
                raise UserError(
                    f"budget.{metric}={figure(limit)}: no architecture of the space {space.name} "
                    "is that cheap; the cheapest, "
                    f"{space.encode(least)}, needs {figure(self.tables[metric].of(least))}"
                )
        if (
            len(self.limits) > 1
            and self._best_within(CostTable(space, 0.0, nothing(space))) is None
        ):
            raise UserError(
                f"budget: no architecture of the space {space.name} meets all of {self.limits} at "
                "once; raise one of them"
            )

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
                :class:`~supernet.spaces.capabilities.Costed`; the line names ``needed_by`` (the
                setting that needs it) and what to do ``instead``.
        """
        if metric not in self.tables:
            capable(self.space, Costed, needed_by, instead)
        return self.tables[metric]

    def costs(self, architecture: Architecture) -> dict[str, float]:
        """Every metric of an architecture. Where the space has no tables its network is counted."""
        found = {}
        if not isinstance(self.space, Costed):
            found = vars(count(self.space.standalone(architecture, self.task), self.task))
        return found | {metric: table.of(architecture) for metric, table in self.tables.items()}

    def allows(self, architecture: Architecture) -> bool:
        """Whether an architecture keeps all limits."""
        return all(
            self.tables[metric].of(architecture) <= limit for metric, limit in self.limits.items()
        )

    def excess(self, mixture: Mixture) -> Tensor:
        """By what share the expected costs of a dense mixture pass the limits; 0 within them.
        Differentiable in the weights.
        """
        shares = [
            (self.tables[metric].expected(mixture) - limit) / limit
            for metric, limit in self.limits.items()
            if not metric.startswith("skips/")
        ]
        return torch.stack(shares).clamp(min=0).sum() if shares else torch.zeros(())

    def random(self, rng: np.random.Generator) -> Architecture:
        """An architecture drawn uniformly from those within the limits.

        Where chance finds none in ten thousand draws, the best one for random scores: within the
        limits, no longer uniform.
        """
        for _ in range(TRIES if self.common else 0):
            architecture = self.space.random(rng)
            if self.allows(architecture):
                return architecture
        return self.best(
            {group.name: torch.from_numpy(rng.random(group.shape)) for group in self.space.groups}
        )

    @cached_property
    def common(self) -> bool:
        """Whether ten thousand draws find an architecture within the limits: always the same ones,
        so that a resumed run agrees.
        """
        rng = np.random.default_rng(0)
        return any(self.allows(self.space.random(rng)) for _ in range(TRIES))

    def within(self, draw: Callable[[], Architecture], tries: int = 1000) -> Architecture:
        """The first architecture of ``draw`` within the limits; where none of ``tries`` is, the
        nearest to the last.
        """
        for _ in range(tries):
            architecture = draw()
            if self.allows(architecture):
                return architecture
        return self.nearest(architecture)

    def nearest(self, architecture: Architecture) -> Architecture:
        """The architecture within the limits that shares most choices with the given one."""
        path = self.space.path(architecture)
        return self.best(
            {
                g.name: F.one_hot(torch.tensor(path[g.name].active)[:, 0], len(g.options)).double()
                for g in self.space.groups
            }
        )

    def cheapest(self, metric: str = "params") -> Architecture:
        """The architecture that costs least by one metric, whatever the limits say of others."""
        return maximised(-self._table(metric), [])

    def largest(self, metric: str = "params") -> Architecture:
        """The architecture within the limits that costs most by one metric."""
        return self._best_within(self._table(metric))

    def smallest(self, metric: str = "params") -> Architecture:
        """The architecture within the limits that costs least by one metric."""
        return self._best_within(-self._table(metric))

    def best(self, scores: Mapping[str, Tensor]) -> Architecture:
        """The valid architecture of the highest total score within the limits, proven optimal.

        Without limits, or if it keeps them anyway, it is the space's own derivation; else it is
        found by an integer program (:mod:`supernet.cost.program`).
        """
        derived = self.space.derive(scores)
        if self.allows(derived):
            return derived
        return self._best_within(CostTable(self.space, 0.0, self.space.gains(scores)))

    def _best_within(self, value: CostTable) -> Architecture | None:
        """The architecture of the highest value within the limits, or ``None`` if there is none."""
        return maximised(value, [(self.tables[m], limit) for m, limit in self.limits.items()])

    def _table(self, metric: str) -> CostTable:
        return self.require_table(
            metric, f"the architecture of most or least {metric}", "leave out what asks for it"
        )


def figure(cost: float) -> str:
    """A cost for people: thousands of parameters, fractions of a millisecond."""
    return f"{cost:,.0f}" if cost >= 1000 else f"{cost:.6g}"


def skip_tables(space: Space) -> dict[str, CostTable]:
    """Group -> the table that counts its skip connections, of the groups that have any."""
    found = {}
    for group in space.groups:
        if group.skip is not None:
            tables = nothing(space)
            tables[group.name][:, group.options.index(group.skip)] = 1.0
            found[group.name] = CostTable(space, 0.0, tables)
    return found
