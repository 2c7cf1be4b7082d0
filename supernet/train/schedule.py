"""Learning rates over time."""

from timm.scheduler import CosineLRScheduler
from torch import optim


def cosine(optimizer: optim.Optimizer, steps: int, lr_min: float, warmup_steps: int = 0) -> CosineLRScheduler:
    """Cosine from the optimiser's rate to ``lr_min`` over ``steps``, after a linear warm-up; a function of the step alone."""
    return CosineLRScheduler(
        optimizer,
        t_initial=max(1, steps - warmup_steps),
        lr_min=lr_min,
        warmup_t=warmup_steps,
        warmup_lr_init=lr_min,
        warmup_prefix=True,
        t_in_epochs=False,
    )
