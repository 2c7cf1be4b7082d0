"""What a sampler is."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from supernet.cost.budget import Budget
from supernet.errors import UserError, unknown
from supernet.mixture import Choice, Logits, Mixture, softmax_mixture
from supernet.randomness import Streams

Loss = Callable[[Mixture], Tensor]


class Sampler:
    """Says which mixtures the shared weights train on. A subclass is a dataclass whose fields are
    its settings.

    :meth:`mixtures` is for the weights: the loss of a step is the mean over the mixtures that it
    returns. :meth:`relaxation` is for the logits: the mixture through which a gradient learner
    differentiates; DARTS's softmax unless a sampler has its own.

    A step of the search asks :meth:`advance`, then whatever its learner needs of
    :meth:`relaxation`, :meth:`probabilities` and :meth:`penalty`, then :meth:`settle`, then
    :meth:`mixtures`.
    """

    distils = False  # whether the first mixture's outputs are the labels of the others
    scores_from = "logits"  # or "policy": what a learner must move for the scores to mean anything

    def begin(self, budget: Budget, streams: Streams, device: torch.device) -> None:
        """Called once before the first step; draws are to come from ``streams`` and paths to keep
        the ``budget``.
        """
        self.budget, self.space, self.streams, self.device = budget, budget.space, streams, device

    def tables(self) -> dict[str, tuple[int, int]]:
        """Architecture parameters that are needed beside those of the space's groups: name ->
        shape; a row is one distribution.
        """
        return {}

    def advance(self, logits: Logits, progress: float) -> None:
        """Called first in every step: the place to take decisions that last, as what to prune."""

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        """The mixtures of the next step; ``progress`` in [0, 1) is the share of the search that is
        done.

        ``logits`` ask for no gradient. ``loss`` judges a mixture on the step's images, without
        training: ask it only if the choice depends on it, for every call costs a forward pass. It
        is differentiable in weights of the mixture that ask for it.
        """
        raise NotImplementedError

    def relaxation(self, logits: Logits, progress: float, noise: torch.Generator) -> Mixture:
        """A mixture that is differentiable in ``logits``; the same again if ``noise`` is in the
        same state again.

        A learner may ask several times in one step, to differentiate twice: it gets the same draw
        each time.
        """
        return softmax_mixture(logits)

    def probabilities(self, logits: Logits) -> Logits:
        """How probable each option is, differentiable: what expected costs are computed by."""
        return {name: torch.softmax(table, dim=-1) for name, table in logits.items()}

    def mean(self, logits: Logits, progress: float) -> Mixture:
        """The mixture without chance, differentiable: every option by how probable it is. By it a
        search is measured.
        """
        return {name: Choice.dense(table) for name, table in self.probabilities(logits).items()}

    def penalty(self, logits: Logits, progress: float) -> Tensor:
        """What a gradient learner adds to the validation loss."""
        return torch.zeros(())

    def settle(self, logits: Logits, before: Logits) -> None:
        """Called when the learner has moved ``logits``, which were ``before``: the place to correct
        them.
        """

    def scores(self, logits: Logits) -> Logits:
        """What the derivation maximises: group -> [slots, options]."""
        return self.probabilities({name: table.detach() for name, table in logits.items()})

    def state_dict(self) -> dict[str, Any]:
        """State beyond the streams and the logits, for the checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict` gave."""


def require_metric(metric: str, budget: Budget) -> None:
    """Raises a UserError unless ``metric``, the setting ``sampler.metric``, is one that the budget
    has a table of.
    """
    budget.require_table("params", f"sampler.metric={metric}", "choose sampler=uniform")
    if metric not in budget.tables:
        raise UserError(f"sampler.metric: {unknown(metric, list(budget.tables))}")
