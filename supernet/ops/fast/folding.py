"""Folding: BatchNorm, 1×1 convolution and weight of the mixture as one matrix and one shift.

This is the small algebra of a combination (:mod:`supernet.ops.fast.combination`). It works on
matrices of channels, never on pixels. Its inputs are the moments of the images that T terms read,
the 1×1 convolutions, the BatchNorms and the weights of the mixture. Its results are the matrix by
which the image of each term is multiplied, and the shift of each target. ``folding.cpp`` computes
these, and their gradients, in one call each, where torch needs some fifty.
:func:`fold_by_torch` computes the same, and torch can differentiate it as often as it likes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from supernet.ops.fast.native import address, addresses, kernels, numbers


class FoldLayout:
    """What is the same in every step: which term reads what, and adds to what.

    There are T terms. The first ``full`` have a 1×1 convolution and a norm, the first ``normed``
    have a norm, and the others have neither.

    * ``images``: for each normed term the image that it reads. Full terms count among the
      ``wholes`` images whose second moments are known; the others count among the ``diagonals``
      images of which only the diagonal of these is known.
    * ``targets``: what each term adds to, one of ``nodes``.
    * ``positions``: where in the weights of the mixture the weight of each term is.
    * ``slots``: for each image whose moments are known, where it is among all ``places`` images.
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
        def order(indices: Sequence[int], count: int) -> Tensor | None:
            unchanged = list(indices) == list(range(count))
            return None if unchanged else torch.tensor(indices, device=device)

        self.terms, self.full, self.normed = len(targets), full, len(images)
        self.wholes, self.nodes, self.eps = wholes, nodes, eps
        self.of_whole = order(images[:full], wholes)
        self.of_diagonal = order(images[full:], diagonals)
        self.of_weights = order(positions, self.terms)
        self.of_targets = torch.tensor(targets, device=device)
        rest = [0] * (self.terms - self.normed)
        sizes = self.terms, self.full, self.normed, wholes, diagonals, nodes, places
        self.numbers = numbers([*sizes, *images, *rest, *targets, *positions, *slots])


class Moments(NamedTuple):
    """Of images: second moments [K, C, C] of some, the diagonals of these [k, C] of others, and the
    means [K + k, C] of both.
    """

    second: Tensor
    squares: Tensor
    first: Tensor


class SmallTensors(NamedTuple):
    """Weights of the mixture [T] (``None``: all 1), weights of 1×1 convolutions [C, C, 1, 1],
    scales and shifts [C] of the norms (empty: 1 and 0).
    """

    weights: Tensor | None
    pointwise: Sequence[Tensor]
    gains: Sequence[Tensor]
    biases: Sequence[Tensor]

    @classmethod
    def of(cls, layout: FoldLayout, tensors: Sequence[Any]) -> "SmallTensors":
        """From a list of all of them, in this order."""
        weights, *rest = tensors
        norms = rest[layout.full :]
        half = len(norms) // 2
        return cls(weights, rest[: layout.full], norms[:half], norms[half:])


class Folded(NamedTuple):
    """What rows are multiplied by, ``matrices`` [full, in, out] and ``diagonals`` [T - full, C],
    and what is added, ``shifts`` [nodes, C].
    """

    matrices: Tensor
    diagonals: Tensor
    shifts: Tensor


def fold_by_torch(
    layout: FoldLayout, moments: Moments, small: SmallTensors
) -> tuple[Folded, tuple[Tensor, Tensor]]:
    """The matrices, diagonals and shifts; and the means and variances [normed, C] that the norms
    see.
    """
    second, squares, first = moments
    full, wholes = layout.full, layout.wholes
    means, squared = [], []
    if full:
        pointwise = torch.stack([weight.flatten(1) for weight in small.pointwise])
        m = taken(first[:wholes], layout.of_whole)
        means.append((pointwise @ m[..., None])[..., 0])
        squared.append((pointwise @ taken(second, layout.of_whole) * pointwise).sum(dim=-1))
    if layout.normed > full:
        means.append(taken(first[wholes:], layout.of_diagonal))
        squared.append(taken(squares, layout.of_diagonal))
    none = first[:0]
    mean, square = torch.cat([none, *means]), torch.cat([none, *squared])
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
    return Folded(matrices, scale[full:], shifts), (mean, variance)


def taken(table: Tensor, order: Tensor | None) -> Tensor:
    return table if order is None else table[order]


def fold(
    layout: FoldLayout, size: int, moments: Tensor, small: SmallTensors, channels: int
) -> tuple[Tensor, Tensor]:
    """The same by the C++ kernels; not differentiable.

    ``moments`` are those of :class:`Moments` in a row. The results are those of :class:`Folded` in
    a row, ``size`` numbers, and the means and variances [2, normed, C].
    """
    folded, observed = moments.new_empty(size), moments.new_empty(2, layout.normed, channels)
    weights, *pointers, _kept = _pointers(small)
    sizes = channels, layout.eps
    results = map(address, (folded, observed, moments))
    kernels().fold(*results, weights, *pointers, layout.numbers, *sizes)
    return folded, observed


def unfold(
    layout: FoldLayout,
    work: Tensor,
    moments: Tensor,
    small: SmallTensors,
    channels: int,
    pixels: int,
) -> list[Tensor]:
    """The gradients of all ``small`` tensors, from those of the matrices, diagonals and shifts.

    The buffer ``work`` begins with these. What follows in it is filled in: the matrices [full, out,
    in] and diagonals by which gradients are multiplied on the way back to the images; and matrices,
    diagonals and shifts that are the gradient of the images by way of their moments, over so many
    ``pixels``.
    """
    of_weights, of_norms = work.new_empty(layout.terms), work.new_empty(2, layout.normed, channels)
    of_pointwise = work.new_empty(layout.full, channels, channels, 1, 1)
    weights, *pointers, _kept = _pointers(small)
    sizes = channels, layout.eps, pixels
    results = map(address, (work, of_weights, of_pointwise, of_norms, moments))
    kernels().unfold(*results, weights, *pointers, layout.numbers, *sizes)
    return [
        of_weights,
        *of_pointwise.unbind(),
        *(of_norms.flatten(0, 1).unbind() if small.gains else ()),
    ]


def _pointers(small: SmallTensors) -> tuple[Any, ...]:
    """The four of ``small`` as the kernels read them, and last the tensors that are pointed to:
    they must live as long as the call.
    """
    weights, *rest = small
    weights = weights if weights is None else weights.contiguous()
    kept = [[one.contiguous() for one in some] for some in rest]
    return address(weights), *(addresses(some) if some else None for some in kept), (weights, kept)
