"""All options, weighted by a draw from a Dirichlet distribution that the logits define."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from supernet.bounds import NotNegative
from supernet.errors import UserError, unknown
from supernet.mixture import Choice, Logits, Mixture
from supernet.samplers.sampler import Loss, Sampler

DISTANCES = ("l2", "kl")


@dataclass
class DrNAS(Sampler):
    """DrNAS (Chen et al., ICLR 2021, sections 3.1 and 3.2): the weights of a slot are drawn from
    ``Dirichlet(elu(logits) + 1)``.

    The gradient is pathwise (eq. 5) and exact for the expected loss: a Dirichlet variable is a
    vector of gamma variables divided by their sum, and each gamma variable moves with its
    concentration such that it keeps its quantile. ``distance_weight`` times the distance from the
    uniform distribution, Dirichlet(1), is added to the loss of the logits (eq. 4). The distance
    "l2" is half the squared norm of the logits; with Adam it is the authors' default, a weight
    decay of 1e-3. The distance "kl" is the Kullback-Leibler divergence of the distribution from the
    uniform one.

    The architecture is derived from the mean of the distribution. The paper's progressive learning
    (section 3.3) prunes options and widens partial channels half way through the search. Here the
    modifier ``pruning`` prunes options, and the setting ``search.widths`` widens partial channels
    (:mod:`supernet.train.widening`).
    """

    distance: str = "l2"
    distance_weight: NotNegative = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distance not in DISTANCES:
            raise UserError(f"sampler.distance: {unknown(self.distance, DISTANCES)}")

    def relaxation(self, logits: Logits, progress: float, noise: torch.Generator) -> Mixture:
        return {
            name: Choice.dense(dirichlet(concentration(table), noise).to(table))
            for name, table in logits.items()
        }

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        return [self.relaxation(logits, progress, self.streams.tensor("mixtures"))]

    def penalty(self, logits: Logits, progress: float) -> Tensor:
        distances = (self.distance_of(table) for table in logits.values())
        return self.distance_weight * sum(distances, torch.zeros(()))

    def distance_of(self, table: Tensor) -> Tensor:
        """The distance of one group's distributions from the uniform one. Pruned options do not
        count.
        """
        if self.distance == "l2":
            return torch.where(table > -torch.inf, table, 0.0).square().sum() / 2
        rows = [row[row > 0] for row in concentration(table)]
        divergences = (
            kl_divergence(Dirichlet(row), Dirichlet(torch.ones_like(row)))
            for row in rows
            if len(row) > 1
        )
        return sum(divergences, torch.zeros(()))

    def probabilities(self, logits: Logits) -> Logits:
        concentrations = {name: concentration(table) for name, table in logits.items()}
        return {
            name: table / table.sum(dim=-1, keepdim=True) for name, table in concentrations.items()
        }


def concentration(table: Tensor) -> Tensor:
    """The concentration ``elu(table) + 1``, computed such that small values are not rounded to
    zero.

    It is zero for pruned options only, whose logits are minus infinity.
    """
    return torch.where(table > 0, table + 1, table.clamp(max=0).exp())


def dirichlet(concentrations: Tensor, noise: torch.Generator) -> Tensor:
    """Draws one vector per row from a Dirichlet distribution, differentiable in the
    ``concentrations`` [rows, options]. An option whose concentration is zero has weight zero.

    torch's own Dirichlet takes no generator. The draw is made on the CPU in float64, where small
    concentrations do not underflow; the result stays there.
    """
    concentrations = concentrations.cpu()  # once: on an accelerator, the host waits for this
    possible = concentrations > 0
    gammas = torch._standard_gamma(torch.where(possible, concentrations, 1.0).double(), noise)
    gammas = torch.where(possible, gammas, 0.0)
    return gammas / gammas.sum(dim=-1, keepdim=True)
