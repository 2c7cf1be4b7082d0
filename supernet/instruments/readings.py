"""The instruments, each a few lines."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from supernet.errors import UserError, require, unknown
from supernet.instruments.curvature import flat
from supernet.instruments.instrument import Instrument, Snapshot
from supernet.mixture import Logits
from supernet.spaces.capabilities import Itemised
from supernet.spaces.space import Space


class Shares(Instrument):
    """Of the decisions of the architecture that would be derived now, the share of skips and of
    options without weights, where a space has such options.
    """

    def begin(self, space: Space, supernet: nn.Module) -> None:
        super().begin(space, supernet)
        skips = {g.name: (g.skip,) for g in space.groups if g.skip is not None}
        free = {g.name: g.parameter_free for g in space.groups if g.parameter_free}
        self.counted = {"skip": skips, "parameter_free": free}

    def read(self, snapshot: Snapshot) -> dict[str, float]:
        return {
            f"share/{name}": self.space.share(snapshot.derived, options)
            for name, options in self.counted.items()
            if options
        }


class Gap(Instrument):
    """The accuracy of the whole mixture less that of the architecture derived from it, on the same
    weights and images.
    """

    dear = True

    def read(self, snapshot: Snapshot) -> dict[str, float]:
        mixed = snapshot.judged(snapshot.mixture(snapshot.logits)).accuracy
        derived = snapshot.judged(self.space.path(snapshot.derived)).accuracy
        return {"gap/mixture": mixed, "gap/derived": derived}


class Eigenvalue(Instrument):
    """The largest eigenvalue of the validation loss's Hessian in the logits."""

    dear = True

    def read(self, snapshot: Snapshot) -> dict[str, float]:
        return {"eigenvalue": snapshot.eigenvalue}


class GradientCosine(Instrument):
    """The cosine between the gradients that the logits followed in successive steps, its mean over
    the epoch.
    """

    def begin(self, space: Space, supernet: nn.Module) -> None:
        super().begin(space, supernet)
        self.before: Tensor | None = None
        self.total, self.count = torch.zeros(()), 0

    def step(self, gradient: Logits | None) -> None:
        if gradient is None:
            return
        now = flat(list(gradient.values()))
        if self.before is not None:
            self.total = (
                self.total.to(now.device)
                + torch.cosine_similarity(now, self.before.to(now.device), dim=0).float()
            )
            self.count += 1
        self.before = now

    def read(self, snapshot: Snapshot) -> dict[str, float]:
        mean = {"gradient_cosine": float(self.total) / self.count} if self.count else {}
        self.total, self.count = torch.zeros(()), 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        return {"before": self.before, "total": self.total, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.before, self.total, self.count = state["before"], state["total"], state["count"]


class GradientNorms(Instrument):
    """The norm of the gradient in all weights of an option, over all slots, its mean over the steps
    that it ran in; nothing where options share their weights.
    """

    def begin(self, space: Space, supernet: nn.Module) -> None:
        super().begin(space, supernet)
        self.weights: dict[str, list[nn.Parameter]] = {}
        modules = dict(supernet.named_modules())
        places = space.candidates(supernet) if isinstance(space, Itemised) else {}
        for name, (group, _, option) in places.items():
            options = next(g.options for g in space.groups if g.name == group)
            self.weights.setdefault(f"{group}/{options[option]}", []).extend(
                modules[name].parameters()
            )
        self.weights = {name: weights for name, weights in self.weights.items() if weights}
        self.totals, self.counts = self.nothing()

    def nothing(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        return {name: torch.zeros(()) for name in self.weights}, dict.fromkeys(self.weights, 0)

    def step(self, gradient: Logits | None) -> None:
        for name, weights in self.weights.items():
            if gradients := [weight.grad for weight in weights if weight.grad is not None]:
                norm = get_total_norm(gradients)
                self.totals[name] = self.totals[name].to(norm.device) + norm
                self.counts[name] += 1

    def read(self, snapshot: Snapshot) -> dict[str, float]:
        means = {
            f"gradient_norm/{n}": float(self.totals[n]) / count
            for n, count in self.counts.items()
            if count
        }
        self.totals, self.counts = self.nothing()
        return means

    def state_dict(self) -> dict[str, Any]:
        return {"totals": dict(self.totals), "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.totals, self.counts = dict(state["totals"]), dict(state["counts"])


INSTRUMENTS = {
    "shares": Shares,
    "gradient_cosine": GradientCosine,
    "gradient_norms": GradientNorms,
    "gap": Gap,
    "eigenvalue": Eigenvalue,
}


@dataclass
class InstrumentSettings:
    """What is measured of a search that moves logits. It changes nothing of the search itself."""

    use: list[str] = field(default_factory=lambda: list(INSTRUMENTS))
    # epochs between two readings of those that cost more than a step, gap and eigenvalue; 0 leaves
    # them out
    every: int = 0
    # validation images, always the same, that these look at; the eigenvalue at the first batch
    # alone
    images: int = 512

    def __post_init__(self):
        for name in self.use:
            if name not in INSTRUMENTS:
                raise UserError(f"instruments.use: {unknown(name, list(INSTRUMENTS))}")
        require("instruments.every", self.every, least=0)
        require("instruments.images", self.images, least=1)

    def built(self) -> dict[str, Instrument]:
        """The instruments by name."""
        return {
            name: INSTRUMENTS[name]()
            for name in self.use
            if self.every or not INSTRUMENTS[name].dear
        }

    def due(self, instrument: Instrument, epoch: int) -> bool:
        return not instrument.dear or epoch % self.every == 0


def load_states(parts: dict[str, Any], states: dict[str, Any]) -> None:
    """Gives each part by name its state, if it has one: a search may go on with other instruments."""
    for name, part in parts.items():
        if name in states:
            part.load_state_dict(states[name])
