"""The learning rate schedule for the training of all weights."""

from torch import optim
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR


def cosine(
    optimizer: optim.Optimizer, steps: int, lr_min: float, warmup_steps: int = 0
) -> LRScheduler:
    """A learning rate schedule of ``steps`` steps: a linear rise during the first ``warmup_steps``,
    then half a cosine from the optimiser's learning rate down to ``lr_min``.

    Call its ``step`` once after each update of the weights. The cosine is that of Loshchilov &
    Hutter (ICLR 2017, eq. 5), with one period and without restarts.
    """
    decay = CosineAnnealingLR(optimizer, max(1, steps - warmup_steps), lr_min)
    if not warmup_steps:
        return decay
    warmup = LinearLR(optimizer, start_factor=1 / (warmup_steps + 1), total_iters=warmup_steps)
    return SequentialLR(optimizer, [warmup, decay], [warmup_steps])
