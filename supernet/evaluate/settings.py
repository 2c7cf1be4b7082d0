"""The settings of a ranking. This module imports neither torch nor NumPy."""

from dataclasses import dataclass, field

from supernet.errors import UserError, require

FEWEST = 3  # architectures that a correlation needs


@dataclass
class RankSettings:
    """What ``supernet rank`` compares.

    It judges ``architectures`` random architectures with the supernet's weights, and compares the
    order with the truth. There are two truths. The first is the accuracy after training from
    scratch, of the first ``scratch`` architectures. The second is the column ``target`` of a table
    of ``published`` accuracies, an npz file that holds the architectures as ``arch``, in the
    notation of the space. The other columns of that table are compared with the truth as well, as
    predictions by others. ``beside`` lists folders of other runs, whose supernets judge the same
    architectures.
    """

    architectures: int = 200
    scratch: int = 0
    published: str | None = None
    target: str = "test_200"
    beside: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # a correlation of fewer architectures is meaningless
        require("rank.architectures", self.architectures, least=FEWEST)
        require("rank.scratch", self.scratch, least=0)
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
