"""Sums of small matrix products over the pixels of a batch, many in one call.

An image batch is rows [n, C]. A matrix is [C, C], or a diagonal [C]. Rows may be bfloat16, all of them: then they are multiplied
as such (``half.h``), while matrices, starts and results are float32, or those that
are given. With the compiled kernels (``rows.c``) all rows of a sum are
read once and its result is written once; without them, or not ``native``, torch does one product after the other, differentiably.
"""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from supernet.ops.native import half, known, library, numbers, places


class Sum(NamedTuple):
    """``start + shift + the sum of rows @ matrix over the terms``; ``start`` [n, C] may be missing. All are contiguous."""

    shift: Tensor
    terms: Sequence[tuple[Tensor, Tensor]]
    start: Tensor | None = None


def products(sums: Sequence[Sum], results: Sequence[Tensor] | None = None, native: bool = True) -> Sequence[Tensor]:
    """Each of the sums [n, C], in ``results`` if there are such."""
    some = sums[0].terms[0][0]
    if not (native and known(some)):
        found = [_product(*one) for one in sums]
        return found if results is None else [place.copy_(total) for place, total in zip(results, found, strict=True)]
    results = [torch.empty_like(some, dtype=torch.float32) for _ in sums] if results is None else results
    sizes = map(ctypes.c_long, (len(sums), *some.shape))
    with told(sums) as arguments:
        library().products(places(results), places([one.start for one in sums]), *arguments, *sizes, half(some), half(results[0]))
    return results


@contextmanager
def told(sums: Sequence[Sum]) -> Iterator[tuple]:
    """All of sums but their starts as the kernels want it; inside, what they point to is there."""
    shifts = torch.stack([one.shift for one in sums])
    terms = [term for one in sums for term in one.terms]
    yield (
        ctypes.c_void_p(shifts.data_ptr()),
        numbers([0, *accumulate(len(one.terms) for one in sums)]),
        places([rows for rows, _ in terms]),
        places([matrix for _, matrix in terms]),
        numbers([int(matrix.dim() == 1) for _, matrix in terms]),
    )


def _product(shift: Tensor, terms: Sequence[tuple[Tensor, Tensor]], start: Tensor | None) -> Tensor:
    total = shift.expand_as(terms[0][0]) if start is None else start + shift
    total = total.clone()
    for rows, matrix in terms:
        rows = rows.to(matrix.dtype)
        total = total.addcmul_(rows, matrix.expand_as(rows)) if matrix.dim() == 1 else total.addmm_(rows, matrix)
    return total


def grams(
    some: Tensor, pairs: Sequence[tuple[Tensor | None, Tensor]], full: int, diagonal: int, native: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """``left' right`` of pairs of rows such as ``some``: of the first ``full`` pairs, [full, C, C]; of the next only the
    ``diagonal``, [diagonal, C]; of the others, which have no left, the sum of right's rows, [rest, C].
    """
    channels = some.shape[1]
    if native and known(some):
        shapes = (full, channels, channels), (diagonal, channels), (len(pairs) - full - diagonal, channels)
        results = tuple(some.new_empty(shape, dtype=torch.float32) for shape in shapes)
        library().grams(
            places([result for stack in results for result in stack.unbind()]),
            places([left for left, _ in pairs]),
            places([right for _, right in pairs]),
            numbers([0] * full + [1] * diagonal + [2] * shapes[2][0]),
            *map(ctypes.c_long, (len(pairs), *some.shape)),
            half(some),
        )
        return results

    def stacked(results: list[Tensor], *shape: int) -> Tensor:
        return torch.stack(results) if results else some.new_zeros(0, *shape, dtype=dtype)

    dtype = torch.float32 if some.dtype == torch.bfloat16 else some.dtype
    pairs = [(None if left is None else left.to(dtype), right.to(dtype)) for left, right in pairs]
    parts = pairs[:full], pairs[full : full + diagonal], pairs[full + diagonal :]
    return (
        stacked([left.t() @ right for left, right in parts[0]], channels, channels),
        stacked([(left * right).sum(dim=0) for left, right in parts[1]], channels),
        stacked([right.sum(dim=0) for _, right in parts[2]], channels),
    )
