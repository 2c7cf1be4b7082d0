"""The space of once-for-all (Cai et al., ICLR 2020) on MobileNetV3 (Howard et al., ICCV 2019): five
units of two to four blocks, each block with a kernel and an expansion of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from supernet.bounds import Length, Ratio
from supernet.errors import UserError
from supernet.spaces.declared import Choose, Depth, elastic
from supernet.spaces.declared.choices import Size
from supernet.spaces.declared.space import Declared
from supernet.spaces.space import images_of
from supernet.spaces.widths import rounded
from supernet.task import Task

# of the stem, the first block, the five units, and the two layers of the head
WIDTHS = [16, 16, 24, 40, 80, 112, 160, 960, 1280]
STRIDES = [2, 1, 2, 2, 2, 1, 2]  # of the stem, the first block, and the first block of each unit
LATE = 2  # the first unit with hard-swish; the ones before have ReLU
EXCITED = (1, 3, 4)  # the units whose blocks have squeeze and excitation


class ConvNorm(nn.Sequential):
    """A convolution that keeps the size of the image (divided by the stride), BatchNorm, and an
    activation.
    """

    def __init__(
        self,
        inputs: int | Size,
        outputs: int | Size,
        activation: type[nn.Module] | None,
        kernel: int | Size = 1,
        stride: int = 1,
        groups: int | Size = 1,
        transform: bool = False,
    ):
        super().__init__(
            elastic.Conv2d(
                inputs,
                outputs,
                kernel,
                stride,
                padding="same",
                groups=groups,
                bias=False,
                transform=transform,
            ),
            elastic.BatchNorm2d(outputs),
        )
        if activation is not None:
            self.append(activation())


class Excitation(nn.Module):
    """Squeeze and excitation (Hu et al., CVPR 2018): each channel is multiplied by a number from 0
    to 1, which depends on the means of all channels.
    """

    def __init__(self, width: int | Size):
        super().__init__()
        inner = rounded(width // 4)
        self.squeeze = elastic.Conv2d(width, inner, 1)
        self.excite = elastic.Conv2d(inner, width, 1)
        self.relu, self.gate = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        found = self.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
        return x * self.gate(self.excite(found))


class Block(nn.Module):
    """The block of MobileNetV3: 1×1 convolution to ``expansion`` times as many channels, depthwise
    convolution, squeeze and excitation if ``excited``, 1×1 convolution. ``adds`` says whether the
    input is added. With an expansion of 1 there is no first convolution.
    """

    def __init__(
        self,
        inputs: int | Size,
        outputs: int | Size,
        activation: type[nn.Module],
        kernel: int | Size = 3,
        expansion: int | Size = 1,
        stride: int = 1,
        adds: bool = True,
        excited: bool = False,
        transform: bool = False,
    ):
        super().__init__()
        hidden, parts = inputs, nn.Sequential()
        if expansion != 1:
            hidden = rounded(inputs, expansion)
            parts.append(ConvNorm(inputs, hidden, activation))
        parts.append(ConvNorm(hidden, hidden, activation, kernel, stride, hidden, transform))
        if excited:
            parts.append(Excitation(hidden))
        parts.append(ConvNorm(hidden, outputs, None))
        self.body, self.adds = parts, adds

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class Network(nn.Module):
    """A stem, a block, five units of blocks, and a head."""

    def __init__(self, space: "MobileNet", classes: int, channels: int):
        super().__init__()
        multipliers = space.multipliers
        ratio = Choose("width", multipliers) if len(multipliers) > 1 else multipliers[0]
        stem, first, *units, late, last = [rounded(width, ratio) for width in space.widths]
        strides = space.strides
        # Pairs, not numbers: images of several sizes cannot be mixed.
        sizes = [(pixels, pixels) for pixels in space.resolutions]
        self.resolution = Choose("resolution", sizes) if sizes else None
        self.stem = nn.Sequential(
            ConvNorm(channels, stem, nn.Hardswish, 3, strides[0]),
            Block(
                stem,
                first,
                nn.ReLU,
                stride=strides[1],
                adds=strides[1] == 1 and space.widths[0] == space.widths[1],
            ),
        )
        self.units = nn.Sequential(
            *(
                self.unit(space, number, [first, *units][number : number + 2])
                for number in range(len(units))
            )
        )
        self.late = ConvNorm(units[-1], late, nn.Hardswish)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            elastic.Conv2d(late, last, 1, bias=False),
            nn.Hardswish(),
            nn.Flatten(),
            elastic.Linear(last, classes),
        )

    def unit(self, space: "MobileNet", number: int, widths: Sequence[int | Size]) -> Depth:
        """A unit: its first block has the stride, and changes the width."""
        inputs, outputs = widths
        most = max(space.depths)
        stride, same = space.strides[number + 2], space.widths[number + 1 : number + 3]
        blocks = []
        for place in range(most):
            decision = number * most + place
            blocks.append(
                Block(
                    outputs if place else inputs,
                    outputs,
                    nn.Hardswish if number >= LATE else nn.ReLU,
                    Choose(f"kernel{decision}", space.kernels),
                    Choose(f"expansion{decision}", space.expansions),
                    1 if place else stride,
                    bool(place) or (stride == 1 and same[0] == same[1]),
                    number in EXCITED,
                    space.transform,
                )
            )
        return Depth(Choose(f"depth{number}", space.depths), blocks)

    def forward(self, x: Tensor) -> Tensor:
        if self.resolution is not None:
            x = F.interpolate(x, self.resolution(), mode="bilinear", antialias=True)
        return self.head(self.late(self.units(self.stem(x))))


@dataclass
class MobileNet(Declared):
    """The space of once-for-all. Each unit has one of ``depths`` blocks, and each block one of
    ``kernels`` and one of ``expansions``. With several ``multipliers``, that of all widths is a
    decision as well; the paper trains one supernet for each. With ``resolutions``, the numbers of
    pixels of a side, that of the images is a decision as well (section 3.1): the network resizes
    what it is given. Methods that mix options cannot mix resolutions. With ``transform`` a matrix
    between kernels is learnt (section 3.2); a path then multiplies kernels by matrices as well,
    which takes the same time for one image as for many.

    Departures: the paper draws one resolution for each batch while the images are loaded, always
    together with the other decisions, and drops a tenth of the inputs of the classifier.
    """

    kernels: list[Length] = field(default_factory=lambda: [3, 5, 7])
    expansions: list[Length] = field(default_factory=lambda: [3, 4, 6])
    depths: list[Length] = field(default_factory=lambda: [2, 3, 4])
    multipliers: list[Ratio] = field(default_factory=lambda: [1.0])
    resolutions: list[Length] = field(default_factory=list)
    widths: list[Length] = field(default_factory=lambda: list(WIDTHS))
    strides: list[Length] = field(default_factory=lambda: list(STRIDES))
    transform: bool = True

    name = "mobilenet"
    paper: ClassVar = {
        "channels": ("space.widths", lambda space: max(space.widths[2:-2]), 160),
        "blocks": ("space.depths", lambda space: max(space.depths), 4),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.widths) < 5 or len(self.strides) != len(self.widths) - 2:
            raise UserError(
                f"space.widths={self.widths}, space.strides={self.strides}: there must be a width "
                "for the stem, the first block, each unit and two layers of the head, and a stride "
                "for all of these but the head"
            )

    def build(self, task: Task) -> nn.Module:
        return Network(self, *images_of(task))
