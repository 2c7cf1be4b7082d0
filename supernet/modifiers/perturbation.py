"""The weights train on mixtures that are a little off."""

from dataclasses import dataclass

import torch
from torch import Tensor

from supernet.errors import UserError, require, unknown
from supernet.mixture import Choice, Mixture
from supernet.modifiers.modifier import Modifier, weights_of
from supernet.samplers.sampler import Loss

MODES = ("random", "adversarial")


@dataclass
class WeightPerturbation(Modifier):
    """SmoothDARTS (Chen & Hsieh, ICML 2020, section 3): the weights train on perturbed mixtures, so
    that the loss is flat around.

    "random" (SDARTS-RS, eq. 7) adds uniform noise from [-epsilon, epsilon] to every weight of the
    mixture; "adversarial" (SDARTS-ADV, eq. 8) starts from there and takes ``steps`` steps of
    projected gradient ascent on the loss of the step's images, of the sign of the gradient times
    ``2 epsilon / steps``. After each move the weights are cut to be neither negative nor above the
    sum of their slot, which is one for a distribution, and scaled to that sum. Epsilon grows
    linearly from ``start`` to ``end`` over the search. The logits learn on the mixture as it is.

    Only options that run are perturbed. The ascent reads the statistics of the batch, where the
    authors' code runs in evaluation mode; either leaves no trace.
    """

    mode: str = "random"
    start: float = 0.03
    end: float = 0.3
    steps: int = 7

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"modifier.perturbation.mode: {unknown(self.mode, MODES)}")
        for name in ("start", "end"):
            require(f"modifier.perturbation.{name}", getattr(self, name), least=0)
        require("modifier.perturbation.steps", self.steps, least=1)

    def epsilon(self, progress: float) -> float:
        return self.start + (self.end - self.start) * progress

    def trained(self, mixture: Mixture, progress: float, loss: Loss) -> Mixture:
        epsilon, noise = self.epsilon(progress), self.streams.tensor("perturbation")
        active = {group.name: mixture[group.name].active for group in self.space.groups}
        plain = {
            group.name: weights_of(mixture[group.name], group).detach()
            for group in self.space.groups
        }
        runs = {
            g.name: weights_of(Choice(active[g.name]), g, plain[g.name]) for g in self.space.groups
        }

        def made(weights: dict[str, Tensor]) -> Mixture:
            return {name: Choice(active[name], table) for name, table in weights.items()}

        def projected(weights: dict[str, Tensor]) -> dict[str, Tensor]:
            """Into the cube around the plain weights, where the options run, and to the sums that
            these had.
            """
            result = {}
            for name, table in weights.items():
                before = plain[name]
                whole = before.sum(dim=-1, keepdim=True)
                near = (before + (table - before).clamp(-epsilon, epsilon)).clamp_min(0).minimum(
                    whole
                ) * runs[name]
                total = near.sum(dim=-1, keepdim=True)
                result[name] = torch.where(total > 0, near * whole / total.clamp_min(1e-12), before)
            return result

        def uniform(table: Tensor) -> Tensor:
            return (2 * torch.rand(table.shape, generator=noise) - 1).to(table)

        weights = projected(
            {name: table + epsilon * uniform(table) for name, table in plain.items()}
        )
        for _ in range(self.steps if self.mode == "adversarial" else 0):
            leaves = {name: table.requires_grad_() for name, table in weights.items()}
            slopes = torch.autograd.grad(
                loss(made(leaves)), list(leaves.values()), materialize_grads=True
            )
            stride = 2 * epsilon / self.steps
            weights = projected(
                {
                    n: t.detach() + stride * s.sign()
                    for (n, t), s in zip(leaves.items(), slopes, strict=True)
                }
            )
        return made(weights)
