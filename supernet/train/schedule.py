"""How both stages move weights: the settings of SGD, and its learning rate over time."""

from dataclasses import dataclass

from torch import optim
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from supernet.errors import UserError, require


@dataclass
class SGDSettings:
    """SGD with momentum, its learning rate after a linear warm-up on half a cosine from ``lr`` to
    ``lr_min``.
    """

    epochs: int
    batch_size: int
    lr: float = 0.025
    lr_min: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 3e-4
    warmup_epochs: float = 0.0
    clip: float = 5.0  # largest norm of the weights' gradient; 0 is no limit
    label_smoothing: float = 0.0

    def check(self, where: str) -> None:
        """Raises a UserError that names the first setting that is out of range as
        ``where.setting``.
        """
        require(f"{where}.epochs", self.epochs, least=1)
        require(
            f"{where}.batch_size", self.batch_size, least=2
        )  # BatchNorm has nothing to normalise by in a single image
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
    """Half a cosine from the optimiser's rate to ``lr_min`` over ``steps``, the first
    ``warmup_steps`` of which rise linearly.

    To be stepped once after each update of the weights (Loshchilov & Hutter, ICLR 2017, eq. 5, one
    period).
    """
    decay = CosineAnnealingLR(optimizer, max(1, steps - warmup_steps), lr_min)
    if not warmup_steps:
        return decay
    warmup = LinearLR(optimizer, start_factor=1 / (warmup_steps + 1), total_iters=warmup_steps)
    return SequentialLR(optimizer, [warmup, decay], [warmup_steps])
