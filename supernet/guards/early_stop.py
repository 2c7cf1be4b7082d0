"""Ends the search when the curvature of the loss in the logits grows, with logits from before."""

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from torch import nn

from supernet.bounds import Count, Positive
from supernet.guards.guard import Fired, Guard
from supernet.instruments.instrument import Snapshot
from supernet.instruments.readings import Eigenvalue
from supernet.mixture import Logits
from supernet.spaces.space import Space


@dataclass
class EarlyStop(Guard):
    """DARTS-ES (Zela et al., ICLR 2020, section 4.3): the largest eigenvalue of the Hessian in the
    logits predicts the collapse of a search.

    The guard reads the eigenvalue every ``every`` epochs; m(t) is the mean of the last ``window``
    readings at reading t. The search ends at the first t with ``m(t - k) / m(t) < ratio``, and the
    logits become those of reading t - k. The first reading that can end the search is number window
    + k.

    Departures: the authors' window lies around the epoch that it stands for, so they go back
    ``window // 2`` readings further. The weights stay those of reading t, because only the
    derivation reads them, and the retraining does not.
    """

    title, meaning, prefixes = Eigenvalue.title, Eigenvalue.meaning, Eigenvalue.prefixes

    every: Count = 1
    window: Count = 5
    k: Count = 5
    ratio: Positive = 0.75

    def begin(self, space: Space, supernet: nn.Module) -> None:
        super().begin(space, supernet)
        self.readings: list[float] = []
        self.history: list[Logits] = []  # the logits of the last k + 1 readings

    def end_of_epoch(self, snapshot: Snapshot) -> Fired | None:
        self.figures = {}
        if snapshot.epoch % self.every:
            return None
        self.readings.append(snapshot.eigenvalue)
        self.figures = {"eigenvalue": snapshot.eigenvalue}
        logits = {name: table.detach().cpu().clone() for name, table in snapshot.logits.items()}
        self.history = [*self.history, logits][-self.k - 1 :]
        if len(self.readings) < self.window + self.k:
            return None
        now = fmean(self.readings[-self.window :])
        before = fmean(self.readings[: -self.k][-self.window :])
        if not (now > 0 and before < self.ratio * now):
            return None
        epoch = snapshot.epoch - self.k * self.every
        what = (
            f"the dominant eigenvalue grew from {before:.4g} to {now:.4g}; the search ends with "
            f"the logits of epoch {epoch}"
        )
        return Fired(what, stops=True, logits=self.history[0])

    def state_dict(self) -> dict[str, Any]:
        return {"readings": list(self.readings), "history": list(self.history)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.readings, self.history = list(state["readings"]), list(state["history"])
