"""The phases of a search. In each phase the size of the supernet stays the same.

The settings ``search.depths`` and ``search.widths`` say how the size changes during the search.
:func:`phases_of` turns both into one list of phases. The search stage knows only that list.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from supernet.errors import UserError, require_stages

if TYPE_CHECKING:
    from supernet.spaces.space import Space


@dataclass(frozen=True)
class Phase:
    """A part of a search in which the size of the supernet stays the same.

    ``start`` and ``rate_end`` are shares of the search, from 0 to 1. A ``fresh`` phase begins with
    new weights, new logits, new optimisers and the first learning rate. The learning rate then
    falls on one cosine until ``rate_end``, where the next fresh phase starts. A phase that is not
    fresh is *widened*: its operations read more channels than before, and it keeps the weights,
    logits, optimisers and learning rate of the phase before it.
    """

    start: float
    rate_end: float
    fresh: bool
    cells: float = 1.0  # as a share of the cells that the space's own supernet has
    partial_channels: int | None = None  # operations read 1/K of the channels; None: the space's K

    def first_step(self, steps: int) -> int:
        """The index of the first step of this phase, in a search of ``steps`` steps.

        Every phase begins at the last step of the search or earlier. The search therefore ends with
        the supernet of its last phase. This matters because later readers of the weights load them
        into the space's own supernet.
        """
        return min(step_at(self.start, steps), steps - 1)

    def rate_steps(self, steps: int) -> int:
        """The number of steps over which the learning rate falls, if the phase is fresh."""
        return step_at(self.rate_end, steps) - self.first_step(steps)

    def resized(self, space: "Space") -> "Space":
        """The space whose own supernet has the size of this phase.

        Raises:
            UserError: the space cannot make a supernet of that size.
        """
        if self.cells == 1.0 and self.partial_channels is None:
            return space
        # Spaces need torch, and the settings of a search are read without it.
        from supernet.spaces.capabilities import Resizable, capable

        setting = "search.depths" if self.partial_channels is None else "search.widths"
        resizable = capable(space, Resizable, setting, f"leave it out: {setting}=[]")
        try:
            return resizable.resized(self.cells, self.partial_channels)
        except UserError as error:
            raise UserError(f"{setting}: {error}") from error


def step_at(share: float, steps: int) -> int:
    """The index of the first step that begins after ``share`` of a search of ``steps`` steps."""
    return math.ceil((share - 1e-9) * steps)


def phases_of(depths: Sequence[Any], widths: Sequence[Any]) -> list[Phase]:
    """The phases of a search, in the order of their starts.

    A pair of ``depths`` is [start, share of the cells] and begins a fresh phase. A pair of
    ``widths`` is [start, K] and begins a widened phase, whose operations read 1/K of the channels.
    If a depth and a width begin at the same start, the phase is fresh. If both lists are empty,
    there is one phase, with the space's own supernet.
    """
    depths, widths = depths or [[0.0, 1.0]], widths or [[0.0, None]]
    fresh_starts = [start for start, _ in depths]
    return [
        Phase(
            start,
            min((later for later in fresh_starts if later > start), default=1.0),
            start in fresh_starts,
            [cells for begins, cells in depths if begins <= start][-1],
            [parts for begins, parts in widths if begins <= start][-1],
        )
        for start in sorted({start for start, _ in (*depths, *widths)})
    ]


def require_depths(depths: Sequence[Any]) -> None:
    """Raises a UserError if ``depths``, the setting ``search.depths``, is not valid."""
    require_stages("search.depths", depths)
    if depths and not (
        depths[0][0] == 0 and depths[-1][1] == 1 and all(0 < share <= 1 for _, share in depths)
    ):
        raise UserError(
            f"search.depths={depths}: must begin at 0 and end with all cells, as in "
            "[[0,0.5],[0.5,1]]"
        )


def require_widths(widths: Sequence[Any]) -> None:
    """Raises a UserError if ``widths``, the setting ``search.widths``, is not valid."""
    require_stages("search.widths", widths)
    parts = [k for _, k in widths]
    whole = all(k >= 1 and float(k).is_integer() for k in parts)
    if widths and not (widths[0][0] == 0 and whole and parts == sorted(set(parts), reverse=True)):
        raise UserError(
            f"search.widths={widths}: must begin at 0, with whole, falling K, as in [[0,4],[0.5,2]]"
        )


def require_one_phase(phases: Sequence[Phase], what: str) -> None:
    """Raises a UserError if there are several phases.

    ``what`` names, in the message, the setting that needs one supernet during the whole search.
    """
    if len(phases) > 1:
        raise UserError(
            f"{what}: needs one supernet from the first step of the search to the last; leave it "
            "out, or set search.depths=[] and search.widths=[]"
        )


def require_fit(phases: Sequence[Phase], space: "Space") -> None:
    """Raises a UserError if the space cannot make the supernet of every phase, or if the supernet
    of the last phase is not the space's own.

    Later readers of the weights load them into the space's own supernet.
    """
    last = [phase.resized(space) for phase in phases][-1]
    if last != space:
        raise UserError(
            "search.widths: must end with the space's own space.search.partial_channels; change one"
        )
