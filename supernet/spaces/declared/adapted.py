"""Modules of other packages whose sizes become choices, without a change of their code.

An *adapted* module keeps its own ``forward``. Its parameters and buffers are cut when ``forward``
reads them, and numbers such as ``groups`` or ``num_heads`` are what the present call says. So a
path computes exactly what the module computes with smaller tensors, and the largest path is the
module itself, to the bit.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from supernet.mixture import Choice
from supernet.spaces.declared.choices import (
    Binding,
    Choose,
    Size,
    active,
    binding,
    bound,
    called,
    cut,
    decisions_of,
    padded,
)
from supernet.spaces.declared.layer import Kept


class Piece(NamedTuple):
    """A part of an axis: ``units`` units of ``each`` entries. ``size`` says how many units are
    kept, the first ones.
    """

    size: int | Size
    units: int
    each: int = 1


@dataclass
class Rules:
    """What is adapted in one module.

    Attributes:
        tensors: name of a parameter or buffer -> axis -> the pieces of this axis, in order.
        numbers: name of an attribute -> the size that it is. If the attribute is a tuple of one
            number, it stays one.
        channels: the axis of the input that the module normalises, if its outputs depend on how
            many channels there are. In a mixture, it then runs once for each active width.
        gate: a choice of depths, and the number of blocks before this one. The module returns its
            first input if the depth is not larger than this number.
    """

    tensors: dict[str, dict[int, list[Piece]]] = field(default_factory=dict)
    numbers: dict[str, Size] = field(default_factory=dict)
    channels: int | None = None
    gate: tuple[Choose, int] | None = None

    @property
    def sizes(self) -> list[int | Size]:
        found = [
            piece.size
            for axes in self.tensors.values()
            for pieces in axes.values()
            for piece in pieces
        ]
        return [*found, *self.numbers.values(), *([self.gate[0]] if self.gate else [])]

    @property
    def decisions(self) -> tuple[Choose, ...]:
        return decisions_of(*self.sizes)


class Adapted(nn.Module):
    """The base of the classes of adapted modules (:func:`adapt`). Such a class also derives from
    the module's own class.

    Outside a call of the supernet, its tensors are whole, but it cannot be called.
    """

    rules: Rules

    def __reduce__(self) -> tuple[Any, ...]:
        kind: Any = type(self)
        return made, (kind.own, tuple(sorted(self.rules.numbers))), vars(self)

    def __getattr__(self, name: str) -> Any:
        value: Any = super().__getattr__(name)
        axes = self.rules.tensors.get(name)
        if axes is None or value is None or not called():
            return value
        if isinstance(value, nn.Parameter):
            return part_of(value, axes)
        # Statistics are changed in place: a copy of several pieces is written back (written).
        kept = binding().kept
        if (self, name) not in kept:
            kept[self, name] = value, part_of(value, axes)
        return kept[self, name][1]

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        binding()  # raises outside a call, where the tensors are whole
        gate, run = self.rules.gate, self.each_width
        if gate is None:
            return run(*inputs, **keywords)
        choice, before = gate
        found = active(choice)
        kept = [one.weight for one in found if one.values[0] > before]
        if not kept:
            return inputs[0]
        out = run(*inputs, **keywords)
        if len(kept) == len(found):
            return out
        left = [one.weight for one in found if one.values[0] <= before]
        return out * sum(kept) + inputs[0] * sum(left)  # type: ignore[arg-type]

    def each_width(self, *inputs: Any, **keywords: Any) -> Any:
        """The module's own ``forward``. A normalisation runs once for each active width, and the
        outputs are added, each multiplied by its weight.
        """
        axis, run = self.rules.channels, super().forward
        if axis is None:
            out = run(*inputs, **keywords)
            self.written()
            return out
        now = binding()
        options = {d.name: now.choices[d.name] for d in self.rules.decisions}
        ways = list(single(options))
        if len(ways) == 1:
            return run(*inputs, **keywords)
        x, total = inputs[0], None
        for way, weight in ways:
            with bound(Binding({**now.choices, **way})):
                length = sum(
                    cut(piece.size).length * piece.each
                    for piece in next(iter(self.rules.tensors.values()))[0]
                )
                out = run(x.narrow(axis, 0, length), *inputs[1:], **keywords) * weight
            out = padded(out, tuple(x.shape))
            total = out if total is None else total + out
        return total

    def written(self) -> None:
        """Writes buffers back that were copied from several pieces, and may have changed."""
        kept = binding().kept
        for name in self._buffers:
            value, part = kept.pop((self, name), (None, None))
            if value is None or not self.training:
                continue
            for axis, pieces in self.rules.tensors[name].items():
                if len(pieces) > 1:
                    start = first = 0
                    for size, units, each in pieces:
                        length = cut(size).length * each
                        own = value.narrow(axis, start, length)
                        if own.data_ptr() != part.data_ptr():
                            own.copy_(part.narrow(axis, first, length))
                        start, first = start + units * each, first + length

    def skipped(self) -> bool:
        """Whether the module does not run on the present path."""
        gate = self.rules.gate
        return gate is not None and active(gate[0])[0].values[0] <= gate[1]

    def own_parts(self) -> dict[str, Tensor | None]:
        """The module's own parameters, as the present path has them."""
        return {name: getattr(self, name) for name in self._parameters}

    def settle(self, kept: Kept) -> None:
        """Makes the module one of its own class again, of the sizes of the present path."""
        rules = self.rules
        for name in rules.tensors:
            part = getattr(self, name)
            if self._parameters.get(name) is not None:
                self._parameters[name] = kept(self._parameters[name], part)  # type: ignore[arg-type]
            elif self._buffers.get(name) is not None:
                self._buffers[name] = part.detach().clone()
        for name in rules.numbers:
            vars(self)[name] = getattr(self, name)
        del vars(self)["rules"]
        self.__class__ = type(self).own  # type: ignore[attr-defined]


def adapt(module: nn.Module, rules: Rules) -> None:
    """Changes the class of a module, so that it follows the ``rules``."""
    vars(module)["rules"] = rules
    kind: Any = type(module)
    module.__class__ = class_of(kind, tuple(sorted(rules.numbers)))


@cache
def class_of(kind: Any, numbers: tuple[str, ...]) -> type:
    return type(
        kind.__name__,
        (Adapted, kind),
        {"own": kind, "__module__": kind.__module__} | {n: following(n) for n in numbers},
    )


def made(kind: Any, numbers: tuple[str, ...]) -> nn.Module:
    """An empty module of an adapted class, for copies and pickles."""
    found: Any = class_of(kind, numbers)
    module: nn.Module = found.__new__(found)
    return module


def following(name: str) -> property:
    """An attribute that is the largest active value of a size. Outside a call of the supernet it is
    what the module was made with.
    """

    def read(module: Adapted) -> Any:
        value = vars(module)[name]
        if not called():
            return value
        length = cut(module.rules.numbers[name]).length
        return type(value)([length]) if isinstance(value, tuple | list) else length

    def write(module: Adapted, value: Any) -> None:
        vars(module)[name] = value

    return property(read, write)


def single(
    options: dict[str, tuple[Choice, int]],
) -> Iterator[tuple[dict[str, tuple[Choice, int]], Any]]:
    """Every combination of single active options: what is bound in it, and its weight."""
    if not options:
        yield {}, 1.0
        return
    (name, (choice, slot)), *others = options.items()
    for way, weight in single(dict(others)):
        for option in choice.active[slot]:
            own = 1.0 if choice.weights is None else choice.weights[slot, option]
            yield {name: (Choice.path([option]), 0), **way}, own * weight


def part_of(tensor: Tensor, axes: dict[int, list[Piece]]) -> Tensor:
    """The part of a tensor that the present call keeps. The entries of a parameter are multiplied
    by the share of the mixture that has them (:func:`supernet.spaces.declared.choices.cut`).
    """
    learnt = isinstance(tensor, nn.Parameter)
    for axis, pieces in axes.items():
        found, start = [], 0
        shares: list[Tensor | None] = []
        for size, units, each in pieces:
            length, share = cut(size)
            found.append(tensor.narrow(axis, start, length * each))
            shares.append(None if share is None else share.repeat_interleave(each))
            start += units * each
        if any(f.shape[axis] < p.units * p.each for f, p in zip(found, pieces, strict=True)):
            tensor = found[0] if len(found) == 1 else torch.cat(found, axis)
        if learnt and any(share is not None for share in shares):
            whole = [
                tensor.new_ones(part.shape[axis]) if share is None else share
                for part, share in zip(found, shares, strict=True)
            ]
            shape = [1] * tensor.dim()
            shape[axis] = -1
            tensor = tensor * torch.cat(whole).reshape(shape)
    return tensor
