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
    :meth:`mixtures`. A hook that is added here must be forwarded by
    :class:`~supernet.samplers.wrapper.Wrapper`.
    """

    @property
    def distils(self) -> bool:
        """Whether the outputs of the first mixture are the labels of the others."""
        return False

    @property
    def scores_from(self) -> str:
        """What a learner must move for the scores to mean anything: "logits", or "policy"."""
        return "logits"

    def begin(self, budget: Budget, streams: Streams, device: torch.device) -> None:
        """Called once before the first step. Draws must come from ``streams``, and paths must keep
        the ``budget``.
        """
        self.budget, self.space, self.streams, self.device = budget, budget.space, streams, device

    def tables(self) -> dict[str, tuple[int, int]]:
        """Architecture parameters that are needed beside those of the space's groups: name ->
        shape. Each row is one distribution.
        """
        return {}

    def advance(self, logits: Logits, progress: float) -> None:
        """Called first in every step: here decisions are taken that last, such as what to prune."""

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        """The mixtures of the next step; ``progress`` in [0, 1) is the share of the search that is
        over.

        ``logits`` do not require grad. ``loss`` judges a mixture on the images of the step, without
        training. Call it only if the choice depends on it: each call costs a forward pass. It is
        differentiable in those weights of the mixture that require grad.
        """
        raise NotImplementedError

    def relaxation(self, logits: Logits, progress: float, noise: torch.Generator) -> Mixture:
        """A mixture that is differentiable in ``logits``. It is the same again if ``noise`` is in
        the same state again.

        A learner that differentiates twice asks several times in one step, and gets the same draw
        each time.
        """
        return softmax_mixture(logits)

    def probabilities(self, logits: Logits) -> Logits:
        """How probable each option is, differentiable. Expected costs are computed from this."""
        return {name: torch.softmax(table, dim=-1) for name, table in logits.items()}

    def mean(self, logits: Logits, progress: float) -> Mixture:
        """The mixture without chance, differentiable: every option, weighted by how probable it
        is. A search is measured by this mixture.
        """
        return {name: Choice.dense(table) for name, table in self.probabilities(logits).items()}

    def penalty(self, logits: Logits, progress: float) -> Tensor:
        """What a gradient learner adds to the validation loss."""
        return torch.zeros(())

    def settle(self, logits: Logits, before: Logits) -> None:
        """Called when the learner has moved ``logits``, which were ``before``: here they can be
        corrected.
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
