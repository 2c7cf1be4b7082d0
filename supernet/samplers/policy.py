"""Architectures drawn from a policy: an LSTM that decides gene after gene."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.cost.budget import Budget
from supernet.errors import require
from supernet.mixture import Architecture, Logits, Mixture
from supernet.randomness import Streams
from supernet.samplers.sampler import Loss, Sampler
from supernet.spaces.space import Gene

TRIES = 100  # rounds of draws before a budget counts as too narrow for the policy to hit


class Controller(nn.Module):
    """The LSTM of ENAS (section 2 and appendix): each decision is the softmax of a linear map of
    its state, and its next input.

    A decision's logits x become ``tanh_constant * tanh(x / temperature)``, so that no option is
    ever out of reach. Decisions between the same values share their embedding and their linear map;
    where it stands, the LSTM knows from its state.
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

    # a product of probabilities does not survive eight bits
    @torch.autocast("cpu", enabled=False)  # type: ignore[untyped-decorator]
    def forward(
        self, count: int, choose: Callable[[int, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Takes all decisions of ``count`` architectures; ``choose`` gets a gene's index and
        log-probabilities [count, values].

        Returns the indices chosen [count, genes], the log-probability [count] of all of them
        together, and the sum of the entropies (nats) of the decisions on the way [count].
        """
        x, state = self.start.expand(count, -1), None
        choices, log_probability, entropy = [], torch.zeros(count), torch.zeros(count)
        for gene, kind in enumerate(self.kinds):
            state = self.cell(x, state)
            logits = self.tanh_constant * torch.tanh(self.heads[kind](state[0]) / self.temperature)
            each = F.log_softmax(logits, dim=-1)
            chosen = choose(gene, each)
            choices.append(chosen)
            log_probability = log_probability + each.gather(1, chosen[:, None])[:, 0]
            entropy = entropy - (each.exp() * each).sum(dim=1)
            x = self.embeddings[kind](chosen)
        return torch.stack(choices, dim=1), log_probability, entropy


@dataclass
class Policy(Sampler):
    """ENAS, efficient neural architecture search (Pham et al., ICML 2018), as the authors search
    CNN cells on CIFAR-10.

    The defaults are those of their code (melodyguan/enas, scripts/cifar10_micro_search.sh and
    src/cifar10/main.py): an LSTM of one layer of 64 units, logits bounded by 1.10 and not divided.
    ``paths`` architectures are drawn a step and their gradients averaged (the paper's M is 1,
    section 2.2). The controller lives on the host, as host decisions do.

    Departures: the controller decides over the genes of whatever space, so that all it can say is
    valid; theirs attends to earlier nodes where it chooses inputs, and where it chooses operations
    bounds the logits by 1.10/2.5 and prefers separable convolutions by a fixed bias. :meth:`scores`
    are the frequencies of the options in ``scored`` draws: a searcher that reads them knows nothing
    of how the policy's decisions depend on each other. Under a budget what is drawn is the policy
    given that the budget is kept.
    """

    paths: int = 1
    hidden: int = 64
    temperature: float = 1.0
    tanh_constant: float = 1.1
    scored: int = 1000

    scores_from = "policy"

    def __post_init__(self) -> None:
        for name in ("paths", "hidden", "scored"):
            require(f"sampler.{name}", getattr(self, name), least=1)
        for name in ("temperature", "tanh_constant"):
            require(f"sampler.{name}", getattr(self, name), above=0)

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
        """Architectures from the policy, those over the budget drawn again.

        Where a hundred rounds do not give enough, the best one by the policy's own :meth:`scores`
        fills up.
        """
        drawn: list[Architecture] = []
        for _ in range(TRIES):
            more = self._draw(count - len(drawn), noise)
            drawn += [architecture for architecture in more if self.budget.allows(architecture)]
            if len(drawn) == count:
                return drawn
        return drawn + [self.budget.best(self.scores({}))] * (count - len(drawn))

    def _draw(self, count: int, noise: torch.Generator) -> list[Architecture]:
        def choose(gene: int, each: Tensor) -> Tensor:
            return torch.multinomial(each.exp(), 1, generator=noise)[:, 0]

        with torch.no_grad():
            choices, _, _ = self.controller(count, choose)
        genes = self.space.genes
        return [
            self.space.express([g.values[i] for g, i in zip(genes, row, strict=True)])
            for row in choices.tolist()
        ]

    def likelihood(self, architectures: Sequence[Architecture]) -> tuple[Tensor, Tensor]:
        """The log-probability [count] of each architecture, and the sum of the entropies (nats) of
        the decisions on its way.

        The expectation of the latter is the entropy of the policy. Both are differentiable in the
        controller's parameters.
        """
        genes, expressed = (
            self.space.genes,
            [self.space.values(architecture) for architecture in architectures],
        )
        choices = torch.tensor(
            [[g.values.index(v) for g, v in zip(genes, row, strict=True)] for row in expressed]
        )
        _, log_probability, entropy = self.controller(
            len(architectures), lambda gene, each: choices[:, gene]
        )
        return log_probability, entropy

    def sample(self, count: int) -> tuple[list[Architecture], Tensor, Tensor]:
        """Architectures for a learner, with what :meth:`likelihood` says of them; they do not move
        the draws for the weights.
        """
        architectures = self.draw(count, self.streams.tensor("policy/samples"))
        return architectures, *self.likelihood(architectures)

    def scores(self, logits: Logits) -> Logits:
        """How often each option stands in each slot over ``scored`` draws, those within the budget
        if there are any.

        The draws have a generator of their own, new each time: the same policy has the same scores,
        whoever asks, whenever.
        """
        drawn = self._draw(self.scored, self.streams.restarted().tensor("policy/scores"))
        drawn = [
            architecture for architecture in drawn if self.budget.allows(architecture)
        ] or drawn
        tables = {}
        for group in self.space.groups:
            index = {option: position for position, option in enumerate(group.options)}
            rows = torch.tensor(
                [[index[option] for option in architecture[group.name]] for architecture in drawn]
            )
            tables[group.name] = (
                F.one_hot(rows, len(group.options)).float().mean(dim=0).to(self.device)
            )
        return tables

    def state_dict(self) -> dict[str, Any]:
        return self.controller.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.controller.load_state_dict(state)
