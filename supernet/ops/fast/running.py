"""The running statistics of many BatchNorms, moved at once."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def track(norms: Sequence[nn.BatchNorm2d], mean: Tensor, variance: Tensor, count: int) -> None:
    """Moves the running statistics of all ``norms`` towards ``mean`` and ``variance`` [K, C], which
    were taken over ``count`` pixels, as ``nn.BatchNorm2d`` does in training.
    """
    kept = [index for index, norm in enumerate(norms) if norm.track_running_stats]
    if not kept:
        return
    norms, variance = [norms[index] for index in kept], variance * (count / (count - 1))
    torch._foreach_add_([norm.num_batches_tracked for norm in norms], 1)
    if norms[0].momentum is None:  # a cumulative mean
        shares = [1.0 / float(norm.num_batches_tracked) for norm in norms]
    else:
        shares = [norm.momentum for norm in norms]
    for share in set(shares):
        chosen = [
            (index, norm)
            for index, norm, own in zip(kept, norms, shares, strict=True)
            if own == share
        ]
        for running, value in (("running_mean", mean), ("running_var", variance)):
            torch._foreach_lerp_(
                [getattr(norm, running) for _, norm in chosen],
                [value[index] for index, _ in chosen],
                share,
            )
