"""Gradients compared with finite differences."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def slope_and_difference(
    loss: Callable[[Mapping[str, Tensor]], Tensor],
    tables: Mapping[str, Tensor],
    noise: torch.Generator,
    step: float,
) -> tuple[float, float]:
    """The slope of a loss along a random direction, by the gradients of ``tables``, and by a
    central difference.
    """
    direction = {
        name: torch.randn(table.shape, generator=noise, dtype=table.dtype)
        for name, table in tables.items()
    }
    here = {name: table.clone().requires_grad_() for name, table in tables.items()}
    gradients = torch.autograd.grad(loss(here), list(here.values()))
    slope = sum(
        float((gradient * direction[name]).sum())
        for name, gradient in zip(here, gradients, strict=True)
    )

    def moved(by: float) -> float:
        return float(loss({name: table + by * direction[name] for name, table in tables.items()}))

    with torch.no_grad():
        return slope, (moved(step) - moved(-step)) / (2 * step)
