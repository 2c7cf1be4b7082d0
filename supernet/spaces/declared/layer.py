"""What all elastic layers have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from supernet.errors import UserError
from supernet.spaces.declared.choices import Size, binding, most, possible

Parts = dict[str, Any]  # tensors and numbers with which a layer is computed

# Makes the parameter of a plain layer: of an elastic parameter, and the part of it that is kept.
Kept = Callable[[nn.Parameter, Tensor], nn.Parameter]


class Elastic(nn.Module, ABC):
    """A layer of torch with sizes that can be choices. It owns the weights of its largest size.

    A subclass also derives from the layer of torch. On a path, it computes with a part of its
    weights, and costs what the plain layer of that size costs. In a mixture of sizes, it is
    computed once, with the sum of the parts, each multiplied by its weight (Sukthanker et al.,
    2023, TangleNAS: a single superposition of entangled weights).

    Attributes:
        sizes: name of an argument -> what was given for it.
    """

    sizes: dict[str, Any]

    def declare(self, **sizes: Any) -> None:
        """Keeps the sizes."""
        self.sizes = sizes

    @classmethod
    def largest(cls, **sizes: Any) -> list[Any]:
        """The largest value of each size. Sizes that are no choices are returned as they are.

        Raises:
            UserError: a choice has a value that is not a whole number of at least 1.
        """
        for name, size in sizes.items():
            for (value,) in possible(size) if isinstance(size, Size) else ():
                if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                    raise UserError(
                        f"elastic.{cls.__name__}: {name}={size}: {value!r} is no size; give whole "
                        "numbers of at least 1"
                    )
        return [most(size) if isinstance(size, Size) else size for size in sizes.values()]

    @abstractmethod
    def parts(self, read: int) -> Parts:
        """What the layer computes with in the present call, if its input has ``read`` channels."""

    @abstractmethod
    def plain(self, read: int, kept: Kept) -> nn.Module:
        """The layer of torch that the present path comes to, with the weights that it uses."""

    def reading(self, read: int) -> Parts:
        """The same as :meth:`parts`; the binding notes what was read."""
        now = binding()
        now.read[self], now.preparing = read, True
        parts = self.parts(read)
        now.preparing = False
        return parts


def scaled(tensor: Tensor, *shares: Tensor | None) -> Tensor:
    """A tensor multiplied by those ``shares`` that are not ``None``, one for each of its first
    axes.
    """
    for axis, share in enumerate(shares):
        if share is not None:
            shape = [1] * tensor.dim()
            shape[axis] = -1
            tensor = tensor * share.reshape(shape)
    return tensor


def filled(layer: nn.Module, kept: Kept, own: nn.Module, parts: Parts) -> nn.Module:
    """A plain ``layer``, made on the meta device, with the parameters of ``parts``. Parts without a
    parameter of that name in the elastic layer ``own`` are left out.
    """
    for name, value in parts.items():
        parameter = own._parameters.get(name)
        if parameter is not None and isinstance(value, Tensor):
            setattr(layer, name, kept(parameter, value))
    return layer.train(own.training)


META = torch.device("meta")
