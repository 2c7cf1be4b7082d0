"""The largest eigenvalue of the Hessian of the validation loss in the logits: how sharp the place
is that a search has come to.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from supernet.learners.learner import statistics_kept
from supernet.mixture import Logits, Mixture


def dominant_eigenvalue(
    supernet: nn.Module,
    logits: Logits,
    mixture: Callable[[Logits], Mixture],
    loss: Callable[[Tensor, Tensor], Tensor],
    batches: Sequence[tuple[Tensor, Tensor]],
    start: torch.Generator,
    tolerance: float = 1e-2,
) -> float:
    """The largest eigenvalue of the Hessian in the logits of the mean ``loss`` over ``batches``
    (Zela et al., ICLR 2020).

    By Lanczos's iteration from a random vector of ``start``, on products of the Hessian with a
    vector: the gradient is kept as a graph, each product is one backward pass through it. BatchNorm
    takes the statistics of the batch, as in a step of the search, and leaves no trace. The largest,
    not the largest in size, as in the authors' code: a shift of all logits of a slot changes
    nothing, so that a Hessian in the logits has zeros, and a negative one has the largest
    eigenvalue 0.

    Departure: the authors take the whole Hessian of one random batch; here the batches are always
    the same.
    """
    tables = {name: table.detach().requires_grad_() for name, table in logits.items()}
    inputs = list(tables.values())
    images = sum(len(labels) for _, labels in batches)
    mode = supernet.training
    supernet.train()
    try:
        with statistics_kept(supernet):
            losses = (
                loss(supernet(x, mixture(tables)), labels) * (len(labels) / images)
                for x, labels in batches
            )
            total = sum(losses, torch.zeros(()))
    finally:
        supernet.train(mode)
    gradient = flat(torch.autograd.grad(total, inputs, create_graph=True, materialize_grads=True))
    if not gradient.requires_grad:  # the loss is linear in the logits
        return 0.0

    def product(vector: Tensor) -> Tensor:
        found = torch.autograd.grad(
            gradient, inputs, vector.to(gradient), retain_graph=True, materialize_grads=True
        )
        return flat(found).detach().cpu().double()

    first = torch.randn(len(gradient), generator=start, dtype=torch.float64)
    return largest_eigenvalue(product, first, tolerance)


def largest_eigenvalue(
    product: Callable[[Tensor], Tensor], start: Tensor, tolerance: float
) -> float:
    """The largest eigenvalue of the symmetric matrix whose ``product`` with a vector is known, by
    Lanczos's iteration.

    It ends when the residual is below ``tolerance`` times the matrix's size; the error is about the
    square of that. The vectors are made orthogonal to all before them, twice, so that rounding
    finds no eigenvalue a second time; SciPy's solver would do as much, but draws from a generator
    of its own where a start breaks down, and refuses a matrix of zeros.
    """
    basis = (start / start.norm())[None]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    while True:
        image = product(basis[-1])
        diagonal.append(image @ basis[-1])
        for _ in range(2):
            image = image - basis.T @ (basis @ image)
        rest = image.norm()
        small = torch.diag(torch.stack(diagonal))
        if beside:
            small = small + torch.diag(torch.stack(beside), 1) + torch.diag(torch.stack(beside), -1)
        values, vectors = torch.linalg.eigh(small)
        size = max(float(values.abs().max()), float(rest), torch.finfo(torch.float64).tiny)
        if (
            float(rest * vectors[-1, -1].abs()) <= tolerance * size
            or len(basis) == len(start)
            or float(rest) <= 1e-12 * size
        ):
            return float(values[-1])
        beside.append(rest)
        basis = torch.cat([basis, (image / rest)[None]])


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
