"""The largest eigenvalue of the Hessian of the validation loss in the logits: how sharp the loss is
at the point that a search has reached.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

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

    The method is Lanczos's iteration. It begins with a random vector that the generator ``start``
    draws, and needs only products of the Hessian with a vector. The gradient is kept as a graph,
    and each product is one backward pass through it. BatchNorm uses the statistics of the batch, as
    in a step of the search, and its running statistics do not change. As in the authors' code, the
    result is the largest eigenvalue, not the one with the largest absolute value. A shift of all
    logits of a slot changes nothing, so a Hessian in the logits has eigenvalues of 0; if all others
    are negative, the largest eigenvalue is 0.

    Departure: the authors take the whole Hessian of one random batch; here the batches are always
    the same.
    """
    tables = {name: table.detach().requires_grad_() for name, table in logits.items()}
    inputs = list(tables.values())
    images = sum(len(labels) for _, labels in batches)
    mode = supernet.training
    supernet.train()
    try:
        # The fused kernels of attention can be differentiated only once.
        with statistics_kept(supernet), sdpa_kernel(SDPBackend.MATH):
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
    """The largest eigenvalue of a symmetric matrix, by Lanczos's iteration. ``product`` multiplies
    the matrix by a vector.

    The iteration ends when the residual is below ``tolerance`` times the size of the matrix; the
    error of the eigenvalue is about the square of that. Each vector is made orthogonal to all
    vectors before it, twice, so that rounding errors do not give an eigenvalue a second time.
    SciPy's solver would do the same, but it draws from a generator of its own where a start vector
    breaks down, and it refuses a matrix of zeros.
    """
    basis = (start / start.norm())[None]
    diagonal: list[Tensor] = []
    off_diagonal: list[Tensor] = []
    while True:
        residual = product(basis[-1])
        diagonal.append(residual @ basis[-1])
        for _ in range(2):
            residual = residual - basis.T @ (basis @ residual)
        norm = residual.norm()
        tridiagonal = torch.diag(torch.stack(diagonal))
        if off_diagonal:
            beside = torch.stack(off_diagonal)
            tridiagonal = tridiagonal + torch.diag(beside, 1) + torch.diag(beside, -1)
        values, vectors = torch.linalg.eigh(tridiagonal)
        size = max(float(values.abs().max()), float(norm), torch.finfo(torch.float64).tiny)
        if (
            float(norm * vectors[-1, -1].abs()) <= tolerance * size
            or len(basis) == len(start)
            or float(norm) <= 1e-12 * size
        ):
            return float(values[-1])
        off_diagonal.append(norm)
        basis = torch.cat([basis, (residual / norm)[None]])


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """All elements of the ``tensors`` as one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors])
