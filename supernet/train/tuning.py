"""A trained supernet goes on training while decisions are taken about it, one after the other."""

from typing import Any, Protocol

from torch import Tensor, nn, optim

from supernet.device import autocast
from supernet.mixture import Mixture, detached
from supernet.train.schedule import cosine
from supernet.train.search import SearchStage


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
        settings = search.settings
        self.optimizer = optim.SGD(
            search.supernet.parameters(),
            lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self.schedule = cosine(self.optimizer, self.steps, 0.0, 0)

    def step(self, index: int) -> dict[str, Tensor]:
        search = self.search
        if index % self.between == 0:
            self.decisions.decide()
        search.supernet.train()
        images, labels = next(search.weight_batches)
        with autocast(self.device, search.precision):
            outputs = search.supernet(images, detached(self.decisions.mixture()))
            loss = search.loss(outputs, labels)
        loss.backward()
        if search.settings.clip:
            nn.utils.clip_grad_norm_(search.supernet.parameters(), search.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        return {
            "loss": loss.detach(),
            "accuracy": (outputs.detach().argmax(dim=1) == labels).float().mean(),
        }

    def end_of_epoch(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {
            "search": self.search.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "decisions": self.decisions.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("search", "optimizer", "schedule", "decisions"):
            getattr(self, name).load_state_dict(state[name])
