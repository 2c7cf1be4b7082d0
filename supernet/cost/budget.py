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

from supernet.cost.table import CostTable, counted
from supernet.errors import UserError, unknown
from supernet.mixture import Architecture, Mixture
from supernet.spaces.space import Space

COUNTED = ("params", "madds")  # the costs that every budget has, whatever it limits
METRICS = (*COUNTED, "latency_ms")
TRIES = 10_000  # draws before a budget counts as too narrow to hit by chance


@dataclass
class BudgetSettings:
    """Upper limits of a derived network, in the evaluation geometry; ``None`` is no limit."""

    params: float | None = None
    madds: float | None = None  # multiply-adds of one image
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
    the :meth:`excess`. (A penalty on the logits of skips put ``none`` in their place.)
    """

    def __init__(
        self,
        space: Space,
        classes: int,
        input_shape: tuple[int, int, int],
        limits: Mapping[str, float] | None = None,
        measured: Mapping[str, CostTable] | None = None,
    ):
        self.space, self.classes, self.input_shape, self.limits = (
            space,
            classes,
            input_shape,
            dict(limits or {}),
        )
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
            least = self.cheapest(metric)
            if self.tables[metric].of(least) > limit:
                raise UserError(
                    f"budget.{metric}={figure(limit)}: no architecture of the space {space.name} "
                    "is that cheap; the cheapest, "
                    f"{space.encode(least)}, needs {figure(self.tables[metric].of(least))}"
                )
        if (
            len(self.limits) > 1
            and self._solve({g.name: torch.zeros(g.shape) for g in space.groups}, self.limits)
            is None
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
        return counted(self.space, self.classes, self.input_shape) | self.measured | skips

    def costs(self, architecture: Architecture) -> dict[str, float]:
        """Every metric of an architecture."""
        return {metric: table.of(architecture) for metric, table in self.tables.items()}

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
        return self._solve(
            {name: -table for name, table in self.tables[metric].options.items()}, {}, raw=True
        )

    def largest(self, metric: str = "params") -> Architecture:
        """The architecture within the limits that costs most by one metric."""
        return self._solve(self.tables[metric].options, self.limits, raw=True)

    def smallest(self, metric: str = "params") -> Architecture:
        """The architecture within the limits that costs least by one metric."""
        return self._solve(
            {name: -table for name, table in self.tables[metric].options.items()},
            self.limits,
            raw=True,
        )

    def best(self, scores: Mapping[str, Tensor]) -> Architecture:
        """The valid architecture of the highest total score within the limits, proven optimal.

        Without limits, or if it keeps them anyway, it is the space's own derivation; else the
        maximum of a linear program in zeros and ones over (slot, option), found by branch and
        bound.
        """
        derived = self.space.derive(scores)
        return derived if self.allows(derived) else self._solve(scores, self.limits)

    def _solve(
        self, scores: Mapping[str, Tensor], limits: Mapping[str, float], raw: bool = False
    ) -> Architecture | None:
        """The best architecture within ``limits``, or ``None`` if there is none; ``raw`` scores
        count as they are.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp  # half a second to import

        gains = scores if raw else self.space.gains(scores)
        groups = self.space.groups
        starts = dict(
            zip(
                (g.name for g in groups),
                np.cumsum([0, *(g.slots * len(g.options) for g in groups)]),
                strict=False,
            )
        )

        def flat(tables: Mapping[str, Tensor]) -> np.ndarray:
            return np.concatenate(
                [np.asarray(tables[g.name], dtype=np.float64).ravel() for g in groups]
            )

        objective = flat(gains)
        constraints = []
        for rule in self.space.rules():
            width = next(len(g.options) for g in groups if g.name == rule.group)
            row = np.zeros((1, len(objective)))
            row[
                0,
                [
                    starts[rule.group] + slot * width + option
                    for slot in rule.slots
                    for option in rule.options
                ],
            ] = 1
            constraints.append(LinearConstraint(row, rule.count, rule.count))
        for metric, limit in limits.items():
            row = flat(self.tables[metric].options)[None]
            unit = (
                row.max() or 1.0
                # the solver's tolerances are absolute, metrics range from fractions to thousands of
                # millions
            )
            constraints.append(
                LinearConstraint(row / unit, -np.inf, (limit - self.tables[metric].fixed) / unit)
            )
        while True:
            found = milp(
                -objective / (np.abs(objective).max() or 1.0),
                constraints=constraints,
                integrality=np.ones(len(objective)),
                bounds=Bounds(0, 1),
                options={"mip_rel_gap": 0.0},
            )
            if found.x is None:
                return None
            chosen = np.rint(found.x)
            choices = {}
            for group in groups:
                table = chosen[starts[group.name] :][: group.slots * len(group.options)].reshape(
                    group.shape
                )
                choices[group.name] = [group.options[option] for option in table.argmax(axis=1)]
            architecture = Architecture.of(self.space.name, **choices)
            if all(
                self.tables[metric].of(architecture) <= limit for metric, limit in limits.items()
            ):
                return architecture
            # The solver's tolerance let a hair's breadth through: forbid this one architecture and
            # go on.
            constraints.append(LinearConstraint(chosen[None], -np.inf, chosen.sum() - 1))


def figure(cost: float) -> str:
    """A cost for people: thousands of parameters, fractions of a millisecond."""
    return f"{cost:,.0f}" if cost >= 1000 else f"{cost:.6g}"


def skip_tables(space: Space) -> dict[str, CostTable]:
    """Group -> the table that counts its skip connections, of the groups that have any."""
    nothing = {group.name: torch.zeros(group.shape, dtype=torch.float64) for group in space.groups}
    found = {}
    for group in space.groups:
        if "skip_connect" in group.options:
            table = nothing[group.name].clone()
            table[:, group.options.index("skip_connect")] = 1.0
            found[group.name] = CostTable(space, 0.0, nothing | {group.name: table})
    return found
