"""Convolutions whose widths, kernel and groups can be choices."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.errors import UserError
from supernet.ops.fast.convolution import conv2d
from supernet.spaces.declared.choices import (
    Active,
    Size,
    active,
    cut,
    padded,
    possible,
    superposed,
)
from supernet.spaces.declared.layer import META, Elastic, Kept, Parts, filled, scaled


class Kernel(Elastic):
    """A layer whose kernel can be a choice.

    A smaller kernel is the centre of the largest one. With ``transform`` it is the centre of the
    next larger one, multiplied by a matrix that is learnt. The matrix is the same for all channels
    of the layer, and begins as the identity (Cai et al., ICLR 2020, section 3.2). In a mixture, the
    kernels are padded with zeros to the largest active one and added.
    """

    axes: ClassVar[int]  # how many axes a kernel has

    def prepare_kernel(self, padding: Any, dilation: int, transform: bool) -> None:
        kernel = self.sizes["kernel_size"]
        self.same = padding == "same"
        sizes = sorted({k for (k,) in possible(kernel)}) if isinstance(kernel, Size) else []
        if sizes and not self.same:
            raise UserError(
                f"elastic.{type(self).__name__}: kernel_size={kernel} with padding={padding}: the "
                'output would change its size; give padding="same"'
            )
        if any(size % 2 == 0 for size in sizes):
            raise UserError(
                f"elastic.{type(self).__name__}: kernel_size={kernel}: a smaller kernel is the "
                "centre of a larger one; give odd numbers"
            )
        self.steps = sizes if transform else []
        self.transforms = nn.ParameterDict(
            {str(size): torch.eye(size**self.axes) for size in self.steps[:-1]}
        )

    def pads(self, kernel: int) -> tuple[int, ...]:
        """The padding of a convolution with that kernel. "same" keeps the size of the input, except
        that it is divided by the stride.
        """
        if not self.same:
            return self.padding  # type: ignore[return-value]
        own = self.kernel_size if not isinstance(self.sizes["kernel_size"], Size) else None
        kernels = own or (kernel,) * self.axes
        return tuple(d * (k // 2) for d, k in zip(self.dilation, kernels, strict=True))  # type: ignore

    def kernels(self, weight: Tensor) -> tuple[Tensor, int]:
        """The kernels of ``weight`` as the present call has them, and how large they are."""
        size = self.sizes["kernel_size"]
        if not isinstance(size, Size):
            return weight, 0
        found = active(size)
        largest: int = max(one.values[0] for one in found)
        if not self.steps:
            weight = self.middle(weight, largest)
            if all(one.weight is None for one in found):
                return weight, largest
            blocks = [((one.values[0],) * self.axes, one.weight) for one in found]
            return weight * superposed(blocks, (largest,) * self.axes), largest
        made = self.transformed(weight, min(one.values[0] for one in found))
        shape = (*weight.shape[:2], *(largest,) * self.axes)
        total: Tensor | None = None
        for (kernel,), share in found:
            part = made[kernel] if share is None else made[kernel] * share
            part = padded(part, shape, 0.5)
            total = part if total is None else total + part
        assert total is not None
        return total, largest

    def middle(self, weight: Tensor, kernel: int) -> Tensor:
        edge = (weight.shape[-1] - kernel) // 2
        for axis in range(-self.axes, 0):
            weight = weight.narrow(axis, edge, kernel)
        return weight

    def transformed(self, weight: Tensor, least: int) -> dict[int, Tensor]:
        """Every kernel from the largest to the ``least``, each made from the next larger one."""
        made = {self.steps[-1]: weight}
        for kernel in reversed(self.steps[:-1]):
            if kernel < least:
                break
            inner = self.middle(weight, kernel)
            weight = (inner.flatten(2) @ self.transforms[str(kernel)]).reshape(inner.shape)
            made[kernel] = weight
        return made


class Convolution(Kernel):
    """A convolution. See :class:`torch.nn.Conv2d` for the arguments.

    ``in_channels``, ``out_channels``, ``kernel_size`` and ``groups`` can be choices, or be computed
    from choices. The layer reads as many channels as its input has. ``groups`` can follow the
    width: ``groups=width`` is depthwise, ``groups=width // 8`` has 8 channels in each group. The
    padding "same" keeps the size of the input, divided by the stride.

    Raises:
        UserError: sizes do not fit together.
    """

    function: ClassVar[Any]
    layer: ClassVar[type[nn.Module]]

    def __init__(
        self,
        in_channels: int | Size,
        out_channels: int | Size,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int | Size = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        transform: bool = False,
    ):
        _, widest, largest, _ = self.largest(
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=kernel_size,
            groups=groups,
        )
        layouts = possible(in_channels, out_channels, groups)
        for inputs, outputs, number in layouts:
            if inputs % number or outputs % number:
                raise UserError(
                    f"elastic.{type(self).__name__}: {number} groups do not divide {inputs} input "
                    f"and {outputs} output channels; let groups follow the width"
                )
        each = max(inputs // number for inputs, _, number in layouts)
        own = 0 if padding == "same" else padding
        # torch stores the weights of one group for each output: [outputs, inputs / groups, ...]
        super().__init__(each, widest, largest, stride, own, dilation, 1, bias, padding_mode)
        self.declare(
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=kernel_size,
            groups=groups,
        )
        self.prepare_kernel(padding, dilation, transform)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.reading(x.shape[-1 - self.axes])
        pads = parts.pop("padding")
        if self.padding_mode != "zeros":
            around = [n for pad in reversed(pads) for n in (pad, pad)]
            x, pads = F.pad(x, around, mode=self.padding_mode), (0,) * self.axes  # type: ignore
        function = type(self).function
        return function(x, **parts, stride=self.stride, padding=pads, dilation=self.dilation)

    def parts(self, read: int) -> Parts:
        own: Any = self
        sizes, weight = self.sizes, own.weight
        outputs, shares = cut(sizes["out_channels"])
        bias = None if own.bias is None else scaled(own.bias[:outputs], shares)
        groups = cut(sizes["groups"]).length
        if groups == 1:
            weight, kernel = self.kernels(weight[:outputs, :read])
            weight = scaled(weight, shares, share_of(sizes["in_channels"], read))
        else:
            weight, kernel, groups = self.grouped(weight[:outputs], shares, read, groups)
        return {
            "weight": weight,
            "bias": bias,
            "groups": groups,
            "padding": self.pads(kernel),
        }

    def grouped(
        self, weight: Tensor, shares: Tensor | None, read: int, groups: int
    ) -> tuple[Tensor, int, int]:
        """The weights, the kernel and the number of groups, of which there are at most
        ``groups``.
        """
        layouts = active(*(self.sizes[n] for n in ("in_channels", "out_channels", "groups")))
        if len(layouts) == 1:
            layouts = [Active((read, len(weight), groups), layouts[0].weight)]
        each = {(i // number, o // number) for (i, o, number), _ in layouts}
        if len(each) == 1:  # a wider layer has more groups of the same size
            weight, kernel = self.kernels(weight[:, : each.pop()[0]])
            return scaled(weight, shares), kernel, groups
        weight, kernel = self.kernels(weight)
        return self.without_groups(weight, layouts, read), kernel, 1

    def without_groups(self, weight: Tensor, layouts: list[Active], read: int) -> Tensor:
        """The superposition of weights that are divided into groups in different ways: each is
        written as the weights of one group, with zeros between the groups.
        """
        total: Tensor | None = None
        for (inputs, outputs, groups), share in layouts:
            blocks = weight[:outputs, : inputs // groups].chunk(groups)
            rows = []
            for number, block in enumerate(blocks):
                before = number * block.shape[1]
                after = read - before - block.shape[1]
                rows.append(F.pad(block, [0] * (2 * self.axes) + [before, after]))
            part = padded(torch.cat(rows), (len(weight), read, *weight.shape[2:]))
            part = part if share is None else part * share
            total = part if total is None else total + part
        assert total is not None
        return total

    def plain(self, read: int, kept: Kept) -> nn.Module:
        parts = self.parts(read)
        own: Any = self
        layer = type(self).layer(
            read,
            len(parts["weight"]),
            tuple(parts["weight"].shape[2:]),
            own.stride,
            parts["padding"],
            own.dilation,
            parts["groups"],
            own.bias is not None,
            own.padding_mode,
            device=META,
        )
        return filled(layer, kept, self, parts)


def share_of(size: Any, read: int) -> Tensor | None:
    """The shares of the channels that a layer reads, if it was told that their number is a choice
    (and the input has that many channels).
    """
    found = cut(size)
    return found.share if found.length == read else None


class Conv1d(Convolution, nn.Conv1d):
    """See :class:`Convolution`."""

    axes, function, layer = 1, staticmethod(F.conv1d), nn.Conv1d


class Conv2d(Convolution, nn.Conv2d):
    """See :class:`Convolution`."""

    axes, function, layer = 2, staticmethod(conv2d), nn.Conv2d


class ConvTranspose2d(Kernel, nn.ConvTranspose2d):
    """A transposed convolution. See :class:`torch.nn.ConvTranspose2d` for the arguments.

    The widths and the kernel can be choices. With a choice of kernels, the padding must be "same":
    then the output is as large as the input, multiplied by the stride.

    Raises:
        UserError: the padding does not fit the kernel.
    """

    axes = 2

    def __init__(
        self,
        in_channels: int | Size,
        out_channels: int | Size,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        bias: bool = True,
        dilation: Any = 1,
        transform: bool = False,
    ):
        own = 0 if padding == "same" else padding
        super().__init__(  # type: ignore[call-arg]
            *self.largest(
                in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size
            ),
            stride,
            own,
            0 if padding == "same" else output_padding,
            1,
            bias,
            dilation,
        )
        self.declare(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size)
        self.prepare_kernel(padding, dilation, transform)
        if self.same:
            self.output_padding = tuple(step - 1 for step in self.stride)

    def parts(self, read: int) -> Parts:
        outputs, shares = cut(self.sizes["out_channels"])
        weight, kernel = self.kernels(self.weight[:read, :outputs])
        weight = scaled(weight, share_of(self.sizes["in_channels"], read), shares)
        bias = None if self.bias is None else scaled(self.bias[:outputs], shares)
        return {"weight": weight, "bias": bias, "padding": self.pads(kernel)}

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.conv_transpose2d(
            x,
            **self.reading(x.shape[-3]),
            stride=self.stride,
            output_padding=self.output_padding,
            dilation=self.dilation,
        )

    def plain(self, read: int, kept: Kept) -> nn.Module:
        parts = self.parts(read)
        layer = nn.ConvTranspose2d(
            read,
            parts["weight"].shape[1],
            tuple(parts["weight"].shape[2:]),
            self.stride,  # type: ignore[arg-type]
            parts["padding"],
            self.output_padding,  # type: ignore[arg-type]
            1,
            self.bias is not None,
            self.dilation,  # type: ignore[arg-type]
            device=META,
        )
        return filled(layer, kept, self, parts)
