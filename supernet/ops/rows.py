"""Sums of small matrix products over the pixels of a batch, many in one call of the compiled kernels (``rows.c``).

An image batch is rows [n, C]. A matrix is [C, C], or a diagonal [C]. All rows of a sum are read, and its result is written, once.
Rows may be bfloat16, all of them: then they are multiplied as such (``half.h``), while matrices, starts and results are float32.
"""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from supernet.ops.native import half, library, numbers, places


class Sum(NamedTuple):
    """``start + shift + the sum of rows @ matrix over the terms``; ``start`` [n, C] may be missing. All are contiguous."""

    shift: Tensor
    terms: Sequence[tuple[Tensor, Tensor]]
    start: Tensor | None = None


def products(sums: Sequence[Sum], results: Sequence[Tensor] | None = None) -> Sequence[Tensor]:
    """Each of the sums [n, C], in ``results`` if there are such."""
    some = sums[0].terms[0][0]
    results = [torch.empty_like(some, dtype=torch.float32) for _ in sums] if results is None else results
    sizes = map(ctypes.c_long, (len(sums), *some.shape))
    with told(sums) as arguments:
        library().products(places(results), places([one.start for one in sums]), *arguments, *sizes, half(some))
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


def grams(some: Tensor, pairs: Sequence[tuple[Tensor | None, Tensor]], full: int, diagonal: int) -> tuple[Tensor, Tensor, Tensor]:
    """``left' right`` of pairs of rows such as ``some``: of the first ``full`` pairs, [full, C, C]; of the next only the
    ``diagonal``, [diagonal, C]; of the others, which have no left, the sum of right's rows, [rest, C].
    """
    channels = some.shape[1]
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
