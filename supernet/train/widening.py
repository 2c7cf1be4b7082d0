"""Widening: copies the weights of a supernet into one whose operations read more channels.

DrNAS (Chen et al., ICLR 2021, section 3.3) starts a search with operations that read 1/K of the
channels, and lets them read more later. The weights are kept by the mapping of Net2WiderNet (Chen,
Goodfellow & Shlens, ICLR 2016):

- The old channels keep their places. Each new channel is a copy of a random old channel.
- A layer behind reads all copies of a channel. Its weights for them are its old weights for that
  channel, each multiplied by a share. The shares of the copies of one channel add up to one.

If the new input channels of an operation were copies too, its outputs would not change. In a
supernet they are not copies: they are other channels, which bypassed the operation before. The
outputs therefore change, as in the paper.

Departures:

- The shares of Net2WiderNet are equal. Here they differ. With equal shares the copies inside an
  operation (a separable convolution) would get the same gradients and stay equal for ever.
- The authors' code of DrNAS does not scale the weights that read copies; it leaves that to the
  BatchNorm behind. It draws new random channels for the second depthwise convolution, which then
  reads copies of some channels with the kernels of other channels. It also gives the outputs of a
  strided skip connection the statistics of other channels. Here all layers use the right channels.

As in the authors' code, momentum is copied without scaling. The learning rate continues on its one
cosine, which the authors' code intends as well. There, however, the second stage starts again at
the first learning rate under releases of torch whose cosine depends on the optimiser's rate.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn, optim

from supernet.ops import FactorizedReduce


class Copies(NamedTuple):
    """The ``m`` channels of a wider tensor, as copies of the channels of a narrower one.

    ``of`` [m] is the index of the old channel that each one copies. ``shares`` [m] is the factor
    for the weights that read each one.
    """

    of: Tensor
    shares: Tensor


class Source(NamedTuple):
    """How a wider tensor is made from a narrower one.

    ``rows`` are the old indices of axis 0, the channels that are written. ``columns`` are those of
    axis 1, the channels that are read; ``None`` for a tensor that reads one channel for each one
    that it writes.
    """

    rows: Tensor
    columns: Copies | None = None

    def copied(self, tensor: Tensor) -> Tensor:
        tensor = tensor[self.rows.to(tensor.device)]
        return tensor if self.columns is None else tensor[:, self.columns.of.to(tensor.device)]

    def shared(self, tensor: Tensor) -> Tensor:
        """As :meth:`copied`, with each column multiplied by its share."""
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
    """Copies the weights and buffers of the supernet ``old`` into ``new``, and widens its
    ``operations`` (names of modules).

    ``optimizer`` then holds the parameters of ``new``, with the momentum of ``old``.
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
        if momentum is not None:  # a weight that no path has used yet has no momentum
            optimizer.state[after] = {
                "momentum_buffer": sources[name].copied(momentum) if name in sources else momentum
            }
    (group,) = optimizer.param_groups
    group["params"] = list(new.parameters())


def sources_of(old: nn.Module, new: nn.Module, noise: torch.Generator) -> dict[str, Source]:
    """Name of each tensor of the operation ``new`` -> how it is made from that of the narrower
    ``old``.
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
        # two convolutions that read the same channels, and whose outputs are concatenated
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
        # A depthwise convolution of one channel has groups == 1 too. The new layer always has
        # several channels, so it tells whether the convolution is depthwise.
        if isinstance(layer, nn.Conv2d) and wider.groups == 1:
            written = copies(layer.out_channels, wider.out_channels, noise)
            sources[f"{name}weight"] = Source(written.of, read)
            read = written
        else:
            sources |= each_channel(name, layer, read.of)
    return sources


def each_channel(name: str, layer: nn.Module, of: Tensor) -> dict[str, Source]:
    """The sources of a layer that writes one channel for each channel that it reads: a depthwise
    convolution or BatchNorm. Channel i copies the old channel ``of[i]``.
    """
    return {f"{name}{key}": Source(of) for key, value in layer.state_dict().items() if value.dim()}


def channels_of(layer: nn.Conv2d | nn.BatchNorm2d) -> int:
    """The number of channels that the layer reads."""
    return layer.in_channels if isinstance(layer, nn.Conv2d) else layer.num_features


def copies(old: int, new: int, noise: torch.Generator) -> Copies:
    """``new`` channels as copies of ``old`` ones: first each old channel once, then random ones.

    Each share is drawn so that, of two copies of one channel, neither has a share below a quarter.
    """
    of = torch.cat([torch.arange(old), torch.randint(old, (new - old,), generator=noise)])
    parts = 0.5 + torch.rand(new, generator=noise, dtype=torch.float64)
    return Copies(of, parts / torch.zeros(old, dtype=parts.dtype).index_add(0, of, parts)[of])
