"""Wider operations from narrow ones: how a search goes on when its partial channels read a larger
part.

DrNAS (Chen et al., ICLR 2021, section 3.3) begins with operations on one K-th of the channels and
later gives them more, keeping what they have learnt by the mapping of Net2WiderNet (Chen,
Goodfellow & Shlens, ICLR 2016): the channels that there were keep their places, each new one copies
one of them, drawn at random, and what reads a channel of which there are now several copies reads
each with a share; the shares add up to one. An operation whose new inputs are copies as well then
gives what it gave. In a supernet they are not: they are channels that passed the operation by
before, so that what it computes changes, as in the paper.

Departures. Net2WiderNet's shares are equal. Here they differ, because equal ones give the copies
inside an operation (a separable convolution) the same gradients, and they would stay copies for
good. The authors of DrNAS do not scale what reads copies, but leave that to the BatchNorm behind;
their code draws anew for the second depthwise convolution, which then reads copies of some channels
by the kernels of others, and gives the outputs of a strided skip the statistics of others. Momentum
is copied unscaled, as in that code. The learning rate goes on along its one cosine, as that code
means it to; under releases of torch whose cosine goes by the optimiser's rate, its second stage
begins with the first rate again.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn, optim

from supernet.ops import FactorizedReduce


class Copies(NamedTuple):
    """Of ``m`` channels: which old one each copies [m], and what share of the reading of that one
    it gets [m].
    """

    of: Tensor
    shares: Tensor


class Source(NamedTuple):
    """Where the values of a wider tensor come from: ``rows`` (axis 0), and ``columns`` (axis 1)
    where it reads several channels.
    """

    rows: Tensor
    columns: Copies | None = None

    def copied(self, tensor: Tensor) -> Tensor:
        tensor = tensor[self.rows.to(tensor.device)]
        return tensor if self.columns is None else tensor[:, self.columns.of.to(tensor.device)]

    def shared(self, tensor: Tensor) -> Tensor:
        """The same, with each column's share."""
        tensor = self.copied(tensor)
        return (
            tensor
            if self.columns is None
            else tensor * self.columns.shares.to(tensor)[:, None, None]
        )


def widen(
    old: nn.Module,
    new: nn.Module,
    operations: Iterable[str],
    optimizer: optim.SGD,
    noise: torch.Generator,
) -> None:
    """Gives ``new`` what ``old`` has learnt, the ``operations`` (names of modules) widened; the
    optimiser goes on with ``new``.
    """
    sources = {
        f"{name}.{key}": source
        for name in operations
        for key, source in sources_of(
            old.get_submodule(name), new.get_submodule(name), noise
        ).items()
    }
    new.load_state_dict(
        {
            k: sources[k].shared(value) if k in sources else value
            for k, value in old.state_dict().items()
        }
    )
    for (name, before), after in zip(old.named_parameters(), new.parameters(), strict=True):
        momentum = optimizer.state.pop(before, {}).get("momentum_buffer")
        if momentum is not None:  # what no path has run yet has none
            optimizer.state[after] = {
                "momentum_buffer": sources[name].copied(momentum) if name in sources else momentum
            }
    (group,) = optimizer.param_groups
    group["params"] = list(new.parameters())


def sources_of(old: nn.Module, new: nn.Module, noise: torch.Generator) -> dict[str, Source]:
    """Of each tensor of the operation ``new``, by its name, where in the narrower ``old`` it comes
    from.
    """
    layers: list[tuple[str, Any, Any]] = [  # name, the old layer, the new one
        (f"{name}.", layer, wider)
        for (name, layer), wider in zip(old.named_modules(), new.modules(), strict=True)
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)
    ]
    if not layers:
        return {}
    _, first, wider = layers[0]
    read = copies(channels_of(first), channels_of(wider), noise)
    if isinstance(old, FactorizedReduce):
        # two convolutions side by side, their outputs one behind the other
        (even, one, wide_one), (odd, other, wide_other), (norm, statistics, _) = layers
        left, right = (
            copies(a.out_channels, b.out_channels, noise)
            for a, b in ((one, wide_one), (other, wide_other))
        )
        joined = torch.cat([left.of, one.out_channels + right.of])
        convolutions = {
            f"{even}weight": Source(left.of, read),
            f"{odd}weight": Source(right.of, read),
        }
        return convolutions | each_channel(norm, statistics, joined)
    sources: dict[str, Source] = {}
    for name, layer, wider in layers:
        # of one channel, the old one cannot tell whether it is depthwise: the new one can
        if isinstance(layer, nn.Conv2d) and wider.groups == 1:
            written = copies(layer.out_channels, wider.out_channels, noise)
            sources[f"{name}weight"] = Source(written.of, read)
            read = written
        else:
            sources |= each_channel(name, layer, read.of)
    return sources


def each_channel(name: str, layer: nn.Module, of: Tensor) -> dict[str, Source]:
    """Of a layer that has a channel out for each channel in."""
    return {f"{name}{key}": Source(of) for key, value in layer.state_dict().items() if value.dim()}


def channels_of(layer: nn.Conv2d | nn.BatchNorm2d) -> int:
    """How many it reads."""
    return layer.in_channels if isinstance(layer, nn.Conv2d) else layer.num_features


def copies(old: int, new: int, noise: torch.Generator) -> Copies:
    """``new`` channels for ``old`` ones: these first, then random ones of them; of two copies none
    has less than a quarter.
    """
    of = torch.cat([torch.arange(old), torch.randint(old, (new - old,), generator=noise)])
    parts = 0.5 + torch.rand(new, generator=noise, dtype=torch.float64)
    return Copies(of, parts / torch.zeros(old, dtype=parts.dtype).index_add(0, of, parts)[of])
