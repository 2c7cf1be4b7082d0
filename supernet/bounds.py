"""The bounds of numbers, declared in the types of settings and checked by one rule.

A setting declares its bounds in its type: ``paths: Annotated[int, Bounds(least=1, most=1000)]``.
The types below are for bounds that several settings have. A whole number always has an upper bound,
far above every sensible value: with a larger one, a run would take all memory or never end.
"""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from supernet.errors import require


@dataclass(frozen=True)
class Bounds:
    """The bounds of a finite number: ``least`` <= number <= ``most``, and ``above`` < number <
    ``below``.
    """

    least: float = -math.inf
    above: float = -math.inf
    below: float = math.inf
    most: float = math.inf


MOST = 1_000_000  # of what is made or done one after the other

Seed = Annotated[int, Bounds(least=0, most=2**63 - 1)]
Count = Annotated[int, Bounds(least=1, most=MOST)]
CountOrZero = Annotated[int, Bounds(least=0, most=MOST)]
Two = Annotated[int, Bounds(least=2, most=MOST)]  # or more
Few = Annotated[int, Bounds(least=1, most=1000)]  # of what each step of a training does
FewOrZero = Annotated[int, Bounds(least=0, most=1000)]
BatchSize = Annotated[int, Bounds(least=1, most=2**16)]
# BatchNorm cannot normalise a batch of a single image
TrainingBatchSize = Annotated[int, Bounds(least=2, most=2**16)]
Images = Annotated[int, Bounds(least=1, most=2**31)]  # a larger number means all that there are
Length = Annotated[int, Bounds(least=1, most=2**14)]  # of an axis or a step: a width, a kernel
Places = Annotated[int, Bounds(least=1, most=2**10)]  # in a network: blocks, heads
Ratio = Annotated[float, Bounds(above=0, most=100)]  # of two widths
Pixels = Annotated[int, Bounds(least=1, most=2**13)]  # of one side of an image
Factor = Annotated[float, Bounds(least=1)]
Positive = Annotated[float, Bounds(above=0)]
NotNegative = Annotated[float, Bounds(least=0)]
Probability = Annotated[float, Bounds(least=0, below=1)]  # or a rate: 1 would leave nothing
Part = Annotated[float, Bounds(above=0, below=1)]  # a share that leaves something for others
Share = Annotated[float, Bounds(above=0, most=1)]
Cosine = Annotated[float, Bounds(least=-1, most=1)]


class Bounded:
    """A dataclass whose numbers are within the bounds of their types.

    A subclass that has a ``__post_init__`` of its own calls this one.
    """

    where: ClassVar[str] = ""  # the name of the settings, for messages

    def __post_init__(self) -> None:
        """Raises a UserError if a number is out of its bounds."""
        require_within(self.where, self, type(self))


def hints_of(kind: type) -> dict[str, Any]:
    """The types of the fields of a dataclass, with their bounds."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def require_within(key: str, value: Any, hint: Any) -> None:
    """Raises a UserError if ``value`` is out of the bounds of the type ``hint``. ``key`` is the
    name of the setting. ``None``, the items of lists and inner dataclasses are understood.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        for bounds in (one for one in hint.__metadata__ if isinstance(one, Bounds)):
            require(key, value, **dataclasses.asdict(bounds))
    elif origin in (typing.Union, types.UnionType) and value is not None:
        for one in inner:
            require_within(key, value, one)
    elif origin is list:
        for index, item in enumerate(value):
            require_within(f"{key}[{index}]", item, inner[0])
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for name, one in hints_of(type(value)).items():
            require_within(f"{key}.{name}" if key else name, getattr(value, name), one)
