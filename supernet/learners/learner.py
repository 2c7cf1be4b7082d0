"""The interface of a learner."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn, optim
from torch.nn.modules.batchnorm import _BatchNorm

from supernet.bounds import Bounded
from supernet.errors import UserError, is_number
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
    excess: Callable[[Logits], Tensor]  # the share by which the expected costs exceed the budget
    # the term that the sampler adds to the outer problem's loss
    penalty: Callable[[Logits], Tensor] = lambda logits: torch.zeros(())


class Learner(Bounded):
    """Moves the architecture parameters, once per step, before the weights move. A subclass is a
    dataclass; its fields are its settings.
    """

    where = "learner"
    moves = "logits"  # or "policy", the policy of the sampler; or "", nothing
    # pairs [start, end) of shares of the search, between which only the weights learn
    warmups: Sequence[Sequence[float]] = ()
    followed: Logits | None = None  # the gradient that the logits followed in their last step
    # whether the logits follow the gradient of the step of the weights, by :meth:`follow`
    joint = False

    @property
    def learns(self) -> bool:
        """Whether the learner moves anything in a step of its own. Otherwise :meth:`step` is never
        called.
        """
        return bool(self.moves) and not self.joint

    def rests(self, progress: float) -> bool:
        """Whether only the weights learn at ``progress``, the share of the search that is over."""
        return any(start <= progress + 1e-9 < end for start, end in self.warmups)

    def begin(self, logits: Logits, sampler: Sampler) -> None:
        """Called once before the first step. A learner of a policy gets the policy from the
        ``sampler``.
        """

    def step(self, problem: Bilevel) -> dict[str, Tensor]:
        """Updates in place what the learner :attr:`moves`, and changes nothing else. Returns
        figures for the log.
        """
        raise NotImplementedError

    def follow(self, logits: Logits) -> dict[str, Tensor]:
        """Updates the logits by their gradients of the loss of the weights, if the learner is
        :attr:`joint`, and clears the gradients. Returns figures for the log.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The state for the checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned."""


def require_warmups(warmups: Sequence[Any]) -> None:
    """Raises a UserError unless ``warmups``, the setting ``learner.warmups``, are pairs of rising
    shares of the search.
    """
    for warmup in warmups:
        is_pair = (
            isinstance(warmup, list | tuple) and len(warmup) == 2 and all(map(is_number, warmup))
        )
        if not (is_pair and 0 <= warmup[0] < warmup[1] <= 1):
            raise UserError(
                f"learner.warmups: {warmup}: must be a pair of rising shares of the search, as in "
                "[[0,0.3]]"
            )


class Parts(NamedTuple):
    """The parts of a network that every step needs. They are listed once, because a walk through
    the thousands of modules of a network takes a twentieth of a step.
    """

    parameters: list[nn.Parameter]
    norms: list[_BatchNorm]
    clipped: list[list[nn.Parameter]]  # the norm of the gradient of each list is clipped by itself


_parts: WeakKeyDictionary[nn.Module, Parts] = WeakKeyDictionary()


def trained_parts(network: nn.Module) -> Parts:
    """The parts of ``network``, listed on the first call; a network never gets or loses
    such parts.
    """
    if network not in _parts:
        norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        parameters = list(network.parameters())
        apart = getattr(network, "apart", list[nn.Parameter]())
        own = {id(parameter) for parameter in apart}
        together = [parameter for parameter in parameters if id(parameter) not in own]
        _parts[network] = Parts(parameters, norms, [part for part in (together, apart) if part])
    return _parts[network]


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """A context in which forward passes in training mode do not change the running statistics of
    the BatchNorms.
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
    """A context in which the weights of ``network`` do not require grad, so that their gradients
    cost neither time nor memory.
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
