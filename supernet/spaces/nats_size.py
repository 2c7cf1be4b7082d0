"""The size space of NATS-Bench (Dong, Liu, Musial & Gabrys, TPAMI 2021, section 3.2): the best cell
of the topology space on CIFAR-100, with five widths to be chosen. With eight widths each there are
32,768 architectures.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from supernet.bounds import Length
from supernet.errors import UserError
from supernet.mixture import Architecture
from supernet.spaces.declared import Choose, OneOf, elastic
from supernet.spaces.declared.choices import Size
from supernet.spaces.declared.space import Declared
from supernet.spaces.space import images_of
from supernet.task import Task

WIDTHS = [8, 16, 24, 32, 40, 48, 56, 64]


class ReLUConvBN(nn.Module):
    """ReLU, 3×3 convolution, BatchNorm."""

    def __init__(self, inputs: int | Size, outputs: int | Size, stride: int = 1):
        super().__init__()
        self.conv = elastic.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm = elastic.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(torch.relu(x)))


class ConvBN(nn.Module):
    """1×1 convolution, BatchNorm: the skip connection between different widths."""

    def __init__(self, inputs: int | Size, outputs: int | Size):
        super().__init__()
        self.conv = elastic.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = elastic.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Cell(nn.Module):
    """The cell ``|conv~0|+|conv~0|conv~1|+|skip~0|conv~1|conv~2|``, with 3×3 convolutions."""

    def __init__(self, inputs: Size, outputs: Size):
        super().__init__()
        self.skip: nn.Module = nn.Identity()
        if inputs is not outputs:
            same, other = elastic.Identity(outputs), ConvBN(inputs, outputs)
            self.skip = OneOf(inputs.same(outputs), {"same": same, "other": other})
        self.from_0_to_1, self.from_0_to_2 = (ReLUConvBN(inputs, outputs) for _ in range(2))
        self.from_1_to_2, self.from_1_to_3 = (ReLUConvBN(outputs, outputs) for _ in range(2))
        self.from_2_to_3 = ReLUConvBN(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        one = self.from_0_to_1(x)
        two = self.from_0_to_2(x) + self.from_1_to_2(one)
        return self.skip(x) + self.from_1_to_3(one) + self.from_2_to_3(two)


class Reduction(nn.Module):
    """The residual block of stride 2. Its shortcut is a pooling and a 1×1 convolution."""

    def __init__(self, inputs: Size, outputs: Size):
        super().__init__()
        self.first = ReLUConvBN(inputs, outputs, stride=2)
        self.second = ReLUConvBN(outputs, outputs)
        self.pool = nn.AvgPool2d(2, 2)
        self.shortcut = elastic.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(self.pool(x)) + self.second(self.first(x))


class Network(nn.Module):
    """A stem and five parts, each of a width that is chosen: a cell, a residual block of stride 2,
    a cell, a residual block of stride 2, a cell.
    """

    def __init__(self, widths: list[int], classes: int, channels: int):
        super().__init__()
        chosen = [Choose(f"width{part}", widths) for part in range(5)]
        self.stem = nn.Sequential(
            elastic.Conv2d(channels, chosen[0], 3, padding=1, bias=False),
            elastic.BatchNorm2d(chosen[0]),
        )
        parts = [Cell, Reduction, Cell, Reduction, Cell]
        inputs = [chosen[0], *chosen[:-1]]
        self.parts = nn.Sequential(
            *(part(*pair) for part, *pair in zip(parts, inputs, chosen, strict=True))
        )
        self.head = nn.Sequential(
            elastic.BatchNorm2d(chosen[4]),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            elastic.Linear(chosen[4], classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.parts(self.stem(x)))


@dataclass
class NATSSize(Declared):
    """The size space of NATS-Bench. Each of five parts has one of ``widths`` channels."""

    widths: list[Length] = field(default_factory=lambda: list(WIDTHS))

    name = "nats_size"
    paper: ClassVar = {"widest": ("space.widths", lambda space: max(space.widths), 64)}

    def build(self, task: Task) -> nn.Module:
        return Network(self.widths, *images_of(task))

    def encode(self, architecture: Architecture) -> str:
        """The widths, as in ``8:16:24:32:40``."""
        return ":".join(architecture["width"])

    def decode(self, text: str) -> Architecture:
        if text.count(":") != 4:
            raise UserError(
                f"not an architecture of the space {self.name}: {text[:120]!r}; expected five "
                "widths, as in 8:16:24:32:40"
            )
        return self.validate(Architecture.of(self.name, width=text.strip().split(":")))
