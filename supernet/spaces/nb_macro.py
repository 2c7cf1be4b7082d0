"""NAS-Bench-Macro (Su et al., CVPR 2021, section 4): a network of eight blocks of MobileNetV2. Each
block is chosen from three, so that there are 6,561 architectures.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from supernet.bounds import Length
from supernet.errors import UserError
from supernet.mixture import Architecture
from supernet.spaces.declared import OneOf
from supernet.spaces.declared.space import Declared
from supernet.spaces.space import images_of
from supernet.task import Task

BLOCKS = ("identity", "mb3_k3", "mb6_k5")  # the digits 0, 1, 2 of the benchmark's notation


class ConvBN(nn.Sequential):
    """A convolution that keeps the size of the image (divided by the stride), BatchNorm, and
    ReLU6.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        rectified: bool = True,
    ):
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        )
        if rectified:
            self.append(nn.ReLU6())


class InvertedResidual(nn.Module):
    """The block of MobileNetV2: 1×1 convolution to ``expansion`` times as many channels, depthwise
    convolution, 1×1 convolution. The input is added if the shapes are equal.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int, expansion: int):
        super().__init__()
        hidden = expansion * inputs
        self.body = nn.Sequential(
            ConvBN(inputs, hidden),
            ConvBN(hidden, hidden, kernel, stride, groups=hidden),
            ConvBN(hidden, outputs, rectified=False),
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


def options(inputs: int, outputs: int, stride: int) -> dict[str, nn.Module]:
    """The three blocks. Where the shapes differ, the identity is a 1×1 convolution."""
    same = stride == 1 and inputs == outputs
    plain = nn.Identity() if same else ConvBN(inputs, outputs, stride=stride, rectified=False)
    small, large = (
        InvertedResidual(inputs, outputs, stride, kernel, expansion)
        for kernel, expansion in ((3, 3), (5, 6))
    )
    return dict(zip(BLOCKS, (plain, small, large), strict=True))


class Network(nn.Sequential):
    """A 3×3 stem, stages of ``blocks`` blocks, and a head. The first block of each stage has a
    stride of 2 and doubles the channels.
    """

    def __init__(self, stem: int, blocks: list[int], width: int, classes: int, channels: int):
        parts: list[nn.Module] = []
        wide = stem
        for number in blocks:
            for place in range(number):
                outputs, stride = (wide, 1) if place else (2 * wide, 2)
                parts.append(OneOf(f"block{len(parts)}", options(wide, outputs, stride)))
                wide = outputs
        super().__init__(
            ConvBN(channels, stem, 3),
            *parts,
            ConvBN(wide, width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, classes),
        )


@dataclass
class NBMacro(Declared):
    """The space of NAS-Bench-Macro. The stem has ``stem`` channels, the head ``head``; ``blocks``
    are the numbers of blocks in each stage.
    """

    stem: Length = 32
    head: Length = 1280
    blocks: list[Length] = field(default_factory=lambda: [2, 3, 3])

    name = "nb_macro"
    paper: ClassVar = {
        "channels": ("space.stem", lambda space: space.stem, 32),
        "blocks": ("space.blocks", lambda space: sum(space.blocks), 8),
    }

    def build(self, task: Task) -> nn.Module:
        return Network(self.stem, self.blocks, self.head, *images_of(task))

    def encode(self, architecture: Architecture) -> str:
        """One digit for each block, as in ``02012100``: 0 identity, 1 MB3 K3, 2 MB6 K5."""
        return "".join(str(BLOCKS.index(option)) for option in architecture[self.groups[0].name])

    def decode(self, text: str) -> Architecture:
        digits = text.strip()
        if len(digits) != sum(self.blocks) or set(digits) - set("012"):
            raise UserError(
                f"not an architecture of the space {self.name}: {text[:120]!r}; expected a digit "
                f"0, 1 or 2 for each of {sum(self.blocks)} blocks"
            )
        chosen = {self.groups[0].name: [BLOCKS[int(digit)] for digit in digits]}
        return self.validate(Architecture.of(self.name, **chosen))
