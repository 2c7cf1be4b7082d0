"""What a learner is."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn, optim

from supernet.errors import UserError
from supernet.mixture import Logits, Mixture
from supernet.samplers.sampler import Sampler

Batch = tuple[Tensor, Tensor]  # images [B, C, H, W] and labels [B]


@dataclass
class Bilevel:
    """The bilevel problem as a learner sees it in one step (Liu et al. 2019, eqs. 3 and 4)."""

    supernet: nn.Module
    logits: Logits
    relax: Callable[[Logits], Mixture]  # a mixture that is differentiable in the logits
    loss: Callable[[Tensor, Tensor], Tensor]  # of outputs and labels
    optimizer: optim.SGD  # of the weights: the inner problem
    weight_batch: Batch  # the inner problem's data
    architecture_batch: Batch  # the outer problem's data
    excess: Callable[[Logits], Tensor]  # by what share the expected costs pass the budget
    penalty: Callable[[Logits], Tensor] = lambda logits: torch.zeros(
        ()
    )  # what the sampler adds to the outer problem's loss


class Learner:
    """Moves architecture parameters, once a step, before the weights move. A subclass is a
    dataclass; its fields are settings.
    """

    moves = "logits"  # or "policy": that of the sampler; or "", nothing
    warmups: Sequence[
        Sequence[float]
    ] = ()  # shares of the search, [start, end), in which the weights learn alone
    followed: Logits | None = None  # the gradient that the last step of the logits followed

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn: only then is :meth:`step` called."""
        return bool(self.moves)

    def rests(self, progress: float) -> bool:
        """Whether the weights learn alone at this share of the search."""
        return any(start <= progress + 1e-9 < end for start, end in self.warmups)

    def begin(self, logits: Logits, sampler: Sampler) -> None:
        """Called once before the first step; a learner of a policy finds it in the ``sampler``."""

    def step(self, problem: Bilevel) -> dict[str, Tensor]:
        """Updates in place what the learner :attr:`moves` and leaves everything else as it was;
        returns figures for the log.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict` gave."""


def require_warmups(warmups: Sequence[Any]) -> None:
    """Raises a UserError unless ``warmups``, the setting of that name, are shares of the search."""
    for warmup in warmups:
        pair = isinstance(warmup, list | tuple) and [
            isinstance(n, int | float) for n in warmup
        ] == [True, True]
        if not (pair and 0 <= warmup[0] < warmup[1] <= 1):
            raise UserError(
                f"learner.warmups: {warmup}: must be a pair of rising shares of the search, as in "
                "[[0,0.3]]"
            )


class Parts(NamedTuple):
    """What a step asks a network for again and again: to walk through its thousands of modules
    takes a twentieth of a step.
    """

    parameters: list[nn.Parameter]
    norms: list[nn.BatchNorm2d]


_parts: WeakKeyDictionary[nn.Module, Parts] = WeakKeyDictionary()


def trained_parts(network: nn.Module) -> Parts:
    """Its parts, listed once: a network never changes which it has."""
    if network not in _parts:
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        _parts[network] = Parts(list(network.parameters()), norms)
    return _parts[network]


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Inside, the forward passes of training leave no trace of their images in the running
    statistics of the BatchNorms.
    """
    norms = trained_parts(network).norms
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextmanager
def fixed(network: nn.Module) -> Iterator[None]:
    """Inside, nothing is kept for gradients of the weights, which then cost neither time nor
    memory.
    """
    moving = [
        parameter for parameter in trained_parts(network).parameters if parameter.requires_grad
    ]
    for parameter in moving:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in moving:
            parameter.requires_grad_(True)
