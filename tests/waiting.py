"""Shows where a step would wait for an accelerator, on a machine that has none.

On a CPU a number can be read at any time. On an accelerator the host must first wait until the
device has computed it. So some tensors are held to be on the device, and so is all that is computed
from them, until it is copied to the host.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Operations of which the host needs the result: a number, or the size of a result.
NUMBERS = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2"}
COPIES = ("cpu", "tolist", "numpy", "__array__")  # methods that a CPU does without an operation


class Held(TorchDispatchMode):
    """Follows the tensors on the pretended device. ``asked`` lists each time the host waits."""

    def __init__(self, tensors: Iterable[Tensor]):
        super().__init__()
        self.asked: list[str] = []
        self.storages: dict[int, Any] = {}  # kept alive, because addresses are used again
        for tensor in tensors:
            self.hold(tensor)

    def hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self.storages[storage._cdata] = storage

    def holds(self, value: Tensor) -> bool:
        return value.untyped_storage()._cdata in self.storages

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        if any(map(self.holds, tensors_in([args, kwargs]))):
            name = operation.overloadpacket.__name__
            masked = name.startswith("index") and any(
                one.dtype == torch.bool and self.holds(one) for one in tensors_in(args[1:2])
            )
            if name in NUMBERS or masked:
                self.asked.append(name)
            for one in tensors_in(result):
                self.hold(one)
        return result


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors among the arguments or the results of an operation."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(one)


@contextmanager
def held(tensors: Iterable[Tensor]) -> Iterator[Held]:
    """In the block, ``tensors`` and what is computed from them count as on the device."""
    mode, values = Held(tensors), Tensor.tolist

    def copying(name: str) -> Any:
        method = getattr(Tensor, name)

        def copied(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            if not mode.holds(tensor):
                return method(tensor, *args, **kwargs)
            mode.asked.append(name)
            if name == "cpu":  # another tensor, which is on the host
                return torch.tensor(values(tensor), dtype=tensor.dtype)
            return method(tensor, *args, **kwargs)

        return mock.patch.object(Tensor, name, copied)

    with ExitStack() as patches, mode:
        for name in COPIES:
            patches.enter_context(copying(name))
        yield mode
