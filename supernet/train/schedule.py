"""The settings of SGD and its learning rate schedule, for the training of all weights."""

from dataclasses import dataclass

from torch import optim
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from supernet.errors import UserError, require


@dataclass
class SGDSettings:
    """SGD with momentum. The learning rate rises linearly during the warm-up, and then falls from
    ``lr`` to ``lr_min`` on half a cosine.
    """

    epochs: int
    batch_size: int
    lr: float = 0.025
    lr_min: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 3e-4
    warmup_epochs: float = 0.0
    clip: float = 5.0  # largest norm of the gradient of the weights; 0: no limit
    label_smoothing: float = 0.0

    def check(self, where: str) -> None:
        """Raises a UserError if a setting is out of range.

        The message names the setting as ``where.NAME``.
        """
        require(f"{where}.epochs", self.epochs, least=1)
        # BatchNorm cannot normalise a batch of a single image
        require(f"{where}.batch_size", self.batch_size, least=2)
        require(f"{where}.lr", self.lr, above=0)
        for name in ("lr_min", "weight_decay", "warmup_epochs", "clip"):
            require(f"{where}.{name}", getattr(self, name), least=0)
        for name in ("momentum", "label_smoothing"):
            require(f"{where}.{name}", getattr(self, name), least=0, below=1)
        if self.lr_min > self.lr:
            raise UserError(f"{where}.lr_min={self.lr_min}: must be at most {where}.lr={self.lr}")


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
