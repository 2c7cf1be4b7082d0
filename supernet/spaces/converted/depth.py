"""Runs of residual blocks, whose depth can be chosen."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# What may stand between the sum of a residual block and its output.
BETWEEN: tuple[str, ...] = (
    "add",
    "relu",
    "silu",
    "gelu",
    "hardswish",
    "hardtanh",
    "view",
    "permute",
    "transpose",
)
BETWEEN += ("clone", "reshape", "alias", "contiguous")


class Run(NamedTuple):
    """Blocks that follow each other in a list of blocks.

    Attributes:
        where: the name of the list.
        blocks: number of blocks before it in the run -> the name of a block that can be left out.
        length: the number of blocks, with a first one that cannot be left out.
    """

    where: str
    blocks: dict[int, str]
    length: int


def runs_of(model: nn.Module, example: Tensor) -> Iterator[Run]:
    """Yields every run of residual blocks of a model, in the order of its layers.

    Blocks of one class that follow each other in an ``nn.Sequential`` or ``nn.ModuleList`` are a
    run if each adds something to its input, and returns it in the same shape. A block of that class
    before them, which changes the shape, is the first one of the run.
    """
    residual = residual_in(model, example)
    for where, blocks in model.named_modules():
        if not isinstance(blocks, nn.Sequential | nn.ModuleList):
            continue
        named = [(f"{where}.{name}".lstrip("."), block) for name, block in blocks.named_children()]
        for _, alike in itertools.groupby(named, key=lambda pair: type(pair[1])):
            names = [name for name, _ in alike]
            stays = [name not in residual for name in names]
            starts = [i for i in range(len(names)) if i == 0 or stays[i]]
            for start, end in itertools.pairwise([*starts, len(names)]):
                free = {i - start: names[i] for i in range(start + 1, end)}
                if free:
                    yield Run(where, free, end - start)


def residual_in(model: nn.Module, example: Tensor) -> set[str]:
    """The names of the modules in a list that return their input plus something."""
    found: dict[str, bool] = {}
    handles = []

    def look(name: str, given: tuple[Any, ...], out: Any) -> None:
        fits = bool(given) and isinstance(given[0], Tensor) and isinstance(out, Tensor)
        fits = fits and given[0].shape == out.shape and adds(given[0], out)
        found[name] = fits and name not in found  # a block that runs twice is left as it is

    for where, blocks in model.named_modules():
        if isinstance(blocks, nn.Sequential | nn.ModuleList):
            for name, block in blocks.named_children():
                full = f"{where}.{name}".lstrip(".")
                handles.append(
                    block.register_forward_hook(
                        lambda _, given, out, full=full: look(full, given, out)
                    )
                )
    try:
        with torch.enable_grad():
            model(example.detach().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    return {name for name, fits in found.items() if fits}


def adds(x: Tensor, out: Tensor) -> bool:
    """Whether ``out`` is a sum with ``x``: in the graph of autograd, additions and activations
    alone stand between them.
    """
    left, seen, added = [out.grad_fn], set(), False
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        if node is x.grad_fn:
            return added
        seen.add(node)
        name = node.name().lower()
        if any(word in name for word in BETWEEN):
            added = added or "add" in name
            left += [parent for parent, _ in node.next_functions]
    return False
