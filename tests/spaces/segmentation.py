"""A user's own task: the digits, with a class for each pixel (ink or paper), and the intersection
over union of the ink of each image as the metric.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from supernet import Choose, Depth, elastic
from supernet.data.sources import Digits
from supernet.task import Segmentation


@dataclass(frozen=True)
class Ink(Digits):
    """The digits. A pixel is ink if it is darker than the mean of its neighbours and itself."""

    def load(self):
        data = super().load()

        def labelled(images):
            pixels = images.pixels.float()
            targets = (pixels > F.avg_pool2d(pixels, 5, 1, 2)).long()[:, 0]
            return replace(images, targets=targets)

        return replace(data, train=labelled(data.train), test=labelled(data.test))


@dataclass
class Overlap(Segmentation):
    """The loss weighs ink; the metric is the intersection over union of the ink of each image."""

    classes: int = 2
    ink: float = 2.0

    metric_name: ClassVar[str] = "iou"

    def loss(self, outputs, targets, label_smoothing=0.0, reduction="mean"):
        weight = torch.tensor([1.0, self.ink], device=outputs.device)
        return F.cross_entropy(
            outputs, targets, weight, label_smoothing=label_smoothing, reduction=reduction
        )

    def right(self, outputs, targets):
        found = outputs.argmax(dim=1)
        both = (found * targets).sum(dim=(1, 2))
        either = ((found + targets) > 0).sum(dim=(1, 2))
        return both / either.clamp(min=1)


class Net(nn.Module):
    def __init__(self, classes: int, channels: int):
        super().__init__()
        width = Choose("width", (4, 8))
        self.stem = elastic.Conv2d(channels, width, 3, padding="same")
        self.norm = elastic.BatchNorm2d(width)
        blocks = [
            elastic.Conv2d(width, width, Choose(f"k{i}", (3, 5)), padding="same") for i in "01"
        ]
        self.body = Depth("depth", blocks)
        self.head = elastic.Conv2d(width, classes, 1)

    def forward(self, x):
        return self.head(torch.relu(self.body(torch.relu(self.norm(self.stem(x))))))
