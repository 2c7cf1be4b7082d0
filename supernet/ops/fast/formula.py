"""The sums of a combination (:mod:`supernet.ops.fast.combination`) in torch's operations.

This runs where there are no C kernels, and where a gradient is to be differentiated again.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from supernet.ops.fast.folding import Moments, SmallTensors, fold_by_torch
from supernet.ops.fast.running import track
from supernet.ops.fast.wiring import Wiring


def combined_by_torch(wiring: Wiring, small, sources, starts) -> Sequence[Tensor]:
    """The results of a combination, in rows [pixels, C]; it moves the running statistics."""
    run = formula
    if wiring.recompute:
        run = functools.partial(checkpoint, formula, use_reentrant=False, preserve_rng_state=False)
    sums, observed = run(wiring, small, sources)
    track(wiring.norms, *(table.detach() for table in observed), sums.shape[1])
    sums = [
        total if start is None else total + start
        for total, start in zip(sums.unbind(), starts, strict=True)
    ]
    return [torch.stack(sums)] if wiring.stacked else sums


def formula(wiring: Wiring, small, sources) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The sums [targets, pixels, C] without starts, and the means and variances that the norms see.

    It computes with few and wide operations, because some devices wait for each operation.
    """
    rows = [
        x if maker is None else maker.by_torch(x, weights).flatten(1, 3)
        for maker, (x, *weights) in zip(wiring.makers, sources, strict=True)
    ]
    pixels = rows[0].shape[1]
    whole, diagonal = (
        [rows[source] for source in dict.fromkeys(source for source, _ in images)]
        for images in (wiring.whole, wiring.diagonal)
    )
    none = rows[0][:0]
    moments = Moments(
        torch.cat([none.transpose(1, 2) @ none] + [z.transpose(1, 2) @ z / pixels for z in whole]),
        torch.cat([none.mean(dim=1)] + [z.square().mean(dim=1) for z in diagonal]),
        torch.cat([none.mean(dim=1)] + [z.mean(dim=1) for z in (*whole, *diagonal)]),
    )
    (matrices, diagonals, shifts), observed = fold_by_torch(
        wiring.layout, moments, SmallTensors.of(wiring.layout, small)
    )
    sums, full = shifts[:, None].expand(-1, pixels, -1), wiring.layout.full
    for source, start, end, images, targets in wiring.runs:
        z = rows[source] if images is None else rows[source][images]
        if end <= full:
            terms = z @ matrices[start:end]
        else:
            terms = z * diagonals[start - full : end - full, None]
        sums = sums.index_add(0, targets, terms)
    return sums, observed
