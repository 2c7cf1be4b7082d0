"""Which layers of a model share a width, by Torch-Pruning's dependency graph (Fang et al., CVPR
2023, "DepGraph"). It reads the graph that autograd records in one forward pass.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch_pruning
from torch import Tensor, nn


class Member(NamedTuple):
    """A place where a width appears.

    Attributes:
        module: the name of a module.
        side: "out" or "in" for the widths of a layer, "both" for a layer that keeps the number of
            channels, or the name of a parameter of the module.
        starts: where the channels begin; several numbers if they are there several times.
        each: how many entries each channel has there.
        axis: the axis of a parameter.
    """

    module: str
    side: str
    starts: tuple[int, ...]
    each: int
    axis: int = 0


class Group(NamedTuple):
    """Places that must have the same number of ``channels``. ``wrong`` says why they are not known
    well enough to change it.
    """

    channels: int
    members: list[Member]
    wrong: str = ""


def groups_of(model: nn.Module, example: Tensor) -> Iterator[Group]:
    """Yields every group of a model, in the order of its layers.

    Raises:
        Exception: of any kind, where the library cannot follow the model.
    """
    graph = torch_pruning.DependencyGraph()
    with torch.enable_grad():
        graph.build_dependency(model, example, verbose=False)
    names: dict[Any, str] = {module: name for name, module in model.named_modules()}
    names |= {parameter: name for name, parameter in model.named_parameters()}
    found = []
    for whole in graph.get_all_groups():
        root, handler = whole[0].dep.target.module, whole[0].dep.handler

        def reached(channel: int, root: Any = root, handler: Any = handler) -> dict[Any, list[int]]:
            group = graph.get_pruning_group(root, handler, [channel])
            return places(graph, group, names)

        found.append(group_of(names[root], len(whole[0].idxs), reached))
    order = list(names.values())
    for group in found:
        group.members.sort(key=lambda member: order.index(member.module))
    found.sort(key=lambda group: order.index(group.members[0].module))
    yield from found


def places(graph: Any, group: Any, names: dict[Any, str]) -> dict[Any, list[int]]:
    """The entries of each place that a part of a group has: (name, side, axis) -> entries."""
    found: dict[Any, set[int]] = {}
    for dep, entries in group:
        module = dep.target.module
        if module not in names:  # an operation without weights
            continue
        outwards = graph.is_out_channel_pruning_fn(dep.handler)
        inwards = graph.is_in_channel_pruning_fn(dep.handler)
        side = "both" if outwards and inwards else "out" if outwards else "in"
        axis = 0
        name = names[module]
        if isinstance(module, nn.Parameter):
            name, _, side = name.rpartition(".")
            axis = dep.target.pruning_dim
        found.setdefault((name, side, axis), set()).update(entries)
    return {key: sorted(entries) for key, entries in found.items()}


def group_of(root: str, length: int, reached: Any) -> Group:
    """The group of a layer that returns ``length`` channels. ``reached`` says which entries of
    which places belong to one channel. Three channels are looked at: in all known operations, the
    others follow from them.
    """
    first = reached(0)
    own = next(entries for (name, *_), entries in first.items() if name == root)
    channels = length // len(own)
    members = [
        Member(name, side, *runs(entries), axis=axis)
        for (name, side, axis), entries in first.items()
    ]
    expected = {channel: {} for channel in {min(1, channels - 1), channels - 1}}  # type: ignore[var-annotated]
    for channel, places in expected.items():
        for name, side, starts, each, axis in members:
            places[name, side, axis] = [
                start + channel * each + n for start in starts for n in range(each)
            ]
    regular = length % len(own) == 0 and all(
        reached(channel) == places for channel, places in expected.items()
    )
    return Group(channels, members, "" if regular else "its channels are mixed with others")


def runs(entries: list[int]) -> tuple[tuple[int, ...], int]:
    """The first entry of each run of successive entries, and the length of the runs."""
    starts = [entry for entry in entries if entry - 1 not in entries]
    return tuple(starts), len(entries) // len(starts)
