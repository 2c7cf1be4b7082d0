"""Binary gates: one path for the step of the weights, two options per slot for that of the
logits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from supernet.mixture import Choice, Logits, Mixture
from supernet.samplers.sampler import Loss, Sampler


@dataclass
class Proxyless(Sampler):
    """ProxylessNAS (Cai, Zhu & Han, ICLR 2019, sections 3.1 and 3.2).

    The weights train on one path, drawn from the softmax of the logits (eq. 2). For the step of the
    logits, two options of every slot are drawn from this softmax, without replacement. Then one of
    the two is drawn, by the softmax of their two logits: its gate is 1, and the gate of the other
    is 0. Both options run, so that the loss has a gradient in both gates; these gradients stand for
    the gradients in the two probabilities (eq. 4). After the step, both logits are shifted by the
    same amount, so that the options that were not drawn keep their probabilities.

    The gradient is biased, as every straight-through gradient is: it is the gradient of the loss
    linearised at the drawn path. For a loss that is linear in the gates, its mean over the pairs is
    the gradient of the expected loss under the choice between the two options.

    Departures: the authors move the logits in every fifth step of the weights, and leave the logits
    of a slot unchanged if ``none`` is drawn there. Here the budget's term is the excess of the
    expected cost and is added to the loss; the paper multiplies the loss by a latency term or adds
    one. Like the draws of :class:`~supernet.samplers.gdas.GDAS`, paths of the DARTS space are not
    valid architectures, and a budget does not restrict them.
    """

    def relaxation(self, logits: Logits, progress: float, noise: torch.Generator) -> Mixture:
        return {name: gates(table, noise) for name, table in logits.items()}

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        noise, mixture = self.streams.tensor("paths"), {}
        for name, table in logits.items():
            drawn = torch.multinomial(torch.softmax(table, dim=-1).cpu(), 1, generator=noise)
            mixture[name] = Choice(tuple(map(tuple, drawn.tolist())), torch.ones_like(table))
        return [mixture]

    def settle(self, logits: Logits, before: Logits) -> None:
        with torch.no_grad():
            for name, table in logits.items():
                moved = table != before[name]
                now, then = (
                    torch.where(moved, t, -torch.inf).logsumexp(dim=-1, keepdim=True)
                    for t in (table, before[name])
                )
                table.sub_(torch.where(moved, now - then, 0.0))


def gates(table: Tensor, noise: torch.Generator) -> Choice:
    """Draws two options of every slot, and their binary gates [slots, options]. Gradients pass
    through the gates to the two logits.

    In a slot with a single option left after pruning, this option runs alone.
    """
    probabilities = torch.softmax(table.detach(), dim=-1).cpu()
    pairs = []
    for row in probabilities:
        possible = int((row > 0).sum())
        pairs.append(torch.multinomial(row, min(2, possible), generator=noise).tolist())
    chosen = torch.zeros(table.shape, dtype=torch.bool)
    for slot, pair in enumerate(pairs):
        chosen[slot, pair] = True
    soft = torch.softmax(table.masked_fill(~chosen.to(table.device), -torch.inf), dim=-1)
    on = torch.multinomial(soft.detach().cpu(), 1, generator=noise).to(table.device)
    hard = torch.zeros_like(soft).scatter_(-1, on, 1.0)
    return Choice(tuple(map(tuple, pairs)), hard + (soft - soft.detach()))
