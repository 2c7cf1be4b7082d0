"""What a guard is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from supernet.instruments.instrument import Snapshot
from supernet.mixture import Logits
from supernet.spaces.space import Space

Gradients = Callable[[Sequence[nn.Parameter]], Sequence[Tensor | None]]


@dataclass
class Fired:
    """What a guard has done, in words, and what it asks the search to do: to end (``stops``), or to
    go back to earlier ``logits``.
    """

    what: str
    stops: bool = False
    logits: Logits | None = None


class Guard:
    """Watches a search and acts on it. A subclass is a dataclass whose fields are its settings.

    What it says of its figures is what an instrument says
    (:class:`~supernet.instruments.instrument.Instrument`).
    """

    title: ClassVar[str]
    meaning: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]]

    def begin(self, space: Space, supernet: nn.Module) -> None:
        """Called once before the first step.

        Raises:
            UserError: the space has nothing to guard.
        """
        self.space, self.supernet = space, supernet
        self.figures: dict[str, float] = {}  # what :meth:`end_of_epoch` has measured, for the log

    def step(self, validation: Gradients | None) -> None:
        """Called in every step, when the weights have their gradients and have not moved yet. Here
        a guard can keep some from moving.

        ``validation`` gives the gradients of weights on the images of the architecture split that
        the logits have just learnt from, if they did, in the same mixture.
        """

    def end_of_epoch(self, snapshot: Snapshot) -> Fired | None:
        """Called at the end of every epoch. Returns what the guard did, if it did anything since
        the last time.
        """

    def state_dict(self) -> dict[str, Any]:
        """What must be in a checkpoint so that the guard can go on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict` gave."""
