"""Is there memory for the weights of a network? This is known before anything is allocated."""

from collections.abc import Callable

import torch
from torch import nn

from supernet.device import require_room
from supernet.errors import enough_memory
from supernet.runs.setup import Setup


def require_room_for_weights(
    setup: Setup, what: str, make: Callable[[], nn.Module], change: str
) -> None:
    """Raises a UserError if the weights and the gradients of the network that ``make`` returns are
    more than there is memory. Nothing is allocated.
    """
    _ = setup.data  # loaded before the block, because nothing in it has values
    with torch.device("meta"), enough_memory(what, change):
        network = make()
    held = sum(weight.numel() * weight.element_size() for weight in network.parameters())
    require_room(f"{what}, its weights with their gradients", 2 * held, setup.device, change)
