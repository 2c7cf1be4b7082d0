"""The candidate stage: trains one of the searcher's best architectures from scratch.

The searcher judges architectures with the weights of a supernet. Training its best ones from
scratch (the *shortlist*) gives a better judgement, by which one of them is chosen.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from supernet.data import evaluation_batches
from supernet.evaluate.accuracy import evaluate
from supernet.evaluate.curves import hopeless
from supernet.train.retrain import RetrainStage
from supernet.train.settings import ShortlistSettings


class CandidateStage(RetrainStage):
    """A retraining that is judged after each epoch and ends when it cannot become the best one.

    ``held_out`` are the indices of the training images that judge it. ``finished`` are the learning
    curves of the candidates that were trained before it to the last epoch. The learning curve is
    part of the checkpoint, so that an interrupted and resumed training ends at the same epoch as an
    uninterrupted one.
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
        """Whether the training ended before the last epoch."""
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
