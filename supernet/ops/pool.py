"""The pooling operations. They have no weights of their own, but for the BatchNorm that some spaces
put behind a pooling.
"""

from torch import Tensor, nn
from torch.nn import functional as F


def pooled(x: Tensor, kind: str, stride: int) -> Tensor:
    """Images [B, C, H, W] after a 3×3 pooling: ``kind`` is "max" or "avg".

    Images are padded by one pixel. An average does not count the padding.
    """
    if kind == "max":
        return F.max_pool2d(x, 3, stride, padding=1)
    return F.avg_pool2d(x, 3, stride, padding=1, count_include_pad=False)


class Pool(nn.Module):
    """3×3 pooling, ``kind`` "max" or "avg" (padding is not counted). With ``norm``, a BatchNorm
    follows.
    """

    def __init__(
        self, channels: int, kind: str, stride: int = 1, affine: bool = True, norm: bool = False
    ):
        super().__init__()
        self.kind, self.stride = kind, stride
        self.norm = nn.BatchNorm2d(channels, affine=affine) if norm else nn.Identity()

    def pooled(self, x: Tensor) -> Tensor:
        return pooled(x, self.kind, self.stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.pooled(x))
