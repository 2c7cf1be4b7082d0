"""The small algebra of a combination (:mod:`supernet.spaces.mixed`), on matrices of channels and never on pixels.

From the moments of the images that T terms read, the 1×1 convolutions, the BatchNorms and the weights of the mixture follow the
matrix by which the image of each term is multiplied, and the shift of each target. Its gradient is worked out in ``folding.c``, in
one call where torch's would be some fifty; :func:`plain` is the same for torch to differentiate, as often as asked.
"""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from supernet.ops.native import known, library, numbers, place, places


class Layout:
    """What is the same in every step: T terms, of which the first ``full`` have a 1×1 convolution and a norm, and the first
    ``normed`` a norm.

    ``images`` is for each normed term the place of the image that it reads: of full terms among those whose second moments are
    known, ``wholes`` of them; of others among those of which the diagonal is, ``diagonals`` of them. ``targets`` is where each term
    adds to, one of ``nodes``, and ``positions`` the place of its weight.
    """

    def __init__(
        self,
        full: int,
        images: Sequence[int],
        wholes: int,
        diagonals: int,
        targets: Sequence[int],
        nodes: int,
        positions: Sequence[int],
        eps: float,
        device: torch.device,
    ):
        def order(places: Sequence[int], count: int) -> Tensor | None:  # None: as they are
            return None if list(places) == list(range(count)) else torch.tensor(places, device=device)

        self.terms, self.full, self.normed, self.wholes, self.nodes, self.eps = len(targets), full, len(images), wholes, nodes, eps
        self.of_whole, self.of_diagonal = order(images[:full], wholes), order(images[full:], diagonals)
        self.of_weights = order(positions, self.terms)
        self.of_targets = torch.tensor(targets, device=device)
        rest = [0] * (self.terms - self.normed)
        sizes = self.terms, self.full, self.normed, wholes, diagonals, nodes
        self.numbers = numbers([*sizes, *images, *rest, *targets, *positions])


class Statistics(NamedTuple):
    """Of images: second moments [K, C, C], diagonals of them [k, C], and the means [K + k, C] of both."""

    second: Tensor
    squares: Tensor
    first: Tensor


class Small(NamedTuple):
    """Weights of the mixture [T] (none: 1), 1×1 convolutions [C, C, 1, 1], gains and biases [C] of norms (none: 1 and 0)."""

    weights: Tensor | None
    pointwise: Sequence[Tensor]
    gains: Sequence[Tensor]
    biases: Sequence[Tensor]

    @classmethod
    def of(cls, layout: Layout, each: Sequence) -> "Small":
        """From all of them in a row."""
        weights, *rest = each
        norms = rest[layout.full :]
        return cls(weights, rest[: layout.full], norms[: len(norms) // 2], norms[len(norms) // 2 :])


class Parts(NamedTuple):
    """What rows are multiplied by, ``matrices`` [full, in, out] and ``diagonals`` [T - full, C], and ``shifts`` [nodes, C]."""

    matrices: Tensor
    diagonals: Tensor
    shifts: Tensor


def plain(layout: Layout, statistics: Statistics, small: Small) -> tuple[Parts, tuple[Tensor, Tensor]]:
    """The parts, and the means and variances [normed, C] that BatchNorms see."""
    second, squares, first = statistics
    full, wholes = layout.full, layout.wholes
    mean, square = [], []
    if full:
        pointwise = torch.stack([weight.flatten(1) for weight in small.pointwise])
        m = taken(first[:wholes], layout.of_whole)
        mean.append((pointwise @ m[..., None])[..., 0])
        square.append((pointwise @ taken(second, layout.of_whole) * pointwise).sum(dim=-1))
    if layout.normed > full:
        mean.append(taken(first[wholes:], layout.of_diagonal))
        square.append(taken(squares, layout.of_diagonal))
    none = first[:0]
    mean, square = torch.cat([none, *mean]), torch.cat([none, *square])
    variance = (square - mean * mean).clamp_min(0.0)
    scale = torch.rsqrt(variance + layout.eps)
    shift = -mean * scale
    if small.gains:
        gains, biases = torch.stack(list(small.gains)), torch.stack(list(small.biases))
        scale, shift = scale * gains, shift * gains + biases
    rest = layout.terms - layout.normed
    scale = torch.cat([scale, first.new_ones(rest, first.shape[1])])
    shift = torch.cat([shift, first.new_zeros(rest, first.shape[1])])
    if small.weights is not None:
        weights = taken(small.weights, layout.of_weights)[:, None]
        scale, shift = scale * weights, shift * weights
    matrices = (pointwise * scale[:full, :, None]).transpose(1, 2) if full else second
    shifts = shift.new_zeros(layout.nodes, shift.shape[1]).index_add(0, layout.of_targets, shift)
    return Parts(matrices, scale[full:], shifts), (mean, variance)


def taken(table: Tensor, order: Tensor | None) -> Tensor:
    return table if order is None else table[order]


class Folding:
    """The same with its gradient: of ``each`` (what makes a :class:`Small`) those that are ``asked`` have one, and the statistics
    do if they are ``moving``."""

    def __init__(self, layout: Layout, statistics: Statistics, each: Sequence[Tensor | None], asked: Sequence[bool], moving: bool):
        self.layout, self.statistics, self.asked, self.graph = layout, statistics, asked, None
        if known(statistics.first):
            self.parts, self.observed = _fold(layout, statistics, Small.of(layout, each))
            return
        with torch.set_grad_enabled(moving or any(asked)):
            statistics = Statistics(*(table.detach().requires_grad_(moving) for table in statistics))
            leaves = [t if t is None else t.detach().requires_grad_(ask) for t, ask in zip(each, asked, strict=True)]
            parts, self.observed = plain(layout, statistics, Small.of(layout, leaves))
        self.graph = [*statistics, *leaves], parts
        self.parts = Parts(*(part.detach() for part in parts))

    def backward(
        self, each: Sequence[Tensor | None], of_matrices: Tensor, of_diagonals: Tensor, of_shifts: Tensor
    ) -> tuple[Tensor, Tensor, Statistics, list[Tensor | None]]:
        """The matrices and diagonals by which what comes back is multiplied, and the gradients of the statistics and of ``each``.

        ``each`` is what it was; of the parts the gradients are given, those of matrices and the matrices here as [full, out, in].
        """
        if self.graph is None:
            return _unfold(
                self.layout, self.statistics, Small.of(self.layout, each), self.asked, of_matrices, of_diagonals, of_shifts
            )
        leaves, parts = self.graph
        asked = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
        slopes = of_matrices.transpose(1, 2), of_diagonals, of_shifts
        moving = [(part, slope) for part, slope in zip(parts, slopes, strict=True) if part.requires_grad]
        found = iter(())
        if moving and asked:  # who asked may ask again
            outputs, slopes = zip(*moving, strict=True)
            found = iter(torch.autograd.grad(outputs, asked, slopes, retain_graph=True, materialize_grads=True))
        of_leaves = [next(found) if leaf is not None and leaf.requires_grad else None for leaf in leaves]
        matrices = self.parts.matrices.transpose(1, 2).contiguous()
        return matrices, self.parts.diagonals, Statistics(*of_leaves[:3]), of_leaves[3:]


def _fold(layout: Layout, statistics: Statistics, small: Small) -> tuple[Parts, tuple[Tensor, Tensor]]:
    new, channels = statistics.first.new_empty, statistics.first.shape[1]
    parts = Parts(new(layout.full, channels, channels), new(layout.terms - layout.full, channels), new(layout.nodes, channels))
    observed = new(layout.normed, channels), new(layout.normed, channels)
    with _told(layout, statistics, small) as arguments:
        library().fold(*map(place, (*parts, *observed)), *arguments)
    return parts, observed


def _unfold(layout: Layout, statistics: Statistics, small: Small, asked: Sequence[bool], *slopes: Tensor):
    new, channels = statistics.first.new_empty, statistics.first.shape[1]
    matrices, of_pointwise = new(2, layout.full, channels, channels)
    diagonals = new(layout.terms - layout.full, channels)
    of_statistics = Statistics(*map(torch.empty_like, statistics))
    of_weights = new(layout.terms)
    of_gains, of_biases = new(2, layout.normed, channels)
    results = matrices, diagonals, *of_statistics, of_weights, of_pointwise, of_gains, of_biases
    with _told(layout, statistics, small) as arguments:
        library().unfold(*map(place, (*results, *(slope.contiguous() for slope in slopes))), *arguments)
    of_each = [of_weights, *of_pointwise[..., None, None].unbind()] + [*of_gains.unbind(), *of_biases.unbind()] * bool(small.gains)
    return matrices, diagonals, of_statistics, [one if ask else None for one, ask in zip(of_each, asked, strict=True)]


@contextmanager
def _told(layout: Layout, statistics: Statistics, small: Small) -> Iterator[tuple]:
    """All that is given as the kernels want it; inside, what they point to is there."""
    weights, pointwise, gains, biases = small
    kept = [[tensor.contiguous() for tensor in some] for some in (pointwise, gains, biases)]
    weights = None if weights is None else weights.contiguous()
    sizes = ctypes.c_long(statistics.first.shape[1]), ctypes.c_double(layout.eps)
    pointers = [places(some) if some else None for some in kept]
    yield *map(place, statistics), place(weights), *pointers, layout.numbers, *sizes
