"""The learning rate equals the closed forms of the papers."""

import math

import pytest
import torch

from supernet.train.schedule import cosine


@pytest.mark.parametrize(("steps", "warmup"), [(10, 0), (10, 4), (7, 1), (1, 0), (5, 5), (3, 6)])
@pytest.mark.parametrize("lr_min", [0.0, 0.01])
def test_linear_warm_up_then_half_a_cosine(steps, warmup, lr_min):
    """The cosine of Loshchilov & Hutter 2017, eq. 5, takes the steps after the warm-up. Without
    ``lr_min`` only the rate after the last step is zero.
    """
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    schedule = cosine(optimizer, steps, lr_min, warmup)
    for step in range(steps):
        if step < warmup:
            expected = 0.5 * (step + 1) / (warmup + 1)
        else:
            expected = (
                lr_min
                + (0.5 - lr_min) * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
            )
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12)
        optimizer.step()
        schedule.step()
