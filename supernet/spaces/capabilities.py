"""What some spaces can do and others cannot. Whoever needs a capability asks for it with
:func:`capable`, which says in one line what is missing.

A space has a capability by being a subclass of it.
"""

from abc import abstractmethod
from typing import ClassVar, TypeVar

from torch import nn

from supernet.errors import UserError
from supernet.mixture import Architecture
from supernet.spaces.space import Space

Slot = tuple[str, int]  # name of a group, number of the slot in it


class Costed(Space):
    """A space whose costs are a sum of terms, each over a few decisions.

    From that follow exact derivations under a budget and the expected cost of a mixture. The
    numbers themselves are counted (:func:`supernet.cost.table.counted`), and checked against whole
    networks.
    """

    means: ClassVar[str] = "does not say which decisions cost something together"

    @abstractmethod
    def terms(self) -> list[tuple[Slot, ...]]:
        """The slots that each term of the costs reads.

        If the cost of a layer depends on its kernel and on the widths before and behind it, these
        three slots are one term. Every slot that costs anything is in a term; a term of many slots
        has as many numbers as these have combinations.
        """


class Itemised(Costed):
    """A space whose supernet holds every option of every slot as a module of its own, so that each
    costs what its module costs, and can be timed, widened or watched alone.
    """

    means: ClassVar[str] = "does not hold each option as a module of its own"

    @abstractmethod
    def candidates(self, network: nn.Module) -> dict[str, tuple[str, int, int]]:
        """The name of each candidate operation's module in a supernet -> group, slot and option
        (index) that it is. Several modules may be the same option of the same slot.
        """

    def terms(self) -> list[tuple[Slot, ...]]:
        return [((group.name, slot),) for group in self.groups for slot in range(group.slots)]


class Resizable(Space):
    """A space whose supernet can be made smaller for a part of the search."""

    means: ClassVar[str] = "cannot change the size of its supernet"

    @abstractmethod
    def resized(self, cells: float = 1.0, partial_channels: int | None = None) -> "Space":
        """The same space with a share ``cells`` of the supernet's cells, of which at least one is
        left, and with operations that read one of ``partial_channels`` parts of the channels
        (``None`` changes nothing).

        Raises:
            UserError: there is no such supernet.
        """


class Drawable(Space):
    """A space whose architectures can be drawn as graphs."""

    means: ClassVar[str] = "cannot be drawn"

    @abstractmethod
    def graph(self, architecture: Architecture) -> dict[str, list[tuple[str, str, str]]]:
        """Name of each graph -> its edges (source node, target node, operation)."""


Kind = TypeVar("Kind", Costed, Itemised, Resizable, Drawable)


def capable(
    space: Space,
    capability: type[Kind],
    needed_by: str,
    instead: str,
) -> Kind:
    """The ``space``, which has this ``capability``.

    Raises:
        UserError: it does not; the line names ``needed_by`` (the setting that needs it) and what to
            do ``instead``.
    """
    if isinstance(space, capability):
        return space
    raise UserError(
        f"{needed_by}: the space {space.name} {capability.means} (it is not "
        f"{capability.__name__}); {instead}"
    )
