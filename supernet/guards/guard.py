"""The interface of a guard."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from supernet.bounds import Bounded
from supernet.instruments.instrument import Snapshot
from supernet.mixture import Logits
from supernet.spaces.space import Space

# the gradient of each of some weights; None for a weight that the loss does not depend on
Gradients = Callable[[Sequence[nn.Parameter]], Sequence[Tensor | None]]


@dataclass
class Fired:
    """What a guard has done, in words (``what``), and what the search must do now: end (``stops``),
    or go back to earlier ``logits``.
    """

    what: str
    stops: bool = False
    logits: Logits | None = None


class Guard(Bounded):
    """Watches a search and acts on it. A subclass is a dataclass; its fields are its settings.

    A guard describes its figures for the report as an instrument does
    (:class:`~supernet.instruments.instrument.Instrument`).
    """

    title: ClassVar[str]
    meaning: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]]

    @property
    def where(self) -> str:  # type: ignore[override]
        """The name of its settings: that of the option, which is the name of its module."""
        return f"guard.{type(self).__module__.rpartition('.')[2]}"

    def begin(self, space: Space, supernet: nn.Module) -> None:
        """Called once before the first step.

        Raises:
            UserError: the space has nothing to guard.
        """
        self.space, self.supernet = space, supernet
        self.figures: dict[str, float] = {}  # measured by :meth:`end_of_epoch`, for the log

    def step(self, validation: Gradients | None) -> None:
        """Called in every step, when the weights have their gradients and have not moved yet. Here
        a guard can keep weights from moving.

        ``validation`` gives the gradients of weights on the images of the architecture split from
        which the logits have just learnt, in the same mixture. It is ``None`` if the logits did not
        learn.
        """

    def end_of_epoch(self, snapshot: Snapshot) -> Fired | None:
        """Called at the end of every epoch. Returns what the guard has done since the last call, or
        ``None`` if it has done nothing.
        """

    def state_dict(self) -> dict[str, Any]:
        """The state that the guard needs to go on from a checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned."""
