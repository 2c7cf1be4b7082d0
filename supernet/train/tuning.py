"""A trained supernet goes on training while decisions are taken about it, one after the other."""

from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor

from supernet.mixture import Mixture
from supernet.train.search import SearchStage
from supernet.train.weights import SharedWeights


class Decisions(Protocol):
    """So many ``questions``, of which :meth:`decide` answers the next; :meth:`mixture` is what the
    supernet then runs.
    """

    @property
    def questions(self) -> int: ...

    def decide(self) -> None: ...

    def mixture(self) -> Mixture: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class TuningStage:
    """After every decision the weights of ``search``'s supernet train for ``epochs`` on the mixture
    that is left.

    SGD with the settings of the search, begun anew at ``lr``, which falls to zero on a cosine. A
    step is at least needed between two decisions. The supernet is changed in place.
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
        self.weights = SharedWeights(settings, search.device, search.weights.precision)
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
            "search": self.search.state_dict(),  # with the weights of the supernet
            "optimizer": self.weights.optimizer.state_dict(),
            "schedule": self.weights.schedule.state_dict(),
            "decisions": self.decisions.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.search.load_state_dict(state["search"])
        self.weights.optimizer.load_state_dict(state["optimizer"])
        self.weights.schedule.load_state_dict(state["schedule"])
        self.decisions.load_state_dict(state["decisions"])
