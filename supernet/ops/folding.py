"""The small algebra of a combination (:mod:`supernet.ops.combination`), on matrices of channels and
never on pixels.

From the moments of the images that T terms read, the 1×1 convolutions, the BatchNorms and the
weights of the mixture follow the matrix by which the image of each term is multiplied, and the
shift of each target. Its gradient is worked out in ``folding.c``, in one call where torch's would
be some fifty; :func:`plain` is the same for torch to differentiate, as often as asked.
"""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from supernet.ops.native import library, numbers, place, places


class Layout:
    """What is the same in every step: T terms, of which the first ``full`` have a 1×1 convolution
    and a norm, and the first ``normed`` a norm.

    ``images`` is for each normed term the place of the image that it reads: of full terms among
    those whose second moments are known, ``wholes`` of them; of others among those of which the
    diagonal is, ``diagonals`` of them. ``targets`` is where each term adds to, one of ``nodes``,
    and ``positions`` the place of its weight. ``slots`` is where, of so many ``places``, each image
    is whose moments are known.
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
        slots: Sequence[int],
        places: int,
        eps: float,
        device: torch.device,
    ):
        def order(places: Sequence[int], count: int) -> Tensor | None:  # None: as they are
            return (
                None if list(places) == list(range(count)) else torch.tensor(places, device=device)
            )

        self.terms, self.full, self.normed, self.wholes, self.nodes, self.eps = (
            len(targets),
            full,
            len(images),
            wholes,
            nodes,
            eps,
        )
        self.of_whole, self.of_diagonal = (
            order(images[:full], wholes),
            order(images[full:], diagonals),
        )
        self.of_weights = order(positions, self.terms)
        self.of_targets = torch.tensor(targets, device=device)
        rest = [0] * (self.terms - self.normed)
        sizes = self.terms, self.full, self.normed, wholes, diagonals, nodes, places
        self.numbers = numbers([*sizes, *images, *rest, *targets, *positions, *slots])


class Statistics(NamedTuple):
    """Of images: second moments [K, C, C], diagonals of them [k, C], and the means [K + k, C] of
    both.
    """

    second: Tensor
    squares: Tensor
    first: Tensor


class Small(NamedTuple):
    """Weights of the mixture [T] (none: 1), 1×1 convolutions [C, C, 1, 1], gains and biases [C] of
    norms (none: 1 and 0).
    """

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
    """What rows are multiplied by, ``matrices`` [full, in, out] and ``diagonals`` [T - full, C],
    and ``shifts`` [nodes, C].
    """

    matrices: Tensor
    diagonals: Tensor
    shifts: Tensor


def plain(
    layout: Layout, statistics: Statistics, small: Small
) -> tuple[Parts, tuple[Tensor, Tensor]]:
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


def fold(
    layout: Layout, size: int, statistics: Tensor, small: Small, channels: int
) -> tuple[Tensor, Tensor]:
    """The same by the compiled kernels, not differentiable: the parts, ``size`` numbers in a row,
    and the means and variances [2, normed, C], from the statistics, which are in a row too.
    """
    parts, observed = statistics.new_empty(size), statistics.new_empty(2, layout.normed, channels)
    weights, *pointers, _kept = _told(small)
    sizes = ctypes.c_long(channels), ctypes.c_double(layout.eps)
    library().fold(
        place(parts), place(observed), place(statistics), weights, *pointers, layout.numbers, *sizes
    )
    return parts, observed


def unfold(
    layout: Layout, work: Tensor, statistics: Tensor, small: Small, channels: int, pixels: int
) -> list[Tensor]:
    """The gradients of all in ``small``, from those of the parts, with which ``work`` begins.

    What follows there is filled in: matrices [full, out, in] and diagonals for what comes back;
    matrices, diagonals and shifts that are the gradient of the images by way of their moments over
    so many ``pixels``.
    """
    of_weights, of_norms = work.new_empty(layout.terms), work.new_empty(2, layout.normed, channels)
    of_pointwise = work.new_empty(layout.full, channels, channels, 1, 1)
    weights, *pointers, _kept = _told(small)
    sizes = ctypes.c_long(channels), ctypes.c_double(layout.eps), ctypes.c_long(pixels)
    results = map(place, (work, of_weights, of_pointwise, of_norms, statistics))
    library().unfold(*results, weights, *pointers, layout.numbers, *sizes)
    return [
        of_weights,
        *of_pointwise.unbind(),
        *(of_norms.flatten(0, 1).unbind() if small.gains else ()),
    ]


def _told(small: Small) -> tuple:
    """All in ``small`` as the kernels want it, and last what these point to."""
    weights, *rest = small
    weights, kept = (
        weights if weights is None else weights.contiguous(),
        [[one.contiguous() for one in some] for some in rest],
    )
    return place(weights), *(places(some) if some else None for some in kept), (weights, kept)
