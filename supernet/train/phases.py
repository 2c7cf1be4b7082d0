"""The phases of a search: parts of it in which the supernet has one geometry.

``search.depths`` and ``search.widths`` say how the geometry changes. :func:`phases_of` makes one
list of phases of them, which is all that the search stage knows of either.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from supernet.errors import UserError, require_stages
from supernet.spaces.capabilities import Resizable, capable
from supernet.spaces.space import Space


@dataclass(frozen=True)
class Phase:
    """A part of a search with one geometry. ``start`` and ``rate_end`` are shares of the search.

    A ``fresh`` phase begins with new weights, logits, optimisers and learning rate, which falls on
    one cosine until ``rate_end``: the start of the next fresh phase. A phase that is not fresh is
    *widened*: operations read more channels, and everything that was learnt goes on.
    """

    start: float
    rate_end: float
    fresh: bool
    cells: float = 1.0  # share of the cells that the space says
    partial_channels: int | None = None  # None: as many parts as the space says

    def first_step(self, steps: int) -> int:
        """The index of its first step in a search of so many ``steps``.

        That is the last step at the latest: the search ends with the geometry of its last phase,
        because whoever reads the weights afterwards builds a supernet of the space.
        """
        return min(step_at(self.start, steps), steps - 1)

    def rate_steps(self, steps: int) -> int:
        """Over how many steps the learning rate of a fresh phase falls."""
        return step_at(self.rate_end, steps) - self.first_step(steps)

    def resized(self, space: Space) -> Space:
        """The space whose supernet has the geometry of this phase.

        Raises:
            UserError: the space cannot have it.
        """
        if self.cells == 1.0 and self.partial_channels is None:
            return space
        setting = "search.depths" if self.partial_channels is None else "search.widths"
        resizable = capable(space, Resizable, setting, f"leave it out: {setting}=[]")
        try:
            return resizable.resized(self.cells, self.partial_channels)
        except UserError as error:
            raise UserError(f"{setting}: {error}") from error


def step_at(share: float, steps: int) -> int:
    """The index of the first step before which ``share`` of a search of so many steps is over."""
    return math.ceil((share - 1e-9) * steps)


def phases_of(depths: Sequence[Any], widths: Sequence[Any]) -> list[Phase]:
    """The phases of a search, by their start: one for each start of a depth or a width.

    Each pair of ``depths``, [start, share of the cells], begins a fresh phase; each pair of
    ``widths``, [start, K], a widened one, in which operations read one of K parts of the channels.
    Where both begin, the phase is fresh. Without any there is one phase, with the space's geometry.
    """
    depths, widths = depths or [[0.0, 1.0]], widths or [[0.0, None]]
    anew = [start for start, _ in depths]
    return [
        Phase(
            start,
            min((later for later in anew if later > start), default=1.0),
            start in anew,
            [cells for begins, cells in depths if begins <= start][-1],
            [parts for begins, parts in widths if begins <= start][-1],
        )
        for start in sorted({start for start, _ in (*depths, *widths)})
    ]


def require_depths(depths: Sequence[Any]) -> None:
    """Raises a UserError unless ``depths``, the setting ``search.depths``, are right."""
    require_stages("search.depths", depths)
    if depths and not (
        depths[0][0] == 0 and depths[-1][1] == 1 and all(0 < share <= 1 for _, share in depths)
    ):
        raise UserError(
            f"search.depths={depths}: must begin at 0 and end with all cells, as in "
            "[[0,0.5],[0.5,1]]"
        )


def require_widths(widths: Sequence[Any]) -> None:
    """Raises a UserError unless ``widths``, the setting ``search.widths``, are right."""
    require_stages("search.widths", widths)
    parts = [k for _, k in widths]
    whole = all(k >= 1 and float(k).is_integer() for k in parts)
    if widths and not (widths[0][0] == 0 and whole and parts == sorted(set(parts), reverse=True)):
        raise UserError(
            f"search.widths={widths}: must begin at 0, with whole, falling K, as in [[0,4],[0.5,2]]"
        )


def require_one_phase(phases: Sequence[Phase], what: str) -> None:
    """Raises a UserError if there are several phases: ``what`` needs one supernet all the time."""
    if len(phases) > 1:
        raise UserError(
            f"{what}: needs one supernet from the first step of the search to the last; leave it "
            "out, or set search.depths=[] and search.widths=[]"
        )


def require_fit(phases: Sequence[Phase], space: Space) -> None:
    """Raises a UserError unless the space can have the geometry of every phase, and has that of the
    last one: whoever reads the weights afterwards builds a supernet of the space.
    """
    last = [phase.resized(space) for phase in phases][-1]
    if last != space:
        raise UserError(
            "search.widths: must end with the space's own space.search.partial_channels; change one"
        )
