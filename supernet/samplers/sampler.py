"""The interface of a sampler."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from supernet.bounds import Bounded
from supernet.cost.budget import Budget
from supernet.errors import UserError, unknown
from supernet.mixture import Choice, Logits, Mixture, softmax_mixture
from supernet.randomness import Streams

Loss = Callable[[Mixture], Tensor]


class Sampler(Bounded):
    """Chooses the mixtures on which the shared weights train. A subclass is a dataclass; its fields
    are its settings.

    :meth:`mixtures` serves the step of the weights, whose loss is the mean over the mixtures that
    it returns. :meth:`relaxation` serves the step of the logits: a gradient learner differentiates
    through this mixture. By default it is the softmax of DARTS.

    In each step, the search first calls :meth:`advance`. The learner then calls those of
    :meth:`relaxation`, :meth:`probabilities` and :meth:`penalty` that it needs. The search then
    calls :meth:`settle` and :meth:`mixtures`. Whoever adds a hook here must make
    :class:`~supernet.samplers.wrapper.Wrapper` forward it.
    """

    where = "sampler"

    @property
    def distils(self) -> bool:
        """Whether the outputs of the first mixture replace the labels for the other mixtures of a
        step.
        """
        return False

    @property
    def scores_from(self) -> str:
        """What a learner must move for the scores to have a meaning: "logits" or "policy"."""
        return "logits"

    def begin(self, budget: Budget, streams: Streams, device: torch.device) -> None:
        """Called once before the first step. Random numbers must come from ``streams``, and paths
        must be within the ``budget``.
        """
        self.budget, self.space, self.streams, self.device = budget, budget.space, streams, device

    def tables(self) -> dict[str, tuple[int, int]]:
        """The architecture parameters that the sampler needs besides those of the space's groups:
        name -> shape. Each row is one distribution.
        """
        return {}

    def advance(self, logits: Logits, progress: float) -> None:
        """Called first in every step. Lasting decisions, such as which options to prune, are made
        here.
        """

    def mixtures(self, logits: Logits, progress: float, loss: Loss) -> list[Mixture]:
        """The mixtures of the next step. ``progress`` in [0, 1) is the share of the search that is
        over.

        ``logits`` do not require grad. ``loss`` gives the loss of a mixture on the step's images,
        and trains nothing. Call it only if the choice of mixtures depends on it: each call costs a
        forward pass. It is differentiable in those weights of the mixture that require grad.
        """
        raise NotImplementedError

    def relaxation(self, logits: Logits, progress: float, noise: torch.Generator) -> Mixture:
        """A mixture that is differentiable in ``logits``. The same state of ``noise`` gives the
        same mixture.

        A learner of second order calls this several times in one step, and each call must give the
        same draw.
        """
        return softmax_mixture(logits)

    def probabilities(self, logits: Logits) -> Logits:
        """The probability of each option, differentiable in ``logits``: group -> [slots, options].
        The expected cost is computed from these.
        """
        return {name: torch.softmax(table, dim=-1) for name, table in logits.items()}

    def mean(self, logits: Logits, progress: float) -> Mixture:
        """The mixture without random draws, differentiable in ``logits``: every option, weighted by
        its probability. This mixture stands for the search where the search is measured.
        """
        return {name: Choice.dense(table) for name, table in self.probabilities(logits).items()}

    def penalty(self, logits: Logits, progress: float) -> Tensor:
        """The term that a gradient learner adds to the validation loss."""
        return torch.zeros(())

    def settle(self, logits: Logits, before: Logits) -> None:
        """Called after the learner has moved ``logits``; ``before`` holds their earlier values. A
        sampler can correct ``logits`` in place.
        """

    def scores(self, logits: Logits) -> Logits:
        """The scores that the derivation maximises: group -> [slots, options]."""
        return self.probabilities({name: table.detach() for name, table in logits.items()})

    def state_dict(self) -> dict[str, Any]:
        """The state for the checkpoint, besides the streams and the logits."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned."""


def require_metric(metric: str, budget: Budget) -> None:
    """Raises a UserError unless the budget has a table of costs for ``metric``, the setting
    ``sampler.metric``.
    """
    budget.require_table("params", f"sampler.metric={metric}", "choose sampler=uniform")
    if metric not in budget.tables:
        raise UserError(f"sampler.metric: {unknown(metric, list(budget.tables))}")
