"""Sums of products of pixels and small matrices, many sums in one call of the C++ kernels
(``rows.cpp``).

Here an image batch is a matrix of *rows* [n, C]: n pixels of C channels. It is multiplied by
matrices [C, C], or by diagonal matrices of which only the diagonal [C] is stored. A kernel reads
all rows of a sum once, and writes the result once. The rows may be bfloat16, if all of them are;
then they are multiplied in bfloat16 (``half.h``), while matrices and results of sums are float32.
"""

from collections.abc import Sequence
from itertools import accumulate

from torch import Tensor

from supernet.ops.fast.native import (
    Addresses,
    AddressTable,
    Numbers,
    addresses,
    is_bfloat16,
    kernels,
    numbers,
)

Image = tuple[int, int]  # (which, k): block k of one of several arrays; see AddressTable
# What a kernel is given of sums of terms; and of sums of terms and shifts, whose address is first.
TermArguments = tuple[Numbers, Addresses, Addresses, Numbers]
SumArguments = tuple[int, Numbers, Addresses, Addresses, Numbers]
FLOAT = 4  # bytes
GRAMS = "full", "diagonal", "sum"  # in the order of the numbers that the kernels know them by


class Terms:
    """Some sums of terms ``rows @ matrix``.

    A term is (image, offset, full): the image whose pixels are the rows, where in a buffer of
    float32 its matrix begins, and whether that is a full matrix or a diagonal.
    """

    def __init__(self, sums: Sequence[Sequence[tuple[Image, int, bool]]]):
        terms = [term for terms in sums for term in terms]
        self.first = numbers([0, *accumulate(map(len, sums))])
        self.rows = AddressTable([image for image, *_ in terms])
        self.matrices = AddressTable([(0, offset) for _, offset, _ in terms])
        self.diagonal = numbers([int(not full) for *_, full in terms])

    def at(self, starts: Sequence[int], size: int, buffer: int) -> TermArguments:
        """The arguments of a kernel. ``starts`` are the addresses of the arrays that the images are
        in, ``size`` is the number of bytes of an image, ``buffer`` the address of the matrices.
        """
        rows, matrices = self.rows.at(starts, size), self.matrices.at([buffer], FLOAT)
        return self.first, rows, matrices, self.diagonal


class Grams:
    """Some products ``left.T @ right`` of the rows of two images.

    A gram is (left, right, offset, kind). The kind is "full" [C, C], its "diagonal" [C] alone, or,
    with ``None`` for left, the "sum" of the rows of right [C]. The offset is the place of the
    result in a buffer of float32.
    """

    def __init__(self, grams: Sequence[tuple[Image | None, Image, int, str]]):
        lefts, rights, offsets, kinds = zip(*grams, strict=True) if grams else ((),) * 4
        self.lefts, self.rights = AddressTable(lefts), AddressTable(rights)
        self.results = AddressTable([(0, offset) for offset in offsets])
        self.kinds = numbers([GRAMS.index(kind) for kind in kinds])

    def run(
        self,
        starts: Sequence[int],
        size: int,
        buffer: Tensor,
        *sizes: int,
        factor: float = 1.0,
    ) -> None:
        """Writes all results, times ``factor``, into the ``buffer``. ``starts`` and ``size`` as
        above; ``sizes`` are the number of rows, of channels, and whether the rows are bfloat16.
        """
        if len(self.kinds):
            lefts, rights = self.lefts.at(starts, size), self.rights.at(starts, size)
            results = self.results.at([buffer.data_ptr()], FLOAT)
            count = len(self.kinds)
            kernels().grams(results, lefts, rights, self.kinds, count, factor, *sizes)


def products(
    results: Sequence[Tensor],
    starts: Sequence[Tensor | None],
    shifts: int,
    terms: TermArguments,
    *sizes: int,
) -> None:
    """Fills each result [n, C] with its start [n, C], plus its shift [C], plus the sum of its
    terms.

    ``starts`` may be empty, or hold ``None`` where there is none. ``shifts`` is the address of all
    shifts. ``terms`` is what :meth:`Terms.at` gives, ``sizes`` as above. Results may be bfloat16.
    """
    begun, count = addresses(starts or [None] * len(results)), len(results)
    kernels().products(
        addresses(results),
        begun,
        shifts,
        *terms,
        count,
        *sizes,
        is_bfloat16(results[0]),
    )
