"""The weights train on perturbed mixtures."""

from dataclasses import dataclass

import torch
from torch import Tensor

from supernet.bounds import Few, NotNegative
from supernet.errors import UserError, unknown
from supernet.mixture import Choice, Mixture
from supernet.modifiers.modifier import Modifier, weights_of
from supernet.samplers.sampler import Loss

MODES = ("random", "adversarial")


@dataclass
class WeightPerturbation(Modifier):
    """SmoothDARTS (Chen & Hsieh, ICML 2020, section 3): the weights train on perturbed mixtures, so
    that the loss is flat around the mixture.

    The ``mode`` "random" (SDARTS-RS, eq. 7) adds uniform noise from [-epsilon, epsilon] to every
    weight of the mixture. The ``mode`` "adversarial" (SDARTS-ADV, eq. 8) starts with this noise and
    takes ``steps`` steps of projected gradient ascent on the loss of the step's images; each of
    them moves by ``2 epsilon / steps`` times the sign of the gradient. After each move, the weights
    are cut to be at least zero and at most the sum of their slot, which is one for a distribution;
    then they are scaled to this sum. Epsilon grows on a line from ``start`` to ``end`` over the
    search. The logits learn on the mixture without perturbation.

    Only options that run are perturbed. The ascent uses the BatchNorm statistics of the batch,
    whereas the authors' code runs it in evaluation mode; neither changes the running statistics.
    """

    mode: str = "random"
    start: NotNegative = 0.03
    end: NotNegative = 0.3
    steps: Few = 7

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES:
            raise UserError(f"modifier.perturbation.mode: {unknown(self.mode, MODES)}")

    def epsilon(self, progress: float) -> float:
        """The largest change of a weight at ``progress``."""
        return self.start + (self.end - self.start) * progress

    def trained(self, mixture: Mixture, progress: float, loss: Loss) -> Mixture:
        epsilon, noise = self.epsilon(progress), self.streams.tensor("perturbation")
        active = {group.name: mixture[group.name].active for group in self.space.groups}
        original = {
            group.name: weights_of(mixture[group.name], group).detach()
            for group in self.space.groups
        }
        runs = {  # one for an option that runs, else zero
            group.name: weights_of(Choice(active[group.name]), group, original[group.name])
            for group in self.space.groups
        }

        def mixture_of(weights: dict[str, Tensor]) -> Mixture:
            return {name: Choice(active[name], table) for name, table in weights.items()}

        def projected(weights: dict[str, Tensor]) -> dict[str, Tensor]:
            """Cuts ``weights`` to the cube around the original ones, sets those of options that do
            not run to zero, and scales each slot to its original sum.
            """
            result = {}
            for name, table in weights.items():
                before = original[name]
                sum_before = before.sum(dim=-1, keepdim=True)
                cut = before + (table - before).clamp(-epsilon, epsilon)
                cut = cut.clamp_min(0).minimum(sum_before) * runs[name]
                sum_now = cut.sum(dim=-1, keepdim=True)
                scaled = cut * sum_before / sum_now.clamp_min(1e-12)
                result[name] = torch.where(sum_now > 0, scaled, before)
            return result

        def uniform(table: Tensor) -> Tensor:
            return (2 * torch.rand(table.shape, generator=noise) - 1).to(table)

        weights = projected(
            {name: table + epsilon * uniform(table) for name, table in original.items()}
        )
        for _ in range(self.steps if self.mode == "adversarial" else 0):
            leaves = {name: table.requires_grad_() for name, table in weights.items()}
            gradients = torch.autograd.grad(
                loss(mixture_of(leaves)), list(leaves.values()), materialize_grads=True
            )
            step = 2 * epsilon / self.steps
            weights = projected(
                {
                    name: table.detach() + step * gradient.sign()
                    for (name, table), gradient in zip(leaves.items(), gradients, strict=True)
                }
            )
        return mixture_of(weights)
