"""Normalisations of as many channels as their input has."""

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from supernet.errors import UserError
from supernet.spaces.declared.choices import Active, Size, active, padded, possible
from supernet.spaces.declared.convolutions import share_of
from supernet.spaces.declared.layer import META, Elastic, Kept, Parts, filled, scaled

STATISTICS = ("running_mean", "running_var")


class BatchNorm(Elastic):
    """BatchNorm. See :class:`torch.nn.BatchNorm2d` for the arguments.

    ``num_features`` can be a choice. A narrower layer uses the first channels, also of the running
    statistics, and updates those alone. In a mixture, each channel is normalised once, and its
    output is multiplied by the share of the mixture that has it.
    """

    layer: ClassVar[type[nn.Module]]

    def __init__(
        self,
        num_features: int | Size,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
    ):
        super().__init__(*self.largest(num_features=num_features), eps, momentum, affine)
        self.declare(num_features=num_features)

    def parts(self, read: int) -> Parts:
        own: Any = self
        found = {name: getattr(own, name)[:read] for name in STATISTICS}
        if own.affine:
            share = share_of(self.sizes["num_features"], read)
            found["weight"] = scaled(own.weight[:read], share)
            found["bias"] = scaled(own.bias[:read], share)
        return found

    def forward(self, x: Tensor) -> Tensor:
        own: Any = self
        read = x.shape[1]
        parts = self.reading(read)
        keeps = own.training and own.track_running_stats
        momentum = own.momentum
        if keeps:
            own.num_batches_tracked.add_(1)
            if momentum is None:
                momentum = 1.0 / float(own.num_batches_tracked)
        if own.training and not keeps:
            parts |= dict.fromkeys(STATISTICS)
        x = F.batch_norm(x, **parts, training=own.training, momentum=momentum or 0.0, eps=own.eps)
        if own.affine:
            return x
        share = share_of(self.sizes["num_features"], read)
        return x if share is None else x * share.reshape(-1, *[1] * (x.dim() - 2))

    def plain(self, read: int, kept: Kept) -> nn.Module:
        own: Any = self
        layer: Any = type(self).layer(read, own.eps, own.momentum, own.affine, device=META)
        parts = self.parts(read)
        for name in STATISTICS:
            setattr(layer, name, parts[name].detach().clone())
        layer.num_batches_tracked = own.num_batches_tracked.detach().clone()
        return filled(layer, kept, self, parts)


class BatchNorm1d(BatchNorm, nn.BatchNorm1d):
    """See :class:`BatchNorm`."""

    layer = nn.BatchNorm1d


class BatchNorm2d(BatchNorm, nn.BatchNorm2d):
    """See :class:`BatchNorm`."""

    layer = nn.BatchNorm2d


def each_width(found: list[Active], read: int) -> list[Active]:
    """The active widths of an input of ``read`` channels. If only one is active, it is ``read``."""
    return [Active((read, *found[0].values[1:]), found[0].weight)] if len(found) == 1 else found


class LayerNorm(Elastic, nn.LayerNorm):
    """LayerNorm over the last axis. See :class:`torch.nn.LayerNorm` for the arguments.

    ``normalized_shape`` can be a choice. In a mixture, the mean and the variance differ between
    widths. Therefore the input is normalised at each active width, and the outputs are added, each
    multiplied by its weight.
    """

    def __init__(
        self,
        normalized_shape: int | Size,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ):
        super().__init__(  # type: ignore[call-arg]
            *self.largest(normalized_shape=normalized_shape), eps, elementwise_affine, bias
        )
        self.declare(normalized_shape=normalized_shape)

    def parts(self, read: int) -> Parts:
        return {
            name: None if getattr(self, name) is None else getattr(self, name)[:read]
            for name in ("weight", "bias")
        }

    def forward(self, x: Tensor) -> Tensor:
        self.reading(x.shape[-1])
        total: Tensor | None = None
        for (width,), share in each_width(active(self.sizes["normalized_shape"]), x.shape[-1]):
            part = F.layer_norm(x[..., :width], (width,), **self.parts(width), eps=self.eps)
            part = padded(part if share is None else part * share, tuple(x.shape))
            total = part if total is None else total + part
        assert total is not None
        return total

    def plain(self, read: int, kept: Kept) -> nn.Module:
        layer = nn.LayerNorm(
            read, self.eps, self.elementwise_affine, self.bias is not None, device=META
        )
        return filled(layer, kept, self, self.parts(read))


class GroupNorm(Elastic, nn.GroupNorm):
    """GroupNorm. See :class:`torch.nn.GroupNorm` for the arguments.

    ``num_groups`` and ``num_channels`` can be choices; the groups can follow the width, as in
    ``width // 8``. In a mixture, the input is normalised at each active width, and the outputs are
    added, each multiplied by its weight.
    """

    def __init__(
        self,
        num_groups: int | Size,
        num_channels: int | Size,
        eps: float = 1e-5,
        affine: bool = True,
    ):
        _, widest = self.largest(num_groups=num_groups, num_channels=num_channels)
        for groups, channels in possible(num_groups, num_channels):
            require_divides("GroupNorm", groups, channels)
        super().__init__(1, widest, eps, affine)
        self.declare(num_groups=num_groups, num_channels=num_channels)

    def parts(self, read: int) -> Parts:
        if not self.affine:
            return {"weight": None, "bias": None}
        return {"weight": self.weight[:read], "bias": self.bias[:read]}

    def layouts(self, read: int) -> list[Active]:
        """The active pairs of a number of channels and a number of groups."""
        return each_width(active(self.sizes["num_channels"], self.sizes["num_groups"]), read)

    def forward(self, x: Tensor) -> Tensor:
        self.reading(x.shape[1])
        total: Tensor | None = None
        for (width, groups), share in self.layouts(x.shape[1]):
            part = F.group_norm(x[:, :width], groups, **self.parts(width), eps=self.eps)
            part = padded(part if share is None else part * share, tuple(x.shape))
            total = part if total is None else total + part
        assert total is not None
        return total

    def plain(self, read: int, kept: Kept) -> nn.Module:
        ((_, groups), _), *_ = self.layouts(read)
        layer = nn.GroupNorm(groups, read, self.eps, self.affine, device=META)
        return filled(layer, kept, self, self.parts(read))


def require_divides(layer: str, groups: int, channels: int) -> None:
    """Raises a UserError unless the groups have the same number of channels each."""
    if channels % groups:
        raise UserError(
            f"elastic.{layer}: {groups} groups do not divide {channels} channels; let the number "
            "of groups follow the width, as in width // 8"
        )
