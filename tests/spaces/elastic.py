"""A space without cells, as a user would write one. It has blocks of one convolution. The kernel
and the width of each block are chosen, and how many blocks run. Nothing in the package knows this
space.

The options of a decision share their weights (weight entanglement). A small kernel is the middle of
the largest one; a narrow layer is the first channels of the widest one. On a path the layers are
sliced, so that a path costs what its network costs. For a mixture, each convolution runs once, with
the weighted sum of the kernels of its options. Each channel is weighted by the share of the mixture
that has it. The head reads the weighted sum of the outputs of the blocks at each depth.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.errors import UserError
from supernet.mixture import Architecture, Choice, ChoiceGroup, Mixture
from supernet.spaces.capabilities import Costed, Slot
from supernet.spaces.space import Form
from supernet.task import Task


class Block(nn.Sequential):
    """Convolution, BatchNorm, ReLU. The image keeps its size."""

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class PlainNet(nn.Module):
    """A stem, a block for each of ``widths`` and ``kernels``, and a head."""

    def __init__(
        self, stem: int, widths: Sequence[int], kernels: Sequence[int], classes: int, channels: int
    ):
        super().__init__()
        self.settings = dict(
            stem=stem, widths=widths, kernels=kernels, classes=classes, channels=channels
        )
        self.stem = Block(channels, stem, 3)
        self.blocks = nn.Sequential()
        for width, kernel in zip(widths, kernels, strict=True):
            self.blocks.append(Block(stem, width, kernel))
            stem = width
        self.head = nn.Linear(stem, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))


class ElasticNet(nn.Module):
    """The supernet: every block in its largest size."""

    def __init__(self, space: "Elastic", task: Task):
        super().__init__()
        self.space, self.task = space, task
        widest, largest = max(space.widths), max(space.kernels)
        self.stem = Block(task.input_shape[0], space.stem, 3)
        inputs = [space.stem] + [widest] * (space.blocks - 1)
        self.blocks = nn.ModuleList(Block(n, widest, largest) for n in inputs)
        self.head = nn.Linear(widest, task.outputs)

    def forward(self, x: Tensor, mixture: Mixture) -> Tensor:
        depth = shares(mixture["depth"], 0)
        x, features = self.stem(x), {}
        for index, block in enumerate(self.blocks):
            if not any(option >= index for option in depth):
                break
            x = self.run(block, x, mixture, index)
            if index in depth:
                features[index] = x.mean(dim=(2, 3))
        total = x.new_zeros(len(x), max([1, *(f.shape[1] for f in features.values())]))
        for index, found in features.items():
            found = found if depth[index] is None else found * depth[index]
            total = total + F.pad(found, (0, total.shape[1] - found.shape[1]))
        return F.linear(total, self.head.weight[:, : total.shape[1]], self.head.bias)

    def run(self, block: Block, x: Tensor, mixture: Mixture, index: int) -> Tensor:
        """Runs one block, as wide as its widest active option."""
        convolution, norm, _ = block
        widths = {self.space.widths[o]: w for o, w in shares(mixture["width"], index).items()}
        width = max([1, *widths])
        weight = self.kernel(convolution.weight, mixture["kernel"], index)[:width, : x.shape[1]]
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        x = F.relu(normalised(norm, x))
        if all(share is None for share in widths.values()):
            return x
        have = torch.zeros(width).to(x)  # the share of the mixture that has each channel
        for other, share in widths.items():
            have = have + F.pad(share.expand(other), (0, width - other))
        return x * have[:, None, None]

    def kernel(self, weight: Tensor, choice: Choice, index: int) -> Tensor:
        """The weights of a convolution whose kernel is chosen."""
        total: Tensor | float = 0.0
        kernels = {self.space.kernels[o]: w for o, w in shares(choice, index).items()}
        largest = max([1, *kernels])
        for size, share in kernels.items():
            part = F.pad(middle(weight, size), [(largest - size) // 2] * 4)
            total = total + (part if share is None else part * share)
        return total if isinstance(total, Tensor) else 0.0 * middle(weight, 1)


def shares(choice: Choice, slot: int) -> dict[int, Tensor | None]:
    """The active options of a slot, and the weight of each (``None`` means one)."""
    weights = choice.weights
    return {o: None if weights is None else weights[slot, o] for o in choice.active[slot]}


def middle(weight: Tensor, size: int) -> Tensor:
    """The inner ``size`` × ``size`` weights of a kernel."""
    edge = (weight.shape[-1] - size) // 2
    return weight[..., edge : edge + size, edge : edge + size]


def normalised(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """BatchNorm of the first channels, with the same statistics that torch would keep."""
    width = x.shape[1]
    mean, var = norm.running_mean[:width], norm.running_var[:width]
    weight, bias = norm.weight[:width], norm.bias[:width]
    if not norm.training:
        return F.batch_norm(x, mean, var, weight, bias)
    keeps = norm.track_running_stats
    momentum = norm.momentum
    if keeps:
        norm.num_batches_tracked.add_(1)
        momentum = momentum or 1.0 / float(norm.num_batches_tracked)
    kept = (mean, var) if keeps else (None, None)
    return F.batch_norm(x, *kept, weight, bias, training=True, momentum=momentum or 0.0)


@dataclass
class Elastic(Costed):
    """A space of at most ``blocks`` blocks, behind a stem of ``stem`` channels."""

    blocks: int = 3
    stem: int = 4
    widths: list[int] = field(default_factory=lambda: [4, 8])
    kernels: list[int] = field(default_factory=lambda: [1, 3, 5])

    name = "elastic"

    def __post_init__(self) -> None:
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise UserError(f"space.kernels={self.kernels}: must be odd")
        self.groups = (
            ChoiceGroup("kernel", self.blocks, tuple(map(str, self.kernels))),
            ChoiceGroup("width", self.blocks, tuple(map(str, self.widths))),
            ChoiceGroup("depth", 1, tuple(str(n + 1) for n in range(self.blocks))),
        )

    def supernet(self, task: Task, form: Form = "search") -> nn.Module:
        return ElasticNet(self, task)

    def standalone(
        self, architecture: Architecture, task: Task, form: Form = "evaluation"
    ) -> nn.Module:
        self.validate(architecture)
        depth = int(architecture["depth"][0])
        widths, kernels = (
            [int(option) for option in architecture[group][:depth]] for group in ("width", "kernel")
        )
        return PlainNet(self.stem, widths, kernels, task.outputs, task.input_shape[0])

    def inherit(self, supernet: nn.Module, architecture: Architecture) -> nn.Module:
        """The weights of the first channels, and of the middle of the kernels."""
        network = self.standalone(architecture, supernet.task)
        own, theirs = network.state_dict(), supernet.state_dict()
        for name, value in own.items():
            part = theirs[name]
            if value.dim() == 4:
                part = middle(part, value.shape[-1])
            own[name] = part[tuple(slice(size) for size in value.shape)]
        network.load_state_dict(own)
        return network

    def canonical(self, architecture: Architecture) -> Architecture:
        """Blocks beyond the depth get the first options, because their options have no effect."""
        depth = int(architecture["depth"][0])
        rows = {name: list(options) for name, options in architecture.choices}
        for group in self.groups[:2]:
            rows[group.name][depth:] = [group.options[0]] * (self.blocks - depth)
        return Architecture.of(self.name, **rows)

    def terms(self) -> list[tuple[Slot, ...]]:
        """The cost of a block depends on its kernel, its width, the width of the block before, and
        whether it runs. The cost of the head depends on the width of the last block.
        """
        return [
            (("depth", 0), *((("width", i - 1),) if i else ()), ("width", i), ("kernel", i))
            for i in range(self.blocks)
        ]
