"""Sums of products of rows and small matrices, as a sum that is linear in each of its tensors
(:mod:`supernet.ops.fast.multilinear`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from supernet.ops.fast.rows import FLOAT, Grams, Terms, products


class Products:
    """The sum, over terms, of ``gradient[target] * (rows[source] @ matrix)``, of four tensors: the
    gradients [targets, n, C], the rows [sources, n, C], the matrices [F, C, C] of the first terms,
    and the diagonals [D, C] of the others.

    ``terms`` are pairs (target, source). The first ``full`` have a matrix.
    """

    def __init__(
        self,
        terms: Sequence[tuple[int, int]],
        full: int,
        targets: int,
        sources: int,
        channels: int,
    ):
        square = channels * channels
        offsets = [
            t * square if t < full else full * square + (t - full) * channels
            for t in range(len(terms))
        ]
        each = list(zip(terms, offsets, strict=True))
        self.targets, self.sources, self.channels = targets, sources, channels
        self.shapes = (full, channels, channels), (len(terms) - full, channels)
        self.forward = Terms(
            [
                [((0, s), at, t < full) for t, ((to, s), at) in enumerate(each) if to == target]
                for target in range(targets)
            ]
        )
        self.back = Terms(
            [
                [((0, to), at, t < full) for t, ((to, s), at) in enumerate(each) if s == source]
                for source in range(sources)
            ]
        )
        self.matrices, self.diagonals = (
            Grams([((0, s), (1, to), at - begin, kind) for (to, s), at in some])
            for some, begin, kind in (
                (each[:full], 0, "full"),
                (each[full:], full * square, "diagonal"),
            )
        )

    def derivative(
        self, which: int, gradient: Tensor, rows: Tensor, matrices: Tensor, diagonals: Tensor
    ) -> Tensor:
        given = gradient.contiguous() if which else gradient
        rows = rows.contiguous() if which != 1 else rows
        some = rows if which == 0 else given
        n, size = some.shape[1], FLOAT * some[0].numel()
        if which >= 2:
            result = some.new_empty(self.shapes[which - 2])
            grams = self.matrices if which == 2 else self.diagonals
            grams.run([rows.data_ptr(), given.data_ptr()], size, result, n, self.channels, 0)
            return result
        turned = matrices if which == 0 else matrices.transpose(1, 2)
        table = torch.cat([turned.flatten(), diagonals.flatten()])
        terms = self.forward if which == 0 else self.back
        result = some.new_empty(self.targets if which == 0 else self.sources, n, self.channels)
        shifts = some.new_zeros(len(result) * self.channels)
        arguments = terms.at([some.data_ptr()], size, table.data_ptr())
        products(result.unbind(), (), shifts.data_ptr(), arguments, n, self.channels, 0)
        return result
