"""The elastic ResNet-50D of once-for-all (Cai et al., ICLR 2020; it is in their repository alone):
the depth and the width of four stages, and the expansion of each block.
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from torch import Tensor, nn

from supernet.bounds import Bounds, Length, Places, Ratio
from supernet.errors import UserError
from supernet.spaces.declared import Choose, Depth, elastic
from supernet.spaces.declared.choices import Size
from supernet.spaces.declared.space import Declared
from supernet.spaces.space import images_of
from supernet.spaces.widths import rounded
from supernet.task import Task


class ConvNorm(nn.Sequential):
    """A convolution that keeps the size of the image (divided by the stride), BatchNorm, and ReLU
    if ``rectified``.
    """

    def __init__(
        self,
        inputs: int | Size,
        outputs: int | Size,
        kernel: int = 1,
        stride: int = 1,
        rectified: bool = True,
    ):
        super().__init__(
            elastic.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            elastic.BatchNorm2d(outputs),
        )
        if rectified:
            self.append(nn.ReLU())


class Residual(nn.Module):
    """The input plus what ``body`` makes of it."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Bottleneck(nn.Module):
    """1×1 convolution to ``expansion`` times the channels of the outputs, 3×3 convolution, 1×1
    convolution. The shortcut of the first block of a stage is an average pooling and a 1×1
    convolution (He et al., CVPR 2019, figure 2c: ResNet-D), that of the others is the input.
    """

    def __init__(
        self, inputs: int | Size, outputs: int | Size, expansion: Size, stride: int, first: bool
    ):
        super().__init__()
        middle = rounded(outputs, expansion)
        self.body = nn.Sequential(
            ConvNorm(inputs, middle),
            ConvNorm(middle, middle, 3, stride),
            ConvNorm(middle, outputs, rectified=False),
        )
        self.shortcut: nn.Module = nn.Identity()
        if first:
            self.shortcut = ConvNorm(inputs, outputs, rectified=False)
            if stride > 1:
                self.shortcut.insert(0, nn.AvgPool2d(stride, stride, ceil_mode=True))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.shortcut(x) + self.body(x))


class Network(nn.Module):
    """A stem of two or three 3×3 convolutions, a pooling, four stages, and a classifier."""

    def __init__(self, space: "ResNet", classes: int, channels: int):
        super().__init__()
        ratios = [
            Choose(f"width{place}", space.multipliers) for place in range(len(space.widths) + 2)
        ]
        half = rounded(rounded(space.stem, ratios[0]) // 2)
        inputs = rounded(space.stem, ratios[1])
        self.stem = nn.Sequential(
            ConvNorm(channels, half, 3, space.strides[0]),
            Depth("stem", [Residual(ConvNorm(half, half, 3))], least=0),
            ConvNorm(half, inputs, 3),
        )
        self.pool = nn.MaxPool2d(3, 2, 1) if space.pool else nn.Identity()
        stages, number = [], 0
        for stage, (width, base, stride) in enumerate(
            zip(space.widths, space.blocks, space.strides[1:], strict=True)
        ):
            outputs = rounded(width, ratios[stage + 2])
            blocks = []
            for place in range(base + max(space.depths)):
                expansion = Choose(f"expansion{number}", space.expansions)
                blocks.append(
                    Bottleneck(
                        outputs if place else inputs,
                        outputs,
                        expansion,
                        1 if place else stride,
                        place == 0,
                    )
                )
                number += 1
            stages.append(
                Depth(Choose(f"depth{stage}", [base + more for more in space.depths]), blocks)
            )
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), elastic.Linear(inputs, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.pool(self.stem(x))))


@dataclass
class ResNet(Declared):
    """The elastic ResNet-50D of once-for-all.

    Stage i has ``blocks[i]`` blocks and one of ``depths`` more. Each block has one of
    ``expansions``. The widths of the two parts of the stem and of each stage are multiplied by one
    of ``multipliers``, and rounded to a multiple of 8. The second convolution of the stem can be
    left out. ``strides`` are those of the stem and of each stage; ``pool`` says whether there is a
    pooling of stride 2 after the stem.

    Departure: the repository also draws the resolution of the images.
    """

    depths: list[Annotated[int, Bounds(least=0, most=2**10)]] = field(
        default_factory=lambda: [0, 1, 2]
    )
    expansions: list[Ratio] = field(default_factory=lambda: [0.2, 0.25, 0.35])
    multipliers: list[Ratio] = field(default_factory=lambda: [0.65, 0.8, 1.0])
    stem: Length = 64
    widths: list[Length] = field(default_factory=lambda: [256, 512, 1024, 2048])
    blocks: list[Places] = field(default_factory=lambda: [2, 2, 4, 2])
    strides: list[Length] = field(default_factory=lambda: [2, 1, 2, 2, 2])
    pool: bool = True

    name = "resnet"
    paper: ClassVar = {
        "channels": ("space.widths", lambda space: max(space.widths), 2048),
        "blocks": ("space.blocks", lambda space: sum(space.blocks), 10),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.widths) == len(self.blocks) == len(self.strides) - 1:
            raise UserError(
                f"space.widths={self.widths}, space.blocks={self.blocks}, space.strides="
                f"{self.strides}: there must be as many stages in each; strides have a stem as well"
            )

    def build(self, task: Task) -> nn.Module:
        return Network(self, *images_of(task))
