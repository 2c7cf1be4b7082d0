"""Derivatives of sums that are linear in each of several tensors, themselves differentiable.

A depthwise convolution is the derivative of ``S = sum(gradient * convolution(x, weight))`` with
respect to the gradient; the gradients of ``x`` and of the weight are the derivatives with respect
to these. S is linear in each of the three, and so the gradients of these derivatives are again
derivatives of S, at other tensors. The same is true of sums of products of rows and matrices. So
one function differentiates all of them, and it is the kernels that compute, whatever is asked for.
"""

from typing import Any, Protocol

import torch
from torch import Tensor


class Form(Protocol):
    """A sum S of several tensors that is linear in each."""

    def derivative(self, which: int, *tensors: Tensor) -> Tensor:
        """The derivative of S with respect to tensor ``which``, of which only the shape counts; not
        differentiable.
        """


class Derivative(torch.autograd.Function):
    """``form.derivative(which, *tensors)``, differentiable."""

    @staticmethod
    def forward(ctx: Any, form: Form, which: int, *tensors: Tensor) -> Tensor:
        ctx.form, ctx.which = form, which
        ctx.save_for_backward(*tensors)
        return form.derivative(which, *tensors)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        tensors = list(ctx.saved_tensors)
        tensors[ctx.which] = slopes[0]
        return (
            None,
            None,
            *(
                Derivative.apply(ctx.form, which, *tensors) if want and which != ctx.which else None
                for which, want in enumerate(ctx.needs_input_grad[2:])
            ),
        )
