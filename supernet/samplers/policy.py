"""Architectures drawn from a policy: an LSTM that decides one gene after another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.bounds import Count, Few, Positive
from supernet.cost.budget import Budget
from supernet.mixture import Architecture, Logits, Mixture
from supernet.randomness import Streams
from supernet.samplers.sampler import Loss, Sampler
from supernet.spaces.space import Gene

TRIES = 100  # rounds of draws after which a budget counts as too tight for the policy


class Controller(nn.Module):
    """The LSTM of ENAS (section 2 and appendix), which decides one gene after another. The
    probabilities of a gene's values are the softmax of a linear map of the LSTM's state. The chosen
    value is the next input.

    The logits x of a decision become ``tanh_constant * tanh(x / temperature)``, so that every value
    keeps a positive probability. Genes with the same values share their embedding and their linear
    map; the LSTM's state contains which gene is next.
    """

    def __init__(
        self, genes: Sequence[Gene], hidden: int, temperature: float, tanh_constant: float
    ):
        super().__init__()
        self.temperature, self.tanh_constant = temperature, tanh_constant
        kinds = list(dict.fromkeys(gene.values for gene in genes))
        self.kinds = [kinds.index(gene.values) for gene in genes]
        self.start = nn.Parameter(torch.empty(hidden))
        self.cell = nn.LSTMCell(hidden, hidden)
        self.embeddings = nn.ModuleList(nn.Embedding(len(values), hidden) for values in kinds)
        self.heads = nn.ModuleList(nn.Linear(hidden, len(values), bias=False) for values in kinds)
        for weight in self.parameters():
            nn.init.uniform_(weight, -0.1, 0.1)

    # without autocast: bfloat16 is too coarse for products of probabilities
    @torch.autocast("cpu", enabled=False)  # type: ignore[untyped-decorator]
    def forward(
        self, count: int, choose: Callable[[int, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Makes all decisions of ``count`` architectures.

        ``choose`` gets the index of a gene and the log-probabilities of its values [count, values],
        and returns the index of the chosen value for each architecture [count].

        Returns the indices that were chosen [count, genes], the log-probability [count] of all
        decisions of an architecture together, and the sum of the entropies (nats) of these
        decisions [count].
        """
        x, state = self.start.expand(count, -1), None
        choices, log_probability, entropy = [], torch.zeros(count), torch.zeros(count)
        for gene, kind in enumerate(self.kinds):
            state = self.cell(x, state)
            logits = self.tanh_constant * torch.tanh(self.heads[kind](state[0]) / self.temperature)
            log_p = F.log_softmax(logits, dim=-1)
            chosen = choose(gene, log_p)
            choices.append(chosen)
            log_probability = log_probability + log_p.gather(1, chosen[:, None])[:, 0]
            entropy = entropy - (log_p.exp() * log_p).sum(dim=1)
            x = self.embeddings[kind](chosen)
        return torch.stack(choices, dim=1), log_probability, entropy


@dataclass
class Policy(Sampler):
    """ENAS, efficient neural architecture search (Pham et al., ICML 2018), as its authors search
    for CNN cells on CIFAR-10.

    The defaults are those of the authors' code (melodyguan/enas, scripts/cifar10_micro_search.sh
    and src/cifar10/main.py): an LSTM with one layer of 64 units; logits that are bounded by 1.10
    and not divided by a temperature. Each step draws ``paths`` architectures and averages their
    gradients (the paper's M is 1, section 2.2). The controller runs on the CPU, because the host
    must know which options run.

    Departures: the controller decides over the genes of any space, so that all its decisions
    together are always valid. The authors' controller attends to earlier nodes where it chooses
    inputs; where it chooses operations, it bounds the logits by 1.10/2.5 and prefers separable
    convolutions by a fixed bias. :meth:`scores` are the frequencies of the options in ``scored``
    draws: a searcher that reads them does not know how the policy's decisions depend on each other.
    Under a budget, the draws follow the policy's distribution, given that the budget is kept.
    """

    paths: Few = 1
    hidden: Few = 64
    temperature: Positive = 1.0
    tanh_constant: Positive = 1.1
    scored: Count = 1000

    scores_from = "policy"

    def begin(self, budget: Budget, streams: Streams, device: torch.device) -> None:
        super().begin(budget, streams, device)
        with streams.initialising("controller"):
            self.controller = Controller(
                self.space.genes, self.hidden, self.temperature, self.tanh_constant
            )

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        return [
            self.space.path(architecture)
            for architecture in self.draw(self.paths, self.streams.tensor("policy/paths"))
        ]

    def draw(self, count: int, noise: torch.Generator) -> list[Architecture]:
        """Draws ``count`` architectures from the policy; those over the budget are drawn again.

        If 100 rounds of draws do not give enough architectures, the best one by the policy's own
        :meth:`scores` takes the places that are left.
        """
        drawn: list[Architecture] = []
        for _ in range(TRIES):
            more = self._draw(count - len(drawn), noise)
            drawn += [architecture for architecture in more if self.budget.allows(architecture)]
            if len(drawn) == count:
                return drawn
        return drawn + [self.budget.best(self.scores({}))] * (count - len(drawn))

    def _draw(self, count: int, noise: torch.Generator) -> list[Architecture]:
        """Draws ``count`` architectures from the policy, whatever they cost."""

        def choose(gene: int, log_p: Tensor) -> Tensor:
            return torch.multinomial(log_p.exp(), 1, generator=noise)[:, 0]

        with torch.no_grad():
            choices, _, _ = self.controller(count, choose)
        genes = self.space.genes
        return [
            self.space.express([gene.values[index] for gene, index in zip(genes, row, strict=True)])
            for row in choices.tolist()
        ]

    def likelihood(self, architectures: Sequence[Architecture]) -> tuple[Tensor, Tensor]:
        """The log-probability [count] of each architecture, and the sum [count] of the entropies
        (nats) of the decisions that lead to it.

        The expectation of this sum is the entropy of the policy. Both results are differentiable in
        the controller's parameters.
        """
        choices = torch.tensor(
            [
                [
                    gene.values.index(value)
                    for gene, value in zip(
                        self.space.genes, self.space.values(architecture), strict=True
                    )
                ]
                for architecture in architectures
            ]
        )
        _, log_probability, entropy = self.controller(
            len(architectures), lambda gene, log_p: choices[:, gene]
        )
        return log_probability, entropy

    def sample(self, count: int) -> tuple[list[Architecture], Tensor, Tensor]:
        """Draws ``count`` architectures for a learner, and returns them with their
        :meth:`likelihood`.

        The draws have a generator of their own: they do not change which paths the weights train
        on.
        """
        architectures = self.draw(count, self.streams.tensor("policy/samples"))
        return architectures, *self.likelihood(architectures)

    def scores(self, logits: Logits) -> Logits:
        """The frequency of each option in each slot over ``scored`` draws: group -> [slots,
        options]. If some of the draws are within the budget, only these count.

        Each call makes its draws with a new generator in the same state, so the same policy always
        has the same scores.
        """
        drawn = self._draw(self.scored, self.streams.restarted().tensor("policy/scores"))
        allowed = [architecture for architecture in drawn if self.budget.allows(architecture)]
        tables = {}
        for group in self.space.groups:
            index = {option: position for position, option in enumerate(group.options)}
            rows = torch.tensor(
                [
                    [index[option] for option in architecture[group.name]]
                    for architecture in allowed or drawn
                ]
            )
            tables[group.name] = (
                F.one_hot(rows, len(group.options)).float().mean(dim=0).to(self.device)
            )
        return tables

    def state_dict(self) -> dict[str, Any]:
        return self.controller.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.controller.load_state_dict(state)
