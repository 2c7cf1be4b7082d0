"""A plain reference: the supernets of DARTS and NAS-Bench-201 as their papers describe them.
Nothing is shared, folded or skipped.

Each candidate operation is one module, with its own ReLU, pooling and BatchNorm. There is a loop
over edges and over operations. The layout is NCHW, and everything runs eagerly. The tests compare
the real supernets with this reference, and ``tools/bench.py`` measures against it.
"""

import torch
from torch import Tensor, nn

from supernet.mixture import Mixture
from supernet.spaces.darts import Darts
from supernet.spaces.nb201 import NB201
from supernet.spaces.space import Space


def norm(channels: int, affine: bool = False) -> nn.Module:
    return nn.BatchNorm2d(channels, affine=affine)


def relu_conv_norm(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, affine: bool = False
) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        norm(outputs, affine),
    )


def separable(c: int, kernel: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(c, c, kernel, stride, kernel // 2, groups=c, bias=False),
        nn.Conv2d(c, c, 1, bias=False),
        norm(c),
        nn.ReLU(),
        nn.Conv2d(c, c, kernel, 1, kernel // 2, groups=c, bias=False),
        nn.Conv2d(c, c, 1, bias=False),
        norm(c),
    )


def dilated(c: int, kernel: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(c, c, kernel, stride, kernel - 1, dilation=2, groups=c, bias=False),
        nn.Conv2d(c, c, 1, bias=False),
        norm(c),
    )


class Halved(nn.Module):
    """ReLU; two 1×1 convolutions of stride 2, of which the second starts one pixel later, with
    concatenated outputs; BatchNorm.

    The convolutions have stride 1 and get every second pixel. With stride 2 their gradients corrupt
    the heap on some processors (``tools/heap_check.py``).
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.odd = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        halves = [self.even(x[:, :, ::2, ::2]), self.odd(x[:, :, 1::2, 1::2])]
        return self.norm(torch.cat(halves, dim=1))


class Zero(nn.Module):
    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride] * 0.0


def average(stride: int) -> nn.Module:
    return nn.AvgPool2d(3, stride, 1, count_include_pad=False)


OPERATIONS = {
    "none": lambda c, stride: Zero(stride),
    "max_pool_3x3": lambda c, stride: nn.Sequential(nn.MaxPool2d(3, stride, 1), norm(c)),
    "avg_pool_3x3": lambda c, stride: nn.Sequential(average(stride), norm(c)),
    "skip_connect": lambda c, stride: nn.Identity() if stride == 1 else Halved(c, c),
    "sep_conv_3x3": lambda c, stride: separable(c, 3, stride),
    "sep_conv_5x5": lambda c, stride: separable(c, 5, stride),
    "dil_conv_3x3": lambda c, stride: dilated(c, 3, stride),
    "dil_conv_5x5": lambda c, stride: dilated(c, 5, stride),
    "nor_conv_1x1": lambda c, stride: relu_conv_norm(c, c, 1, stride),
    "nor_conv_3x3": lambda c, stride: relu_conv_norm(c, c, 3, stride),
}
# in NAS-Bench-201 the pooling has no BatchNorm
NB201_OPERATIONS = OPERATIONS | {"avg_pool_3x3": lambda c, stride: average(stride)}


class MixedOp(nn.Module):
    """All options of an edge, each multiplied by its weight (DARTS, eq. 2)."""

    def __init__(self, options, channels: int, stride: int, table):
        super().__init__()
        self.operations = nn.ModuleList(table[option](channels, stride) for option in options)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(
            weight * operation(x)
            for weight, operation in zip(weights, self.operations, strict=True)
        )


class DartsCell(nn.Module):
    def __init__(
        self, options, before: int, last: int, channels: int, reduction: bool, last_reduced: bool
    ):
        super().__init__()
        self.preprocess0 = (
            Halved(before, channels) if last_reduced else relu_conv_norm(before, channels)
        )
        self.preprocess1 = relu_conv_norm(last, channels)
        self.edges = nn.ModuleList(
            MixedOp(options, channels, 2 if reduction and source < 2 else 1, OPERATIONS)
            for node in range(4)
            for source in range(2 + node)
        )

    def forward(self, before: Tensor, last: Tensor, weights: Tensor) -> Tensor:
        states, offset = [self.preprocess0(before), self.preprocess1(last)], 0
        for _ in range(4):
            states.append(
                sum(
                    self.edges[offset + j](state, weights[offset + j])
                    for j, state in enumerate(states)
                )
            )
            offset += len(states) - 1
        return torch.cat(states[2:], dim=1)


class TextbookDarts(nn.Module):
    """The search network of DARTS (Liu et al., ICLR 2019): 1.93 million weights at 16 channels and
    8 cells.
    """

    def __init__(
        self, options, channels: int = 16, cells: int = 8, classes: int = 10, in_channels: int = 3
    ):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, 3 * channels, 3, padding=1, bias=False), norm(3 * channels, True)
        )
        before = last = 3 * channels
        reductions = {cells // 3, 2 * cells // 3} if cells > 2 else set(range(1, cells))
        self.cells, self.reductions, reduced = nn.ModuleList(), reductions, False
        for index in range(cells):
            channels = 2 * channels if index in reductions else channels
            self.cells.append(
                DartsCell(options, before, last, channels, index in reductions, reduced)
            )
            before, last, reduced = last, 4 * channels, index in reductions
        self.classifier = nn.Linear(last, classes)

    def forward(self, x: Tensor, normal: Tensor, reduce: Tensor) -> Tensor:
        before = last = self.stem(x)
        for index, cell in enumerate(self.cells):
            before, last = last, cell(before, last, reduce if index in self.reductions else normal)
        return self.classifier(last.mean(dim=(2, 3)))


class NB201Cell(nn.Module):
    def __init__(self, options, channels: int):
        super().__init__()
        self.edges = nn.ModuleList(
            MixedOp(options, channels, 1, NB201_OPERATIONS) for _ in range(6)
        )

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        states, offset = [x], 0
        for _ in range(3):
            states.append(
                sum(
                    self.edges[offset + j](state, weights[offset + j])
                    for j, state in enumerate(states)
                )
            )
            offset += len(states) - 1
        return states[-1]


class Residual(nn.Module):
    """The residual block of stride 2 between the stages of NAS-Bench-201."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = relu_conv_norm(inputs, outputs, 3, 2, affine=True)
        self.second = relu_conv_norm(outputs, outputs, 3, 1, affine=True)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.second(self.first(x))


class TextbookNB201(nn.Module):
    """The search network of NAS-Bench-201 (Dong & Yang, ICLR 2020)."""

    def __init__(
        self, options, channels: int = 16, cells: int = 5, classes: int = 10, in_channels: int = 3
    ):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), norm(channels, True)
        )
        self.blocks = nn.ModuleList(NB201Cell(options, channels) for _ in range(cells))
        for width in (2 * channels, 4 * channels):
            self.blocks.append(Residual(width // 2, width))
            self.blocks.extend(NB201Cell(options, width) for _ in range(cells))
        self.norm = norm(4 * channels, True)
        self.classifier = nn.Linear(4 * channels, classes)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, edges) if isinstance(block, NB201Cell) else block(x)
        return self.classifier(torch.relu(self.norm(x)).mean(dim=(2, 3)))


def textbook(space: Space, classes: int = 10, in_channels: int = 3) -> nn.Module:
    """The reference of the search network of a space, with new weights."""
    kind = {Darts: TextbookDarts, NB201: TextbookNB201}[type(space)]
    return kind(
        space.groups[0].options, space.search.channels, space.search.cells, classes, in_channels
    )


def run(reference: nn.Module, images: Tensor, mixture: Mixture) -> Tensor:
    """Runs the reference on a mixture. A path becomes a table of zeros and ones."""
    tables = {}
    for name, choice in mixture.items():
        options = len(reference_options(reference))
        active = torch.zeros(len(choice.active), options, dtype=images.dtype, device=images.device)
        for slot, chosen in enumerate(choice.active):
            active[slot, list(chosen)] = 1
        tables[name] = active if choice.weights is None else active * choice.weights
    return reference(images, **tables)


def reference_options(reference: nn.Module) -> nn.ModuleList:
    return next(module for module in reference.modules() if isinstance(module, MixedOp)).operations


def places(supernet: nn.Module, reference: nn.Module) -> list[tuple[str, str]]:
    """The names of each tensor: in the state of the supernet and in the state of the reference.

    Both networks define their tensors in the order of the papers: stem, cells, edges, options,
    layers. The tensors of both states therefore come in the same order, the batch counters of
    BatchNorm included.
    """
    ours, theirs = supernet.state_dict(), reference.state_dict()
    pairs = list(zip(ours, theirs, strict=True))
    for mine, other in pairs:
        if (
            ours[mine].shape != theirs[other].shape
            or mine.rpartition(".")[2] != other.rpartition(".")[2]
        ):
            raise ValueError(
                f"{mine} {tuple(ours[mine].shape)} is not {other} {tuple(theirs[other].shape)}"
            )
    return pairs


def copy_weights(supernet: nn.Module, reference: nn.Module, back: bool = False) -> None:
    """Copies weights and statistics from the supernet to the reference, or from the reference to
    the supernet (``back``).
    """
    ours, theirs = supernet.state_dict(), reference.state_dict()
    if back:
        supernet.load_state_dict(
            {mine: theirs[other] for mine, other in places(supernet, reference)}
        )
    else:
        reference.load_state_dict(
            {other: ours[mine] for mine, other in places(supernet, reference)}
        )
