"""Sums of small matrix products over the pixels of a batch, many in one call of the compiled
kernels (``rows.c``).

An image batch is rows [n, C]. A matrix is [C, C], or a diagonal [C]. All rows of a sum are read,
and its result is written, once. Rows may be bfloat16, all of them: then they are multiplied as such
(``half.h``), while matrices and starts are float32.
"""

import ctypes
from collections.abc import Sequence
from itertools import accumulate

from torch import Tensor

from supernet.ops.native import Addresses, half, library, numbers, places

Image = tuple[int, int]  # the k-th of those that begin at one of several addresses
FLOAT = 4  # bytes
KINDS = "full", "diagonal", "sum"


class Terms:
    """Some sums over terms ``rows @ matrix``: of each term its image, where in a buffer of float32
    its matrix begins, and whether that is full or a diagonal.
    """

    def __init__(self, sums: Sequence[Sequence[tuple[Image, int, bool]]]):
        terms = [term for terms in sums for term in terms]
        self.first = numbers([0, *accumulate(map(len, sums))])
        self.rows = Addresses([image for image, *_ in terms])
        self.matrices = Addresses([(0, offset) for _, offset, _ in terms])
        self.kinds = numbers([int(not full) for *_, full in terms])

    def at(self, bases: Sequence[int], step: int, buffer: int) -> tuple[ctypes.Array, ...]:
        """As the kernels want it: images of ``step`` bytes begin at ``bases``, and the buffer at
        the last.
        """
        return self.first, self.rows.at(bases, step), self.matrices.at([buffer], FLOAT), self.kinds


class Grams:
    """Products ``left' right`` of images, each of a kind: ``full`` [C, C], only its ``diagonal``
    [C], or, there being no left, the ``sum`` of right's rows [C]; and where in a buffer of float32
    they go.
    """

    def __init__(self, grams: Sequence[tuple[Image | None, Image, int, str]]):
        lefts, rights, offsets, kinds = zip(*grams, strict=True) if grams else ((),) * 4
        self.lefts, self.rights = Addresses(lefts), Addresses(rights)
        self.results = Addresses([(0, offset) for offset in offsets])
        self.kinds = numbers([KINDS.index(kind) for kind in kinds])

    def run(
        self,
        bases: Sequence[int],
        step: int,
        buffer: Tensor,
        *sizes: ctypes._SimpleCData,
        factor: float = 1.0,
    ) -> None:
        """Fills them in, times ``factor``. ``sizes``: rows, channels, whether rows are bfloat16."""
        if len(self.kinds):
            left, right, results = (
                self.lefts.at(bases, step),
                self.rights.at(bases, step),
                self.results.at([buffer.data_ptr()], FLOAT),
            )
            count = ctypes.c_long(len(self.kinds))
            library().grams(results, left, right, self.kinds, count, ctypes.c_float(factor), *sizes)


def products(
    results: Sequence[Tensor],
    starts: Sequence[Tensor | None],
    shifts: int,
    terms: tuple,
    *sizes: ctypes._SimpleCData,
) -> None:
    """Fills in ``start + shift + the sum of the terms``, [n, C] each; ``starts`` may be missing,
    ``shifts`` is where they lie.

    The results may be bfloat16. ``sizes``: rows, channels, whether rows are bfloat16.
    """
    begun, count = places(starts or [None] * len(results)), ctypes.c_long(len(results))
    library().products(
        places(results), begun, ctypes.c_void_p(shifts), *terms, count, *sizes, half(results[0])
    )
