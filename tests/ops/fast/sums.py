"""Sums of products and grams of tensors at any address, for the kernels of
:mod:`supernet.ops.fast.rows`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from supernet.ops.fast.native import found_compiler, is_bfloat16
from supernet.ops.fast.rows import GRAMS, Grams, Terms
from supernet.ops.fast.rows import products as kernel

# Where there is a compiler that fails, the tests of the kernels fail, and are not skipped.
compiled = pytest.mark.skipif(
    found_compiler() is None, reason="no C++ compiler, or SUPERNET_NATIVE=0"
)


class Sum(NamedTuple):
    """``start + shift + the sum of rows @ matrix over the terms``. ``start`` [n, C] may be missing.
    All tensors are contiguous.
    """

    shift: Tensor
    terms: Sequence[tuple[Tensor, Tensor]]
    start: Tensor | None = None


@contextmanager
def arguments_of(sums: Sequence[Sum]) -> Iterator[tuple]:
    """The arguments for the ``backward`` of depthwise convolutions and poolings: the sums without
    their starts. The memory is valid as long as the context.
    """
    rows = [rows for one in sums for rows, _ in one.terms]
    matrices = [matrix for one in sums for _, matrix in one.terms]
    table = torch.cat([matrix.flatten() for matrix in matrices] + [one.shift for one in sums])
    ends = [0, *torch.tensor([matrix.numel() for matrix in matrices]).cumsum(0).tolist()]
    terms, t = [], 0
    for one in sums:
        terms.append(
            [
                ((t + k, 0), ends[t + k], matrix.dim() == 2)
                for k, (_, matrix) in enumerate(one.terms)
            ]
        )
        t += len(one.terms)
    start = table.data_ptr()
    arguments = Terms(terms).at([one.data_ptr() for one in rows], 0, start)
    yield (start + 4 * ends[-1], *arguments), is_bfloat16(rows[0])


def sizes(some: Tensor) -> tuple:
    """The sizes of rows, in the form that the kernels take."""
    return *some.shape, is_bfloat16(some)


def products(sums: Sequence[Sum], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """The results of the sums, in ``dtype``."""
    some = sums[0].terms[0][0]
    results = [torch.full(some.shape, torch.nan, dtype=dtype) for _ in sums]
    with arguments_of(sums) as ((shifts, *terms), _):
        kernel(results, [one.start for one in sums], shifts, terms, *sizes(some))
    return results


def grams(
    pairs: Sequence[tuple[Tensor | None, Tensor]], kinds: Sequence[str], factor: float = 1.0
) -> list[Tensor]:
    """The gram of each pair (left, right), of the given kind, times ``factor``."""
    assert set(kinds) <= set(GRAMS)
    some, channels = pairs[0][1], pairs[0][1].shape[1]
    lengths = [channels**2 if kind == "full" else channels for kind in kinds]
    ends = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    tensors = [tensor for pair in pairs for tensor in pair]
    items = [
        (None if left is None else (2 * k, 0), (2 * k + 1, 0), end, kind)
        for k, ((left, _), end, kind) in enumerate(zip(pairs, ends[:-1], kinds, strict=True))
    ]
    buffer = torch.full((ends[-1],), torch.nan)
    bases = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
    Grams(items).run(bases, 0, buffer, *sizes(some), factor=factor)
    parts = buffer.split(lengths)
    return [
        part.view(channels, channels) if kind == "full" else part
        for part, kind in zip(parts, kinds, strict=True)
    ]
