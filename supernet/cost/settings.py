"""The settings of the limits on what an architecture may cost. Needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from supernet.bounds import Bounded, Bounds, Positive
from supernet.errors import UserError, require, unknown
from supernet.files import PATH

COUNTED = ("params", "madds")  # the costs that every budget counts, even if they have no limit
METRICS = (*COUNTED, "latency_ms")


@dataclass
class BudgetSettings(Bounded):
    """Upper limits of a derived network, in the evaluation geometry. ``None`` means no limit."""

    where = "budget"

    params: Positive | None = None
    madds: Positive | None = None  # multiply-adds of one input
    latency_ms: Positive | None = None  # of one forward pass, by the latency table
    # a CSV file as ``supernet latency`` writes it; None measures on this device
    latency_table: str | None = field(default=None, metadata=PATH)
    latency_batch: Annotated[int, Bounds(least=1, most=4096)] = 1  # images in that pass
    # the most skip connections of each group, or of the named groups: {normal: 2}; below 1, a share
    # of the edges
    skips: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for metric, limit in self.limits().items():
            if metric.startswith("skips"):
                whole = isinstance(limit, int) and not isinstance(limit, bool)
                if not whole and not (isinstance(limit, float) and 0 < limit < 1):
                    what = "a whole number or a share below 1, or one a group as in {normal: 2}"
                    raise UserError(f"budget.skips={self.skips}: must be {what}")
                require(f"budget.{metric}", limit, least=0)

    def limits(self) -> dict[str, float]:
        """The limits that are set: metric -> limit. The metric ``skips/GROUP`` is one group's skip
        connections, ``skips`` those of every group.
        """
        limits = {"params": self.params, "madds": self.madds, "latency_ms": self.latency_ms}
        if isinstance(self.skips, Mapping):
            limits |= {f"skips/{group}": limit for group, limit in self.skips.items()}
        else:
            limits["skips"] = self.skips
        return {metric: limit for metric, limit in limits.items() if limit is not None}

    @property
    def measures(self) -> bool:
        """Whether a latency table is needed: a limit on the latency or a table is given."""
        return self.latency_ms is not None or self.latency_table is not None

    def require_cost(self, key: str, metric: str) -> None:
        """Raises a UserError if ``metric``, the value of the setting ``key``, has no table."""
        if metric not in METRICS:
            raise UserError(f"{key}: {unknown(metric, METRICS)}")
        if metric not in COUNTED and not self.measures:
            raise UserError(
                f"{key}={metric}: there is no latency table; set budget.latency_ms, or "
                "budget.latency_table to a file that "
                "supernet latency wrote"
            )
