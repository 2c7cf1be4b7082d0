"""The settings of a ranking. This module imports neither torch nor NumPy."""

from dataclasses import dataclass, field
from typing import Annotated

from supernet.bounds import MOST, Bounded, Bounds, CountOrZero
from supernet.errors import UserError
from supernet.files import PATH

FEWEST = 3  # architectures that a correlation needs


@dataclass
class RankSettings(Bounded):
    """What ``supernet rank`` compares.

    It judges ``architectures`` random architectures with the supernet's weights, and compares the
    order with the truth. There are two truths. The first is the accuracy after training from
    scratch, of the first ``scratch`` architectures. The second is the column ``target`` of a table
    of ``published`` accuracies, an npz file that holds the architectures as ``arch``, in the
    notation of the space. The other columns of that table are compared with the truth as well, as
    predictions by others. ``beside`` lists folders of other runs, whose supernets judge the same
    architectures.
    """

    where = "rank"

    # a correlation of fewer architectures is meaningless
    architectures: Annotated[int, Bounds(least=FEWEST, most=MOST)] = 200
    scratch: CountOrZero = 0
    published: str | None = field(default=None, metadata=PATH)
    target: str = "test_200"
    beside: list[str] = field(default_factory=list, metadata=PATH)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scratch > self.architectures:
            raise UserError(
                f"rank.scratch={self.scratch}: there are only "
                f"rank.architectures={self.architectures} to train"
            )
        if 0 < self.scratch < FEWEST:
            raise UserError(
                f"rank.scratch={self.scratch}: no correlation of fewer than 3 says anything; take "
                "30 or more, or 0"
            )
