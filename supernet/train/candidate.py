"""Training the searcher's best architectures from scratch, to choose among them by more than
inherited weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from supernet.data import evaluation_batches
from supernet.errors import require
from supernet.evaluate.accuracy import evaluate
from supernet.evaluate.curves import hopeless
from supernet.train.retrain import RetrainStage


@dataclass
class ShortlistSettings:
    """How many of the searcher's best are trained, by the recipe of ``retrain``, and when one of
    them is ended early.

    A share ``held_out`` of the training images judges them after each epoch; the test images are
    never looked at. One is ended, from ``first_look`` (a share of the epochs) on, when the upper
    end of what its curve may come to, at ``confidence``, lies under the best that one before it has
    come to; ``first_look`` 1 ends none. Neither the final retraining of the chosen architecture, on
    all images and with other seeds, nor that of a random one is ever ended: these are what is
    compared.
    """

    size: int = 1  # 1 trains none and takes the searcher's best
    held_out: float = 0.2
    first_look: float = 0.4
    confidence: float = 0.95

    def __post_init__(self):
        require("shortlist.size", self.size, least=1)
        require("shortlist.held_out", self.held_out, above=0, below=1)
        require("shortlist.confidence", self.confidence, above=0, below=1)
        require("shortlist.first_look", self.first_look, above=0, below=math.nextafter(1, 2))


class CandidateStage(RetrainStage):
    """A retraining that is judged on the training images ``held_out`` after each epoch, and ended
    when it cannot be the best.

    ``finished`` are the curves of those before it that were trained to the end. The curve is part
    of the checkpoint, so that a training which was stopped is ended where it would have been.
    """

    def __init__(
        self,
        *arguments: Any,
        held_out: Tensor,
        shortlist: ShortlistSettings,
        finished: Sequence[list[float]] = (),
        **more: Any,
    ):
        super().__init__(*arguments, **more)
        self.held_out, self.shortlist, self.finished = held_out, shortlist, finished
        self.curve: list[float] = []

    @property
    def ended(self) -> bool:
        """Whether it was ended before the last epoch."""
        return self.steps < self.settings.epochs * self.steps_per_epoch

    def end_of_epoch(self) -> dict[str, float]:
        data = self.data
        batches = evaluation_batches(
            data.train, self.held_out, 256, data.mean, data.std, self.device
        )
        self.curve.append(evaluate(self.trained().eval(), batches, data.task).accuracy)
        epochs, epoch = self.settings.epochs, len(self.curve)
        looked_at = self.shortlist.first_look * epochs <= epoch < epochs
        if looked_at and hopeless(self.curve, epochs, self.shortlist.confidence, self.finished):
            self.steps = epoch * self.steps_per_epoch
        return {"held_out_accuracy": self.curve[-1]}

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"curve": list(self.curve), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.curve, self.steps = list(state["curve"]), state["steps"]
