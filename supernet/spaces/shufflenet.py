"""The space of single path one-shot (Guo et al., ECCV 2020, section 4): twenty blocks of
ShuffleNetV2 (Ma et al., ECCV 2018), each chosen from four.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from supernet.bounds import Bounds, Length, Places
from supernet.errors import UserError
from supernet.mixture import Architecture
from supernet.spaces.declared import OneOf
from supernet.spaces.declared.space import Declared
from supernet.spaces.space import images_of
from supernet.task import Task

BLOCKS = ("k3", "k5", "k7", "xception")  # the digits 0, 1, 2, 3 of the published architecture
Width = Annotated[int, Bounds(least=2, most=2**14)]


class Pointwise(nn.Sequential):
    """1×1 convolution, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(
            nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )


class Depthwise(nn.Sequential):
    """A convolution of each channel alone, and BatchNorm."""

    def __init__(self, width: int, kernel: int, stride: int = 1):
        super().__init__(
            nn.Conv2d(width, width, kernel, stride, kernel // 2, groups=width, bias=False),
            nn.BatchNorm2d(width),
        )


class ShuffleBlock(nn.Module):
    """A block of two branches, whose channels are concatenated.

    With a stride of 1, the channels with even numbers go through unchanged and the others go
    through ``main``; this shuffles the channels of the block before. With a stride of 2, all
    channels go through both ``main`` and a depthwise and a 1×1 convolution.
    """

    def __init__(self, inputs: int, outputs: int, option: str, stride: int):
        super().__init__()
        read, middle = inputs // (1 if stride > 1 else 2), outputs // 2
        kernel = 3 if option == "xception" else int(option[1:])
        if option == "xception":
            self.main = nn.Sequential(
                *(Depthwise(read, kernel, stride), Pointwise(read, middle)),
                *(Depthwise(middle, kernel), Pointwise(middle, middle)),
                *(Depthwise(middle, kernel), Pointwise(middle, outputs - read)),
            )
        else:
            self.main = nn.Sequential(
                Pointwise(read, middle),
                Depthwise(middle, kernel, stride),
                Pointwise(middle, outputs - read),
            )
        self.other = (
            nn.Sequential(Depthwise(read, kernel, stride), Pointwise(read, read))
            if stride > 1
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.other is None:
            return torch.cat((x[:, ::2], self.main(x[:, 1::2])), 1)
        return torch.cat((self.other(x), self.main(x)), 1)


class Network(nn.Sequential):
    """A 3×3 stem, stages of blocks, and a head. The first block of each stage has the stride of the
    stage, and changes the number of channels.
    """

    def __init__(self, space: "ShuffleNet", classes: int, channels: int):
        stem, *widths, last = space.widths
        first, *strides = space.strides
        parts: list[nn.Module] = []
        wide = stem
        for number, outputs, stride in zip(space.blocks, widths, strides, strict=True):
            for place in range(number):
                options = {
                    option: ShuffleBlock(wide, outputs, option, 1 if place else stride)
                    for option in BLOCKS
                }
                parts.append(OneOf(f"block{len(parts)}", options))
                wide = outputs
        super().__init__(
            nn.Sequential(
                nn.Conv2d(channels, stem, 3, first, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU()
            ),
            *parts,
            Pointwise(wide, last),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(last, classes, bias=False),
        )


@dataclass
class ShuffleNet(Declared):
    """The space of single path one-shot. ``blocks`` are the numbers of blocks in each stage;
    ``widths`` the channels of the stem, of each stage, and of the last convolution; ``strides``
    those of the stem and of each stage.

    Departures: BatchNorm has weights in the supernet as well, and no input of the classifier is
    dropped. The numbers of channels in the middle of a block, which the paper searches in a second
    step, are half of its outputs.
    """

    blocks: list[Places] = field(default_factory=lambda: [4, 4, 8, 4])
    widths: list[Width] = field(default_factory=lambda: [16, 64, 160, 320, 640, 1024])
    strides: list[Length] = field(default_factory=lambda: [2, 2, 2, 2, 2])

    name = "shufflenet"
    paper: ClassVar = {
        "channels": ("space.widths", lambda space: max(space.widths[:-1]), 640),
        "blocks": ("space.blocks", lambda space: sum(space.blocks), 20),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.blocks) == len(self.widths) - 2 == len(self.strides) - 1:
            raise UserError(
                f"space.blocks={self.blocks}, space.widths={self.widths}, space.strides="
                f"{self.strides}: there must be as many stages in each; widths have a stem and a "
                "head as well, strides have a stem"
            )
        for before, width in pairwise(self.widths[:-1]):
            if before % 2 or width % 2 or width <= before:
                raise UserError(
                    f"space.widths={self.widths}: must be even, and grow from stage to stage"
                )

    def build(self, task: Task) -> nn.Module:
        return Network(self, *images_of(task))

    def encode(self, architecture: Architecture) -> str:
        """One digit for each block: 0, 1 and 2 for kernels of 3, 5 and 7, and 3 for Xception."""
        return " ".join(str(BLOCKS.index(option)) for option in architecture["block"])

    def decode(self, text: str) -> Architecture:
        digits = text.split()
        if len(digits) != sum(self.blocks) or set(digits) - set("0123"):
            raise UserError(
                f"not an architecture of the space {self.name}: {text[:120]!r}; expected a digit "
                f"from 0 to 3 for each of {sum(self.blocks)} blocks, with spaces between them"
            )
        return self.validate(
            Architecture.of(self.name, block=[BLOCKS[int(digit)] for digit in digits])
        )
