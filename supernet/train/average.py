"""The moving average of a network's weights."""

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from timm.utils.model_ema import ModelEmaV3


def average_of(network: nn.Module, decay: float) -> "ModelEmaV3":
    """timm's exponential moving average of the weights of ``network``.

    timm takes seconds to import, so it is imported only when an average is needed.
    """
    from timm.utils.model_ema import ModelEmaV3

    return ModelEmaV3(network, decay=decay, use_warmup=True, foreach=False)
