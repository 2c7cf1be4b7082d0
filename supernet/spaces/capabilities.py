"""Capabilities: what some spaces can do and others cannot.

A space has a capability if it is a subclass of it. A module that needs a capability calls
:func:`capable`, which raises an error of one line if the space does not have it.
"""

from abc import abstractmethod
from typing import ClassVar, TypeVar

from torch import nn

from supernet.errors import UserError
from supernet.mixture import Architecture
from supernet.spaces.space import Space
from supernet.task import Task

Slot = tuple[str, int]  # name of a group, number of the slot in it


class Costed(Space):
    """A space whose costs are a sum of terms. Each term depends on a few decisions.

    This makes two things possible: an exact derivation under a budget, and the expected cost of a
    mixture. The numbers of the terms are counted (:func:`supernet.cost.table.counted`) and compared
    with whole networks.
    """

    means: ClassVar[str] = "does not say which decisions cost something together"

    @abstractmethod
    def terms(self) -> list[tuple[Slot, ...]]:
        """The slots that each term of the costs depends on.

        If, for example, the cost of a layer depends on its kernel, on the width before it and on
        the width behind it, then these three slots are one term. Every slot that costs something
        must be in a term. A term holds one number for each combination of the options of its slots.
        """


class Termed(Costed):
    """A space that says at once what each of its terms costs in an architecture. Its tables need
    fewer networks than those of other spaces, because one network shows a number of every term.
    """

    means: ClassVar[str] = "does not say what each of its terms costs"

    @abstractmethod
    def term_costs(
        self, architecture: Architecture, task: Task
    ) -> dict[tuple[Slot, ...], dict[str, int]]:
        """The ``params`` and ``madds`` of each of :meth:`terms` in a network of the architecture.
        The key () has the costs that no decision changes.
        """


class Itemised(Costed):
    """A space whose supernet holds every option of every slot as a module of its own.

    An option costs what its module costs. It can be timed, widened or watched alone.
    """

    means: ClassVar[str] = "does not hold each option as a module of its own"

    @abstractmethod
    def candidates(self, network: nn.Module) -> dict[str, tuple[str, int, int]]:
        """The candidate operations of a supernet: name of the module -> (group, slot, index of the
        option). Several modules may be the same option of the same slot.
        """

    def terms(self) -> list[tuple[Slot, ...]]:
        return [((group.name, slot),) for group in self.groups for slot in range(group.slots)]


class Resizable(Space):
    """A space that can make its supernet smaller for a part of the search."""

    means: ClassVar[str] = "cannot change the size of its supernet"

    @abstractmethod
    def resized(self, cells: float = 1.0, partial_channels: int | None = None) -> "Space":
        """The same space with a smaller supernet.

        The supernet has a share ``cells`` of its cells, but at least one. If ``partial_channels``
        is K, its operations read the first of K equal parts of the channels; ``None`` changes
        nothing.

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
    """Returns ``space`` if it has this ``capability``.

    Raises:
        UserError: it does not have it. The message names ``needed_by`` (the setting that needs the
            capability) and says what to do ``instead``.
    """
    if isinstance(space, capability):
        return space
    raise UserError(
        f"{needed_by}: the space {space.name} {capability.means} (it is not "
        f"{capability.__name__}); {instead}"
    )
