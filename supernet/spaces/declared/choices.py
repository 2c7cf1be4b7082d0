"""Choices: what is to be decided, and what it comes to in one call of a supernet.

A :class:`Choose` is one decision. Layers read it as the size of something, and a user's own
``forward`` reads it by a call, ``self.scale()``. Sizes can be computed from choices: ``expand *
width`` is a :class:`Size` that depends on two decisions, ``width // 8`` on one.

A mixture says for every decision which options are active, and by which weights
(:mod:`supernet.mixture`). It is *bound* for one call of the supernet (:func:`bound`), and the
layers look there. The binding belongs to the thread that makes the call, and ends with the call.
Nothing of it is kept in a choice or in a layer. So a module may be called inside the call of
another one, in several threads, and with other weights (``torch.func.functional_call``).
"""

import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.errors import UserError
from supernet.mixture import Choice

NAME = re.compile(r"[A-Za-z_][\w.-]*")  # of a decision: it stands in texts such as kernel=3,5


class Size(ABC):
    """A number that depends on decisions. ``decisions`` are those that it depends on.

    A call returns what it comes to in the present call of the supernet. On a path this is one
    value. In a mixture it is the sum of the values, each multiplied by its weight: a tensor, in
    which the logits have a gradient.
    """

    decisions: tuple["Choose", ...] = ()

    @abstractmethod
    def value(self, chosen: Mapping[str, Any]) -> Any:
        """The value, if each decision (by its name) comes to the value that ``chosen`` says."""

    def __mul__(self, other: "float | Size") -> "Size":
        return Computed(times, self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: "int | Size") -> "Size":
        return Computed(divided, self, other)

    def __rfloordiv__(self, other: int) -> "Size":
        return Computed(divided, other, self)

    def same(self, other: "Size") -> "Size":
        """Whether two sizes come to the same value: "same" or "other", as names of the options of a
        OneOf.
        """
        return Computed(compared, self, other)

    def __call__(self) -> Any:
        found = active(self)
        if len(found) == 1 and (found[0].weight is None or not is_number(found[0].values[0])):
            return found[0].values[0]
        if not all(is_number(one.values[0]) for one in found):
            raise UserError(
                f"{self}: several of its values are active, but only numbers can be mixed; choose "
                "a method that trains paths (such as method=spos), or a OneOf instead"
            )
        return sum(one.values[0] * (1.0 if one.weight is None else one.weight) for one in found)

    def __bool__(self) -> bool:
        raise UserError(f"{self}: a choice has no truth value; call it in forward, as in choice()")


class Choose(Size):
    """One decision between ``values``: numbers for sizes, or any values that a ``forward`` reads.

    All choices of one name in a module are the same decision, and must have the same values.
    Decisions with the same values, whose names differ only in a number at the end (``kernel0``,
    ``kernel1``), are shown as one table.

    Raises:
        UserError: the name or the values are not usable.
    """

    def __init__(self, name: str, values: Sequence[Any]):
        self.name, self.values = name, tuple(values)
        self.decisions = (self,)
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(
                f"Choose({name!r}): the name must be letters, digits, _, - and dots, and begin "
                "with a letter"
            )
        self.options = tuple(map(text_of, self.values))
        if not self.values or len(set(self.options)) < len(self.options):
            raise UserError(
                f"Choose({name!r}, {list(self.values)}): needs one or more values, all of which "
                "are written differently"
            )

    def value(self, chosen: Mapping[str, Any]) -> Any:
        return chosen[self.name]

    def __repr__(self) -> str:
        return f"Choose({self.name!r}, {self.values})"


class Computed(Size):
    """A value that is computed from others."""

    def __init__(self, rule: Callable[[Any, Any], Any], *parts: "float | Size"):
        self.rule, self.parts = rule, parts
        self.decisions = decisions_of(*parts)

    def value(self, chosen: Mapping[str, Any]) -> Any:
        return self.rule(*(p.value(chosen) if isinstance(p, Size) else p for p in self.parts))

    def __repr__(self) -> str:
        return f"{self.rule.__name__}{self.parts}"


def times(one: float, other: float) -> int:
    """The product, rounded to a whole number, but at least 1."""
    return max(1, round(one * other))


def divided(one: int, other: int) -> int:
    """The quotient, rounded down, but at least 1."""
    return max(1, one // other)


def compared(one: Any, other: Any) -> str:
    return "same" if one == other else "other"


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def text_of(value: Any) -> str:
    """How an option is written in texts: without the letters that separate options."""
    return re.sub(r"[^\w.-]+", "_", str(value)).strip("_") or "_"


def decisions_of(*sizes: Any) -> tuple[Choose, ...]:
    """The decisions that any of ``sizes`` depends on. Plain numbers depend on none."""
    found = [d for size in sizes if isinstance(size, Size) for d in size.decisions]
    return tuple({decision.name: decision for decision in found}.values())


def possible(*sizes: Any) -> list[tuple[Any, ...]]:
    """All values that ``sizes`` can have together."""
    decisions = decisions_of(*sizes)
    return [
        values_of(sizes, dict(zip([d.name for d in decisions], values, strict=True)))
        for values in itertools.product(*(d.values for d in decisions))
    ]


def values_of(sizes: Sequence[Any], chosen: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(size.value(chosen) if isinstance(size, Size) else size for size in sizes)


def most(size: Any) -> Any:
    """The largest value of a size."""
    return max(value for (value,) in possible(size))


# --- what is bound for one call


class Active(NamedTuple):
    """One combination of active options: what several sizes come to in it, and its weight, a tensor
    of one number (``None``: one).
    """

    values: tuple[Any, ...]
    weight: Tensor | None


class Binding:
    """What each decision comes to in one call: name -> a choice, and the slot of the decision.

    ``read`` notes how many channels each elastic layer has read. ``preparing`` says that a layer
    is making its weights, which a plain network does not do.
    """

    def __init__(self, choices: Mapping[str, tuple[Choice, int]]):
        self.choices = choices
        self.read: dict[nn.Module, int] = {}
        self.preparing = False
        self.decided: set[str] = set()  # the decisions that were read
        # What is computed once for all layers that read the same size. The size is kept as well,
        # so that no other object gets its id.
        self.kept: dict[Any, tuple[Any, Any]] = {}

    def of(self, decision: Choose) -> list[tuple[Any, Tensor | None]]:
        """The active values of a decision, and the weight of each.

        A modifier may leave a decision without any active option. Then the first one has the weight
        zero.
        """
        if decision.name not in self.choices:
            raise UserError(
                f"{decision}: the supernet does not know this choice; keep it as an attribute of a "
                "module that belongs to the supernet"
            )
        self.decided.add(decision.name)
        choice, slot = self.choices[decision.name]
        weights = choice.weights
        if not choice.active[slot]:
            like = torch.zeros(()) if weights is None else weights
            return [(decision.values[0], like.new_zeros(()))]
        return [
            (decision.values[option], None if weights is None else weights[slot, option])
            for option in choice.active[slot]
        ]


_binding: ContextVar[Binding | None] = ContextVar("binding", default=None)


@contextmanager
def bound(binding: Binding) -> Iterator[Binding]:
    """A context in which the choices come to what ``binding`` says."""
    token = _binding.set(binding)
    try:
        yield binding
    finally:
        _binding.reset(token)


def binding() -> Binding:
    """The binding of the present call.

    Raises:
        UserError: no supernet is being called.
    """
    found = _binding.get()
    if found is None:
        raise UserError(
            "a layer with a choice was called outside a call of its supernet; make a space of the "
            "module, as in supernet.declared(Net), and call space.supernet(task)(inputs, mixture)"
        )
    return found


def called() -> bool:
    """Whether a supernet is being called."""
    return _binding.get() is not None


def active(*sizes: Any) -> list[Active]:
    """What ``sizes`` come to together in the present call, one entry for each combination of active
    options.

    Different decisions are independent: the weight of a combination is the product of the weights.
    """
    now = binding()
    if (kept := now.kept.get(tuple(map(id, sizes)))) is not None:
        return kept[1]
    decisions = decisions_of(*sizes)
    found = []
    for combination in itertools.product(*(now.of(decision) for decision in decisions)):
        chosen = {d.name: value for d, (value, _) in zip(decisions, combination, strict=True)}
        found.append(Active(values_of(sizes, chosen), product([w for _, w in combination])))
    now.kept[tuple(map(id, sizes))] = sizes, found
    return found


def by_value(size: Size) -> dict[Any, Tensor | None]:
    """The active values of a size, and the weight of each. If several combinations of options have
    the same value, it is the sum of their weights.
    """
    found: dict[Any, Tensor | None] = {}
    for (value,), weight in active(size):
        before = found.get(value)
        found[value] = weight if before is None or weight is None else before + weight
    return found


def product(weights: Sequence[Tensor | None]) -> Tensor | None:
    """The product of weights; ``None`` if none of them is a tensor."""
    found: Tensor | None = None
    for weight in weights:
        if weight is not None:
            found = weight if found is None else found * weight
    return found


class Cut(NamedTuple):
    """How much of the largest layer a size keeps in the present call.

    ``length``: the largest active value. ``share`` [length]: the sum of the weights of the active
    values that are larger than the index; ``None`` if all are one.
    """

    length: int
    share: Tensor | None


def cut(size: Any) -> Cut:
    """What a width comes to: the layer keeps the first ``length`` channels, multiplied by their
    shares.

    This is the superposition of the slices (Sukthanker et al., 2023, TangleNAS): the sum of the
    slices of all active widths, each multiplied by its weight and padded with zeros, is the longest
    slice multiplied by the shares.
    """
    if not isinstance(size, Size):
        return Cut(size, None)
    now = binding()
    if (kept := now.kept.get(("cut", id(size)))) is not None:
        return kept[1]
    found = sorted(active(size), key=lambda one: one.values[0])
    length = found[-1].values[0]
    share: Tensor | None = None
    if any(one.weight is not None for one in found):
        share = superposed([((value,), weight) for (value,), weight in found], (length,), 0)
    now.kept["cut", id(size)] = size, Cut(length, share)
    return Cut(length, share)


def superposed(
    parts: Sequence[tuple[tuple[int, ...], Tensor | None]],
    shape: tuple[int, ...],
    middle: float = 0.5,
) -> Tensor:
    """The sum of blocks of the given shapes, each filled with its weight, in an array of ``shape``.

    A block stands in the middle of the array, or at its beginning if ``middle`` is 0.
    """
    like = next(weight for _, weight in parts if weight is not None)
    total = like.new_zeros(shape)
    for size, weight in parts:
        filled = (like.new_ones(()) if weight is None else weight).expand(size)
        total = total + padded(filled, shape, middle)
    return total


def padded(block: Tensor, shape: tuple[int, ...], middle: float = 0.0) -> Tensor:
    """A block with zeros around it, or behind it if ``middle`` is 0, up to ``shape``."""
    pads: list[int] = []
    for whole, part in reversed(list(zip(shape, block.shape, strict=True))):
        before = int((whole - part) * middle)
        pads += [before, whole - part - before]
    return F.pad(block, pads) if any(pads) else block
