"""How many operations a step gives to the device.

An accelerator waits for the host where a step is many small operations, so the number of launches
bounds its speed. It can be counted on any machine.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

EMPTY = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
VIEWS = ("_unsafe_view", "_reshape_alias", "lift_fresh")  # views that torch does not mark as such


class Counter(TorchDispatchMode):
    """Counts the operations inside the block that compute something: neither views nor allocations
    of memory. An operation on a list of tensors counts as one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        packet = operation.overloadpacket
        notes = operation.namespace == "profiler"  # an optimiser's marks for torch's profiler
        self.count += not (operation.is_view or notes or packet.__name__ in EMPTY + VIEWS)
        return operation(*args, **(kwargs or {}))


def launches(step: Callable[[], object]) -> int:
    """How many of torch's operations one call of ``step`` launches, in its forward and its backward
    pass and its optimiser. Kernels that are called past torch do not count.
    """
    with torch.autograd.set_multithreading_enabled(False), Counter() as counter:
        step()
    return counter.count
