"""Learning rates over time."""

from torch import optim
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR


def cosine(optimizer: optim.Optimizer, steps: int, lr_min: float, warmup_steps: int = 0) -> LRScheduler:
    """Half a cosine from the optimiser's rate to ``lr_min`` over ``steps``, the first ``warmup_steps`` of which rise linearly.

    To be stepped once after each update of the weights (Loshchilov & Hutter, ICLR 2017, eq. 5, one period).
    """
    decay = CosineAnnealingLR(optimizer, max(1, steps - warmup_steps), lr_min)
    if not warmup_steps:
        return decay
    warmup = LinearLR(optimizer, start_factor=1 / (warmup_steps + 1), total_iters=warmup_steps)
    return SequentialLR(optimizer, [warmup, decay], [warmup_steps])
