"""A user's own module with every kind of choice, each of which is read with another one."""

import torch
from torch import nn

from supernet import Choose, Depth, OneOf, elastic


class Block(nn.Module):
    """An inverted residual: its kernel and its expansion are chosen."""

    def __init__(self, width, kernel, ratio):
        super().__init__()
        hidden = ratio * width
        self.grow = elastic.Conv2d(width, hidden, 1, bias=False)
        self.norm = elastic.BatchNorm2d(hidden)
        self.mix = elastic.Conv2d(hidden, hidden, kernel, padding="same", groups=hidden)
        self.shrink = elastic.Conv2d(hidden, width, 1)

    def forward(self, x):
        return x + self.shrink(self.mix(torch.relu(self.norm(self.grow(x)))))


class Net(nn.Module):
    """One width is read by all layers."""

    def __init__(self, classes: int, channels: int, widths=(4, 6)):
        super().__init__()
        width, bottleneck = Choose("width", widths), Choose("bottleneck", (2, 4))
        self.stem = elastic.Conv2d(channels, width, 3, padding="same")
        self.norm = elastic.BatchNorm2d(width)
        options = {
            "conv": elastic.Conv2d(width, width, 3, padding=1),
            "pool": nn.AvgPool2d(3, 1, 1),
        }
        self.first = OneOf("op0", options | {"skip": nn.Identity()})
        self.body = Depth(
            "depth",
            [
                Block(width, Choose(f"kernel{i}", (3, 5)), Choose(f"ratio{i}", (1, 2)))
                for i in range(2)
            ],
        )
        narrow = nn.Sequential(
            elastic.Conv2d(width, bottleneck, 1), nn.ReLU(), elastic.Conv2d(bottleneck, width, 1)
        )
        self.last = OneOf(
            "op1", {"conv": narrow, "pool": nn.MaxPool2d(3, 1, 1), "skip": nn.Identity()}
        )
        self.scale = Choose("scale", (0.5, 1.0))
        self.head_norm = elastic.BatchNorm2d(width)
        self.head = elastic.Linear(width, classes)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = self.last(self.body(self.first(x)))
        x = torch.relu(self.head_norm(x + self.scale() * x * x)).mean((2, 3))
        return self.head(x)
