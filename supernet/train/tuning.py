"""The tuning stage: trains a searched supernet further while its slots are decided one by one.

The perturbation selection of DARTS-PT uses it: after each decision, the supernet is trained on the
mixture that remains before the next slot is decided.
"""

from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor

from supernet.mixture import Mixture
from supernet.train.search import SearchStage
from supernet.train.weights import SharedWeights


class Decisions(Protocol):
    """A sequence of decisions that reduce the mixture of a supernet step by step."""

    @property
    def questions(self) -> int:
        """The number of decisions in all."""

    def decide(self) -> None:
        """Takes the next decision."""

    def mixture(self) -> Mixture:
        """The mixture that remains after the decisions so far."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class TuningStage:
    """Takes the ``decisions`` one by one; after each, trains the supernet of ``search`` further.

    Each training takes ``epochs`` (at least one step) on the mixture that remains. SGD has the
    settings of the search, but a new momentum and a new learning rate, which falls from ``lr`` to
    zero on one cosine over all these trainings. The weights of ``search`` are changed in place.
    """

    name = "tuning"

    def __init__(
        self, search: SearchStage, decisions: Decisions, epochs: float, lr: float, key: str = ""
    ):
        self.search, self.decisions, self.key, self.device = search, decisions, key, search.device
        self.steps_per_epoch = search.steps_per_epoch
        self.between = max(1, round(epochs * self.steps_per_epoch))
        self.steps = self.between * decisions.questions
        settings = replace(search.settings, lr=lr, lr_min=0.0, warmup_epochs=0.0)
        self.weights = SharedWeights(
            settings, search.data.task, search.device, search.weights.precision
        )
        self.weights.begin(search.supernet, self.steps, self.steps_per_epoch)

    def step(self, index: int) -> dict[str, Tensor]:
        search = self.search
        if index % self.between == 0:
            self.decisions.decide()
        search.supernet.train()
        figures = self.weights.backward([self.decisions.mixture()], next(search.weight_batches))
        self.weights.step()
        return figures

    def end_of_epoch(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {
            "search": self.search.state_dict(),  # includes the weights of the supernet
            "optimizer": self.weights.optimizer.state_dict(),
            "schedule": self.weights.schedule.state_dict(),
            "decisions": self.decisions.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.search.load_state_dict(state["search"])
        self.weights.optimizer.load_state_dict(state["optimizer"])
        self.weights.schedule.load_state_dict(state["schedule"])
        self.decisions.load_state_dict(state["decisions"])
