"""What becomes a choice in a model, and what is left as it is, with the reason."""

import copy
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from supernet.errors import UserError
from supernet.mixture import Choice
from supernet.spaces.converted.depth import Run, runs_of
from supernet.spaces.converted.groups import Group, Member, groups_of
from supernet.spaces.declared.adapted import Piece, Rules, adapt
from supernet.spaces.declared.choices import Binding, Choose, Size, bound
from supernet.spaces.declared.costs import Shapes

Shares = Mapping[str, Sequence[float]]  # pattern -> shares of the largest size

HEADS = ("num_heads", "n_heads", "num_attention_heads")
HEADS_WIDTHS = ("attn_dim", "all_head_dim", "inner_dim")  # the width of all heads together
KEEPS = ("num_features", "num_channels", "normalized_shape", "num_parameters")  # of a normalisation
# Layers whose outputs are computed for each channel alone, or that mix channels by weights.
ALONE = (_NormBase, _ConvNd, nn.Linear, nn.Embedding)
GRID = 8  # widths are multiples of this number, where they are large


@dataclass
class Candidate:
    """One decision, and all that follows it."""

    choice: Choose
    layer: str  # the first layer
    pieces: list[tuple[str, str, int, int, Piece]] = field(default_factory=list)
    numbers: list[tuple[str, str, Size]] = field(default_factory=list)
    gates: dict[str, int] = field(default_factory=dict)


@dataclass
class Plan:
    """The rules of each module, by its name, and one line for each group of layers that is left."""

    rules: dict[str, Rules]
    left: list[str]


class Left(Exception):
    """Why layers are left as they are."""


def planned(model: nn.Module, example: Tensor, widths: Shares, depths: Shares) -> Plan:
    """The plan for a model without values (on the meta device) in evaluation mode.

    Raises:
        UserError: the model cannot be followed.
    """
    tried = copy.deepcopy(model)  # now: some modules keep what they computed, and cannot be copied
    try:
        groups = tied(model, list(groups_of(model, example)))
        runs = list(runs_of(model, example))
    except Exception as error:  # a library looks at any code of anyone
        raise UserError(
            f"the model cannot be converted ({type(error).__name__}: {line_of(error)}); declare "
            "its choices where the layers stand (supernet/spaces/README.md)"
        ) from error
    candidates, left = [], []
    for group in groups:
        try:
            candidates.append(widths_of(model, group, widths))
        except Left as reason:
            left.append(f"{described(model, group)}: {reason}")
    candidates += [found for run in runs if (found := depths_of(model, run, depths))]
    named(candidates)
    for name, rules in rules_of(model, candidates).items():
        adapt(tried.get_submodule(name), rules)
    kept = []
    for candidate, wrong in checked(tried, example, candidates):
        if wrong:
            left.append(f"{candidate.layer}, {candidate.choice.name}: {wrong}")
        else:
            kept.append(candidate)
    final = rules_of(model, kept)
    for name, axis in normalised(tried, example, kept).items():
        if name in final and final[name].tensors:
            final[name].channels = axis
    return Plan(final, left)


# --- widths


def tied(model: nn.Module, groups: list[Group]) -> list[Group]:
    """The groups, where those that a grouped convolution reads and returns are one: its channels
    can only be cut together with its groups.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, _ConvNd) and layer.groups > 1 and not is_depthwise(layer):
            ends = [g for g in groups if any(m.module == name for m in g.members)]
            if len(ends) == 2 and ends[0].channels == ends[1].channels:
                wrong = ends[0].wrong or ends[1].wrong
                one = Group(ends[0].channels, [*ends[0].members, *ends[1].members], wrong)
                groups[groups.index(ends[0])] = one
                groups.remove(ends[1])
    return groups


def widths_of(model: nn.Module, group: Group, shares: Shares) -> Candidate:
    """The decision on the width of a group.

    Raises:
        Left: the group has to be left as it is.
    """
    if group.wrong:
        raise Left(group.wrong)
    if not any(member.side == "in" for member in group.members):
        raise Left("no layer reads it: these are outputs of the model")
    root = root_of(group)
    heads = heads_of(model, group)
    layers = {member.module: model.get_submodule(member.module) for member in group.members}
    kinds = [type(layer).__name__ for layer in layers.values()]
    chosen = shares_for(shares, [*(["heads"] if heads else []), *layers, *kinds])
    if heads:
        where, attribute, number = heads
        each = group.channels // number
        choice = Choose("heads", fractions(number, 1, chosen))
        size: Size = choice * each
        root = where
    else:
        step = math.lcm(grid(group.channels), *(unit(layer) for layer in layers.values()))
        choice = size = Choose("width", fractions(group.channels, step, chosen))
    if len(choice.values) < 2:
        raise Left(f"only {choice.values[0]} of {group.channels} channels are possible")
    found = Candidate(choice, root)
    for member in group.members:
        if heads and member.module == where:
            continue
        found.pieces += pieces_of(layers[member.module], member, group.channels, size)
        found.numbers += numbers_of(layers[member.module], member, group.channels, size)
    if heads:
        found.pieces += of_heads(layer_of(model, where), where, number, choice)
        found.numbers.append((where, attribute, choice))
        found.numbers += [
            (where, name, size)
            for name in HEADS_WIDTHS
            if vars(layer_of(model, where)).get(name) == group.channels
        ]
    return found


def heads_of(model: nn.Module, group: Group) -> tuple[str, str, int] | None:
    """If a group is the inner width of an attention: the name of the attention, and the name and
    the value of its attribute that is the number of heads.
    """
    own = {member.module for member in group.members if member.side not in ("in", "out", "both")}
    owners = own | {
        member.module.rpartition(".")[0] for member in group.members if member.module not in own
    }
    owner = owners.pop()
    held = vars(layer_of(model, owner))
    name = next((name for name in HEADS if isinstance(held.get(name), int)), None)
    if owners or name is None or group.channels % held[name]:
        return None
    return owner, name, held[name]


def of_heads(
    attention: nn.Module, where: str, number: int, choice: Choose
) -> Iterator[tuple[str, str, int, int, Piece]]:
    """The pieces of an attention's own tensors that have an entry for each head, such as a bias for
    each relative position and head.
    """
    for name, tensor in {**attention._parameters, **attention._buffers}.items():
        axes = [] if tensor is None else [a for a, n in enumerate(tensor.shape) if n == number]
        if len(axes) == 1:
            yield where, name, axes[0], 0, Piece(choice, number)


def pieces_of(
    layer: nn.Module, member: Member, channels: int, size: Size
) -> Iterator[tuple[str, str, int, int, Piece]]:
    """Every piece of a tensor that follows the width: the module, the tensor, the axis, the start,
    and the piece.
    """
    found = list(tensors_of(layer, member))
    grouped = isinstance(layer, _ConvNd) and layer.groups > 1  # reads the channels of one group
    if not found and not grouped:
        raise Left(f"{member.module} is a {type(layer).__name__}, whose width cannot be changed")
    for name, axis in found:
        length = getattr(layer, name).shape[axis]
        if any(start + channels * member.each > length for start in member.starts):
            raise Left(f"{member.module} uses them in a way that is not understood")
        for start in member.starts:
            yield member.module, name, axis, start, Piece(size, channels, member.each)


def tensors_of(layer: nn.Module, member: Member) -> Iterator[tuple[str, int]]:
    """The tensors of a layer that have a width, and the axis of the width."""
    side = member.side
    own = {name for name, tensor in layer._parameters.items() if tensor is not None}
    if side in own and side not in ("in", "out", "both"):
        yield side, member.axis
    elif isinstance(layer, _ConvNd | nn.Linear):
        turned = isinstance(layer, _ConvTransposeNd)
        grouped = isinstance(layer, _ConvNd) and layer.groups > 1
        if grouped and (turned or layer.in_channels != layer.out_channels):
            raise Left(f"{member.module} has {layer.groups} groups of unequal numbers of channels")
        if side in ("out", "both"):
            yield from (
                (name, int(turned and name == "weight"))
                for name in ("weight", "bias")
                if name in own
            )
        elif not grouped:
            yield "weight", int(not turned)
    elif isinstance(layer, nn.Embedding):
        yield "weight", 1
    elif side == "both":
        tensors = {**layer._parameters, **layer._buffers}
        yield from ((n, 0) for n, one in tensors.items() if one is not None and one.dim() == 1)


def numbers_of(
    layer: nn.Module, member: Member, channels: int, size: Size
) -> Iterator[tuple[str, str, Size]]:
    """Every attribute of a layer that says how wide it is."""
    many = member.each * len(member.starts)
    size = size * many if many > 1 else size
    names: tuple[str, ...] = KEEPS
    if isinstance(layer, _ConvNd):
        names = {"out": ("out_channels",), "in": ("in_channels",)}.get(
            member.side, ("in_channels", "out_channels")
        )
        if layer.groups > 1 and member.side in ("out", "both"):
            yield member.module, "groups", size // unit(layer)
    elif isinstance(layer, nn.Linear):
        names = (f"{member.side}_features",)
    elif isinstance(layer, nn.GroupNorm) and layer.num_groups > 1:
        yield member.module, "num_groups", size // unit(layer)
    for name in names:
        if vars(layer).get(name) in (channels * many, (channels * many,)):
            yield member.module, name, size


def is_depthwise(layer: _ConvNd) -> bool:
    return layer.groups == layer.in_channels == layer.out_channels


def unit(layer: nn.Module) -> int:
    """How many channels have to be cut together in a layer."""
    if isinstance(layer, _ConvNd) and layer.groups > 1:
        return layer.out_channels // layer.groups
    if isinstance(layer, nn.GroupNorm) and layer.num_groups > 1:
        return layer.num_channels // layer.num_groups
    return 1


def grid(channels: int) -> int:
    """Widths are multiples of this number: of 8 if they are large, because processors compute those
    faster.
    """
    step = GRID
    while channels % step or channels // step < 4:
        step //= 2
        if step < 2:
            return 1
    return step


def fractions(whole: int, step: int, shares: Iterable[float]) -> list[int]:
    """The shares of a size as multiples of ``step``, and the size itself."""
    found = {max(step, round(share * whole / step) * step) for share in shares}
    return sorted({one for one in found if one < whole} | {whole})


def shares_for(shares: Shares, names: Iterable[str]) -> Sequence[float]:
    """The shares of the last pattern that fits one of the names."""
    names = list(names)
    fitting = [s for p, s in shares.items() if any(fnmatchcase(name, p) for name in names)]
    if not fitting:
        raise Left("no pattern of its shares names it")
    return fitting[-1]


# --- depths


def depths_of(model: nn.Module, run: Run, shares: Shares) -> Candidate | None:
    """The decision on the number of blocks of a run; ``None`` if there is nothing to decide."""
    kind = type(model.get_submodule(next(iter(run.blocks.values())))).__name__
    try:
        chosen = shares_for(shares, [run.where, kind])
    except Left:
        return None
    values = fractions(
        run.length, 1, [math.ceil(s * run.length - 1e-9) / run.length for s in chosen]
    )
    if len(values) < 2:
        return None
    gates = {name: before for before, name in run.blocks.items()}
    return Candidate(Choose("depth", values), run.where, gates=gates)


# --- from candidates to rules


def named(candidates: list[Candidate]) -> None:
    """Gives each decision its name: the layer, and what is chosen. Numbers come last, so that alike
    layers of several blocks are shown as one table.
    """
    found: dict[str, int] = {}
    for candidate in candidates:
        parts = [
            *candidate.layer.split("."),
            *([] if candidate.choice.name == "width" else [candidate.choice.name]),
        ]
        words = [part for part in parts if part and not part.isdigit()]
        numbers = [part for part in parts if part.isdigit()]
        name = ".".join(words) or "blocks"
        name += f"-{'.'.join(numbers)}" if numbers else ""
        name = re.sub(r"[^\w.-]", "_", name)
        name = name if re.match(r"[A-Za-z_]", name) else f"_{name}"
        found[name] = found.get(name, 0) + 1
        candidate.choice.name = name if found[name] == 1 else f"{name}_again{found[name]}"


def rules_of(model: nn.Module, candidates: Iterable[Candidate]) -> dict[str, Rules]:
    """The rules of each module that follow from the decisions."""
    rules: dict[str, Rules] = {}
    axes: dict[tuple[str, str, int], dict[int, Piece]] = {}
    for candidate in candidates:
        for name, tensor, axis, start, piece in candidate.pieces:
            axes.setdefault((name, tensor, axis), {})[start] = piece
        for name, attribute, size in candidate.numbers:
            rules.setdefault(name, Rules()).numbers[attribute] = size
        for name, before in candidate.gates.items():
            rules.setdefault(name, Rules()).gate = candidate.choice, before
    for (name, tensor, axis), pieces in axes.items():
        length = getattr(model.get_submodule(name), tensor).shape[axis]
        whole, end = [], 0
        for start, piece in sorted(pieces.items(), key=lambda pair: pair[0]):
            if start > end:  # entries that no decision cuts
                whole.append(Piece(start - end, start - end))
            whole.append(piece)
            end = start + piece.units * piece.each
        if length > end:
            whole.append(Piece(length - end, length - end))
        rules.setdefault(name, Rules()).tensors.setdefault(tensor, {})[axis] = whole
    return rules


def checked(
    model: nn.Module, example: Tensor, candidates: list[Candidate]
) -> Iterator[tuple[Candidate, str]]:
    """Yields every candidate, with what is wrong if the model is run with its smallest value. It is
    found by forward passes without values.

    First many decisions are made smaller together, so that each differs from each other one in one
    of the passes. Only if one of these fails, each decision is tried alone.
    """
    bits = max(1, len(candidates).bit_length())
    sets = [
        [c for i, c in enumerate(candidates) if (i >> bit & 1) == on]
        for bit in range(bits)
        for on in (0, 1)
    ]
    expected = ran(model, example, candidates, [])
    if isinstance(expected, str):
        raise UserError(f"the model cannot be converted: {expected}")
    if all(ran(model, example, candidates, one) == expected for one in [*sets, candidates]):
        yield from ((candidate, "") for candidate in candidates)
        return
    kept: list[Candidate] = []
    for candidate in candidates:
        wrong = ""
        for together in ([candidate], [*kept, candidate]):
            found = ran(model, example, candidates, together)
            if found != expected and not wrong:
                wrong = found if isinstance(found, str) else "it is the shape of the outputs"
        if not wrong:
            kept.append(candidate)
        yield candidate, wrong


def ran(
    model: nn.Module, example: Tensor, candidates: list[Candidate], small: list[Candidate]
) -> list[tuple[int, ...]] | str:
    """The shapes of the outputs, or what is wrong, if some decisions have their smallest value and
    the others their largest.
    """
    options = {
        c.choice.name: (Choice.path([0 if c in small else len(c.choice.values) - 1]), 0)
        for c in candidates
    }
    try:
        with torch.no_grad(), bound(Binding(options)), Shapes():
            outputs = model(example)
    except Exception as error:  # any code of anyone
        return line_of(error)
    many = outputs if isinstance(outputs, tuple | list) else [outputs]
    return [tuple(one.shape) for one in many]


def normalised(model: nn.Module, example: Tensor, candidates: list[Candidate]) -> dict[str, int]:
    """For each layer that may normalise over its channels: their axis, which the decisions change.
    A BatchNorm treats each channel alone.
    """
    shapes: dict[str, list[tuple[int, ...]]] = {}

    def look(name: str, given: tuple[Any, ...]) -> None:
        if given and isinstance(given[0], Tensor):  # else it is no normalisation
            shapes.setdefault(name, []).append(tuple(given[0].shape))

    handles = [
        module.register_forward_pre_hook(lambda _, given, name=name: look(name, given))
        for name, module in model.named_modules()
        if not list(module.children()) and not isinstance(module, ALONE)
    ]
    widths = [c for c in candidates if not c.gates]
    for small in ([], widths):
        ran(model, example, candidates, small)
    for handle in handles:
        handle.remove()
    found = {}
    for name, seen in shapes.items():  # a module may be called several times in a pass
        passes = zip(seen[: len(seen) // 2], seen[len(seen) // 2 :], strict=True)
        changed = [
            axis
            for large, small in passes
            for axis, (a, b) in enumerate(zip(large, small, strict=True))
            if a != b
        ]
        if changed:
            found[name] = changed[0]
    return found


# --- words


def described(model: nn.Module, group: Group) -> str:
    root = root_of(group)
    return f"{root} ({type(layer_of(model, root)).__name__}, {group.channels} channels)"


def root_of(group: Group) -> str:
    """The first layer that returns these channels."""
    return next((m.module for m in group.members if m.side == "out"), group.members[0].module)


def line_of(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def layer_of(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name)
