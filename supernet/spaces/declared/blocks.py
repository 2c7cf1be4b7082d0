"""Choices between modules, and of how many modules run."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from supernet.errors import UserError
from supernet.spaces.declared.choices import Choose, Size, active, by_value, possible


class OneOf(nn.Module):
    """One of several modules: ``options`` is name -> module.

    On a path only the chosen module runs. In a mixture the outputs of the active modules are
    multiplied by their weights and added, so that they must have the same shape. ``choice`` is the
    name of the decision, or a :class:`~supernet.spaces.declared.choices.Choose` between the names
    of the options, which several modules can read. It can also be computed from other decisions:
    ``width.same(other)`` is between "same" and "other".

    Raises:
        UserError: the options are not the values of the choice.
    """

    def __init__(self, choice: str | Size, options: Mapping[str, nn.Module]):
        super().__init__()
        self.choice = choice if isinstance(choice, Size) else Choose(choice, tuple(options))
        values = {value for (value,) in possible(self.choice)}
        if values != set(options):
            raise UserError(
                f"OneOf({choice}): has the options {sorted(options)}, but its choice is between "
                f"{sorted(map(str, values))}; give the same names"
            )
        self.options = nn.ModuleDict(options)

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        total: Any = None
        for name, weight in by_value(self.choice).items():
            out = self.options[name](*inputs, **keywords)
            out = out if weight is None else out * weight
            total = out if total is None else total + out
        return total

    def chosen(self) -> nn.Module:
        """The module that the present path comes to."""
        ((name,), _), *_ = active(self.choice)
        return self.options[name]


class Depth(nn.ModuleList):
    """The first d of some ``blocks``, one after the other; d is chosen from ``least`` to all.

    In a mixture, the result is the sum of the outputs after each active number of blocks, each
    multiplied by its weight. An output with fewer channels than another one is padded with zeros.
    ``choice`` is the name of the decision, or a choice between numbers of blocks.

    Raises:
        UserError: there is no such number of blocks.
    """

    def __init__(self, choice: str | Choose, blocks: Iterable[nn.Module], least: int = 1):
        super().__init__(blocks)
        if not isinstance(choice, Choose):
            choice = Choose(choice, tuple(range(least, len(self) + 1)))
        self.choice = choice
        if not all(isinstance(d, int) and 0 <= d <= len(self) for d in choice.values):
            raise UserError(
                f"Depth({choice.name!r}): {list(choice.values)} are no numbers of its {len(self)} "
                "blocks"
            )

    def forward(self, x: Tensor) -> Tensor:
        weights = {depth: weight for (depth,), weight in active(self.choice)}
        total: Tensor | None = None
        for depth in range(max(weights) + 1):
            if depth:
                x = self[depth - 1](x)
            if depth in weights:
                weight = weights[depth]
                out = x if weight is None else x * weight
                total = out if total is None else added(total, out)
        assert total is not None
        return total

    def chosen(self) -> Sequence[nn.Module]:
        """The modules that the present path comes to."""
        ((depth,), _), *_ = active(self.choice)
        return list(self)[:depth]


def added(one: Tensor, other: Tensor) -> Tensor:
    """The sum of two tensors. The one that is shorter along an axis is padded with zeros there."""
    pads: list[tuple[list[int], Tensor]] = [([], one), ([], other)]
    for sizes in reversed(list(zip(one.shape, other.shape, strict=True))):
        for pad, size in zip(pads, sizes, strict=True):
            pad[0].extend((0, max(sizes) - size))
    one, other = (F.pad(tensor, pad) if any(pad) else tensor for pad, tensor in pads)
    return one + other
