"""The instruments that the package has, each a few lines."""

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
    """Two shares of the decisions of the architecture that would be derived now: the share of
    skips, and the share of options without weights. A share is missing if the space has no such
    options.
    """

    title = "share of the derivation"
    meaning = "skips, or options without weights, take over"
    prefixes = ("share/skip", "share/parameter_free")

    def begin(self, space: Space, supernet: nn.Module) -> None:
        super().begin(space, supernet)
        self.counted: dict[str, dict[str, tuple[str, ...]]] = {
            "skip": {group.name: (group.skip,) for group in space.groups if group.skip is not None},
            "parameter_free": {
                group.name: group.parameter_free for group in space.groups if group.parameter_free
            },
        }

    def read(self, snapshot: Snapshot) -> dict[str, float]:
        return {
            f"share/{name}": self.space.share(snapshot.derived, options)
            for name, options in self.counted.items()
            if options
        }


@dataclass
class Gap(Instrument):
    """The accuracy of the whole mixture, and the accuracy of the architecture derived from it, with
    the same weights and on the same images.
    """

    title = "accuracy, mixture and derived"
    meaning = "far apart: the derived architecture does not do what the mixture does"
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
    meaning = "growth: the search has reached a sharp point, where derived architectures are poor"
    prefixes = ("eigenvalue",)
    expensive = True

    def read(self, snapshot: Snapshot) -> dict[str, float]:
        return {"eigenvalue": snapshot.eigenvalue}


@dataclass
class GradientCosine(Instrument):
    """The cosine between the gradients that the logits followed in two successive steps; the mean
    over an epoch.
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
    """The norm of the gradient in all weights of an option, over all slots; the mean over the steps
    in which the option ran. There is no figure where options share their weights.
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
            options = next(one.options for one in space.groups if one.name == group)
            weights = self.weights.setdefault(f"{group}/{options[option]}", [])
            weights.extend(modules[name].parameters())
        self.weights = {name: weights for name, weights in self.weights.items() if weights}
        self.totals, self.counts = self.nothing()

    def nothing(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Sums and counts that begin at zero."""
        return {name: torch.zeros(()) for name in self.weights}, dict.fromkeys(self.weights, 0)

    def step(self, gradient: Logits | None) -> None:
        for name, weights in self.weights.items():
            if gradients := [weight.grad for weight in weights if weight.grad is not None]:
                norm = get_total_norm(gradients)
                self.totals[name] = self.totals[name].to(norm.device) + norm
                self.counts[name] += 1

    def read(self, snapshot: Snapshot) -> dict[str, float]:
        means = {
            f"gradient_norm/{name}": float(self.totals[name]) / count
            for name, count in self.counts.items()
            if count
        }
        self.totals, self.counts = self.nothing()
        return means

    def state_dict(self) -> dict[str, Any]:
        return {"totals": dict(self.totals), "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.totals, self.counts = dict(state["totals"]), dict(state["counts"])
