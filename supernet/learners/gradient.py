"""The logits follow the gradient of the validation loss, to first or second order (DARTS, Liu et
al., ICLR 2019).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, optim
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from supernet.bounds import NotNegative, Positive, Probability
from supernet.errors import UserError
from supernet.learners.learner import (
    Batch,
    Bilevel,
    Learner,
    fixed,
    require_warmups,
    statistics_kept,
)
from supernet.mixture import Logits
from supernet.samplers.sampler import Sampler

Weights = dict[str, Tensor]
Loss = Callable[[Weights, Logits], Tensor]

ORDERS = ("first", "second", "second_finite_difference")


@dataclass
class Gradient(Learner):
    """Adam on the logits, with the settings of DARTS (section 3.1.1).

    The ``order`` "first" treats the weights as constants (xi = 0). The ``order`` "second"
    differentiates through one step of the weights' SGD, exactly, by a Hessian-vector product (eq.
    7). The ``order`` "second_finite_difference" approximates this product as the paper does (eq.
    8), with a step of ``difference`` divided by the norm of the vector.

    The loss of the logits is the validation loss plus the sampler's penalty. Under a budget,
    ``cost_weight`` times the share by which the expected cost exceeds the limits is added.
    ``warmups`` are pairs [start, end) of shares of the search, between which only the weights
    learn.
    """

    order: str = "first"
    lr: Positive = 3e-4
    beta1: Probability = 0.5
    beta2: Probability = 0.999
    weight_decay: NotNegative = 1e-3
    difference: Positive = 0.01
    cost_weight: NotNegative = 1.0
    warmups: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in ORDERS:
            raise UserError(f"learner.order={self.order!r}: choose one of {', '.join(ORDERS)}")
        require_warmups(self.warmups)

    def begin(self, logits: Logits, sampler: Sampler) -> None:
        self.optimizer = optim.Adam(
            logits.values(),
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            weight_decay=self.weight_decay,
        )

    def step(self, problem: Bilevel) -> dict[str, Tensor]:
        if self.order == "first":
            own_weights: Weights = {}  # empty: the supernet's own weights
            with fixed(problem.supernet):
                loss = outer_loss(problem, self.cost_weight)(own_weights, problem.logits)
            # without autocast, so that each gradient has the type of its operation
            with torch.autocast(loss.device.type, enabled=False):
                gradient = gradients(loss, problem.logits)
        else:
            loss, gradient = self._second_order(problem)
        self.followed = dict(zip(problem.logits, gradient, strict=True))
        for table, value in zip(problem.logits.values(), gradient, strict=True):
            table.grad = value
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"architecture_loss": loss.detach()}

    def _second_order(self, problem: Bilevel) -> tuple[Tensor, list[Tensor]]:
        """The validation loss after one step of the weights' SGD, and its gradient in the
        logits.
        """
        weights: Weights = dict(problem.supernet.named_parameters())
        (group,) = problem.optimizer.param_groups
        velocity = {
            name: problem.optimizer.state[weight].get("momentum_buffer", torch.zeros_like(weight))
            if weight in problem.optimizer.state
            else torch.zeros_like(weight)
            for name, weight in weights.items()
        }

        def inner_step(weights: Weights, gradient: Weights) -> Weights:
            return {
                name: w
                - group["lr"]
                * (group["momentum"] * velocity[name] + gradient[name] + group["weight_decay"] * w)
                for name, w in weights.items()
            }

        product = hessian_vector_product
        if self.order == "second_finite_difference":
            product = partial(finite_difference_product, scale=self.difference)
        return unrolled_gradient(
            functional_loss(problem, problem.weight_batch),
            outer_loss(problem, self.cost_weight),
            weights,
            problem.logits,
            inner_step,
            group["lr"],
            product,
        )

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)


def gradients(loss: Tensor, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """The gradient of ``loss`` in each of ``inputs``; zeros for an input that the loss does not
    depend on.
    """
    return list(torch.autograd.grad(loss, list(inputs.values()), materialize_grads=True))


def functional_loss(problem: Bilevel, batch: Batch) -> Loss:
    """The loss on one ``batch`` as a function of weights and logits.

    The supernet, including the running statistics of its BatchNorms, does not change. If the
    weights are empty ({}), the function uses the supernet's own weights.
    """
    images, labels = batch

    def loss(weights: Weights, logits: Logits) -> Tensor:
        with statistics_kept(problem.supernet):
            arguments = images, problem.relax(logits)
            outputs = (
                functional_call(problem.supernet, weights, arguments)
                if weights
                else problem.supernet(*arguments)
            )
            return problem.loss(outputs, labels)

    return loss


def outer_loss(problem: Bilevel, cost_weight: float) -> Loss:
    """The loss that the logits minimise: the validation loss, plus ``cost_weight`` times the excess
    of the expected cost over the budget, plus the sampler's penalty.
    """
    validation = functional_loss(problem, problem.architecture_batch)

    def loss(weights: Weights, logits: Logits) -> Tensor:
        loss = validation(weights, logits) + cost_weight * problem.excess(logits)
        # The last term is zero. Without it, torch would refuse to differentiate the loss of a path
        # of options that output zeros, because this loss depends on no logit.
        return loss + problem.penalty(logits) + 0.0 * sum(t.sum() for t in logits.values())

    return loss


def unrolled_gradient(
    training_loss: Loss,
    validation_loss: Loss,
    weights: Weights,
    logits: Logits,
    inner_step: Callable[[Weights, Weights], Weights],
    lr: float,
    product: Callable[[Loss, Weights, Logits, Weights], list[Tensor]],
) -> tuple[Tensor, list[Tensor]]:
    """The gradient in the logits a of ``L_val(w'(a), a)`` with
    ``w'(a) = inner_step(w, grad_w L_train(w, a))`` (eqs. 6 and 7).

    It is ``grad_a L_val(w', a) - lr * grad_a <grad_w L_train(w, a), v>`` with
    ``v = grad_w' L_val(w', a)``. The function ``product`` computes
    ``grad_a <grad_w L_train(w, a), v>``. Returns the validation loss at ``w'`` and one gradient per
    group.
    """
    weights = {name: w.detach().requires_grad_() for name, w in weights.items()}
    gradient = gradients(training_loss(weights, logits), weights)
    stepped = inner_step(weights, dict(zip(weights, gradient, strict=True)))
    stepped = {name: w.detach().requires_grad_() for name, w in stepped.items()}
    loss = validation_loss(stepped, logits)
    groups, names = list(logits.values()), list(stepped)
    both = torch.autograd.grad(loss, groups + list(stepped.values()), materialize_grads=True)
    direct, vector = both[: len(groups)], dict(zip(names, both[len(groups) :], strict=True))
    implicit = product(training_loss, weights, logits, vector)
    return loss, [d - lr * i for d, i in zip(direct, implicit, strict=True)]


def hessian_vector_product(
    loss: Loss, weights: Weights, logits: Logits, vector: Weights
) -> list[Tensor]:
    """``grad_a <grad_w loss(w, a), vector>``, exactly, by differentiating twice."""
    with sdpa_kernel(SDPBackend.MATH):  # fused kernels of attention are differentiated only once
        found = loss(weights, logits)
    gradient = torch.autograd.grad(
        found, list(weights.values()), create_graph=True, materialize_grads=True
    )
    product = torch.autograd.grad(
        gradient, list(logits.values()), grad_outputs=list(vector.values()), materialize_grads=True
    )
    return list(product)


def finite_difference_product(
    loss: Loss, weights: Weights, logits: Logits, vector: Weights, scale: float = 0.01
) -> list[Tensor]:
    """An approximation of :func:`hessian_vector_product`: a central difference of ``grad_a loss``
    along ``vector``, with the step ``scale / ||vector||`` (eq. 8).

    The paper's scale of 0.01 is a coarse step where the loss is curved. A smaller scale is more
    exact, until rounding errors dominate.
    """
    norm = torch.linalg.vector_norm(
        torch.stack([torch.linalg.vector_norm(v) for v in vector.values()])
    )
    step = scale / norm

    def at(sign: int) -> list[Tensor]:
        moved = {name: (w + sign * step * vector[name]).detach() for name, w in weights.items()}
        return gradients(loss(moved, logits), logits)

    return [(plus - minus) / (2 * step) for plus, minus in zip(at(+1), at(-1), strict=True)]
