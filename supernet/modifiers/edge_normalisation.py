"""The edges into a node get a distribution of their own."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from supernet.errors import UserError
from supernet.mixture import Choice, Logits, Mixture
from supernet.modifiers.modifier import Modifier, weights_of
from supernet.randomness import Streams
from supernet.spaces.space import Space


@dataclass
class EdgeNormalisation(Modifier):
    """Edge normalisation of PC-DARTS (Xu et al., ICLR 2020, section 3.3, eq. 3).

    Each node has one logit beta for each of its in-edges. The share of an edge is the softmax of
    beta over the edges into the node; the weights of all options of the edge are multiplied by this
    share. The derivation maximises the products alpha * beta, so that in the DARTS space the shares
    have an influence on which two edges a node keeps. A node with one in-edge has no logits: the
    share of this edge is one.

    The betas are architecture parameters like the others: the learner moves them with the same
    settings.
    """

    def begin(self, space: Space, streams: Streams) -> None:
        super().begin(space, streams)
        if not any(len(slots) > 1 for group in space.groups for slots in space.sums(group.name)):
            raise UserError(
                f"modifier=edge_normalisation: no node of the space {space.name} has several "
                "in-edges; leave this modifier out"
            )

    def nodes(self, group: str) -> Iterator[tuple[str, list[int]]]:
        """For each node with several in-edges: the name of its logits, and the slots of its
        in-edges.
        """
        for node, slots in enumerate(self.space.sums(group)):
            if len(slots) > 1:
                yield f"{group}/edges/{node}", slots

    def tables(self) -> dict[str, tuple[int, int]]:
        return {
            name: (1, len(slots))
            for group in self.space.groups
            for name, slots in self.nodes(group.name)
        }

    def shares(self, group: str, slots: int, logits: Logits) -> torch.Tensor:
        """The share of each slot's edge in its node [slots, 1]."""
        shares: list[torch.Tensor | None] = [None] * slots
        for name, members in self.nodes(group):
            for slot, share in zip(
                members, torch.softmax(logits[name][0], dim=-1).unbind(), strict=True
            ):
                shares[slot] = share
        one = torch.ones((), device=next(iter(logits.values())).device)
        return torch.stack([one if share is None else share for share in shares])[:, None]

    def applied(
        self, mixture: Mixture, logits: Logits, progress: float, noise: torch.Generator
    ) -> Mixture:
        changed = dict(mixture)
        for group in self.space.groups:
            choice, share = mixture[group.name], self.shares(group.name, group.slots, logits)
            weights = weights_of(choice, group, share) if choice.weights is None else choice.weights
            changed[group.name] = Choice(choice.active, weights * share.to(weights))
        return changed

    def scored(self, scores: Logits, logits: Logits) -> Logits:
        given = {name: table.detach() for name, table in logits.items()}
        return {
            name: table * self.shares(name, len(table), given).to(table)
            for name, table in scores.items()
        }
