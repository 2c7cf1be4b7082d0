"""The instruments, each a few lines."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from supernet.instruments.curvature import flat
from supernet.instruments.instrument import Instrument, Snapshot
from supernet.mixture import Logits
from supernet.spaces.capabilities import Itemised
from supernet.spaces.space import Space


@dataclass
class Shares(Instrument):
    """Of the decisions of the architecture that would be derived now, the share of skips and of
    options without weights, where a space has such options.
    """

    title = "share of the derivation"
    meaning = "skips, or options without weights, take over"
    prefixes = ("share/skip", "share/parameter_free")

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


@dataclass
class Gap(Instrument):
    """The accuracy of the whole mixture and that of the architecture derived from it, on the same
    weights and images.
    """

    title = "accuracy, mixture and derived"
    meaning = "far apart: the mixture is not what is derived from it"
    prefixes = ("gap/",)
    expensive = True

    def read(self, snapshot: Snapshot) -> dict[str, float]:
        mixed = snapshot.judged(snapshot.mixture(snapshot.logits)).accuracy
        derived = snapshot.judged(self.space.path(snapshot.derived)).accuracy
        return {"gap/mixture": mixed, "gap/derived": derived}


@dataclass
class Eigenvalue(Instrument):
    """The largest eigenvalue of the validation loss's Hessian in the logits."""

    title = "dominant eigenvalue"
    meaning = "growth: the search has come to a sharp place, and what is derived there is poor"
    prefixes = ("eigenvalue",)
    expensive = True

    def read(self, snapshot: Snapshot) -> dict[str, float]:
        return {"eigenvalue": snapshot.eigenvalue}


@dataclass
class GradientCosine(Instrument):
    """The cosine between the gradients that the logits followed in successive steps, its mean over
    the epoch.
    """

    title = "cosine of logit gradients"
    meaning = "near 1: step after step pushes the same way; near 0: only noise is left"
    prefixes = ("gradient_cosine",)

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


@dataclass
class GradientNorms(Instrument):
    """The norm of the gradient in all weights of an option, over all slots, its mean over the steps
    that it ran in; nothing where options share their weights.
    """

    title = "gradient norm of an option's weights"
    meaning = "near 0: the option no longer learns"
    prefixes = ("gradient_norm/",)

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
