"""Named, seeded random generators.

All random numbers of a run come from them, and their state is part of every checkpoint.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supernet.device import present


class Streams:
    """Random generators by name, all derived from one seed. Each is made when it is first used.

    The sequence of a generator depends only on the seed, the scope and its name, not on the order
    in which generators are made. New code that uses a new name therefore does not change the random
    numbers of other code. ``host`` generators make decisions on the host (paths, splits, orders)
    and never wait for the device. ``tensor`` generators fill tensors with noise and are on the
    device that uses them.

    ``scope``, such as ``supernet/1``, is put before every name. Streams with the same seed and
    different scopes are independent of each other.
    """

    def __init__(self, seed: int, scope: str = ""):
        self.seed, self.scope = seed, scope
        self._host: dict[str, np.random.Generator] = {}
        self._tensor: dict[str, torch.Generator] = {}

    def _derived(self, name: str) -> int:
        """The seed of the generator ``name``: a whole number of 63 bits."""
        scoped = f"{self.scope}/{name}" if self.scope else name
        return int(
            np.random.SeedSequence([self.seed, zlib.crc32(scoped.encode())]).generate_state(
                1, np.uint64
            )[0]
            >> 1
        )

    def restarted(self) -> "Streams":
        """New streams with the same seed and scope, in which every generator starts again."""
        return Streams(self.seed, self.scope)

    def host(self, name: str) -> np.random.Generator:
        """The numpy generator ``name``."""
        if name not in self._host:
            self._host[name] = np.random.Generator(np.random.PCG64(self._derived(name)))
        return self._host[name]

    def tensor(self, name: str, device: torch.device | str = "cpu") -> torch.Generator:
        """The torch generator ``name`` on ``device``."""
        key = f"{name}@{torch.device(device).type}"
        if key not in self._tensor:
            self._tensor[key] = torch.Generator(device).manual_seed(self._derived(name))
        return self._tensor[key]

    @contextmanager
    def initialising(self, name: str) -> Iterator[None]:
        """Seeds torch's global generator inside the block and restores it afterwards.

        The modules of torch draw their initial weights from the global generator.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._derived(name))
            yield

    def state_dict(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "scope": self.scope,
            "host": {name: generator.bit_generator.state for name, generator in self._host.items()},
            "tensor": {name: generator.get_state() for name, generator in self._tensor.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of :meth:`state_dict`.

        Generators on a device that this machine does not have are ignored. A run that was moved to
        another machine can thus continue, but its results then have other bits.
        """
        self.seed, self.scope = state["seed"], state["scope"]
        for name, value in state["host"].items():
            self.host(name).bit_generator.state = value
        for key, value in state["tensor"].items():
            name, _, kind = key.rpartition("@")
            if present(kind):
                self.tensor(name, kind).set_state(value)


def gumbel(table: Tensor, noise: torch.Generator) -> Tensor:
    """Standard Gumbel noise with the shape, dtype and device of ``table``.

    It is ``-log(E)`` with E exponentially distributed, drawn on the host.
    """
    drawn = torch.empty(table.shape, dtype=table.dtype).exponential_(generator=noise)
    return -drawn.clamp_min(torch.finfo(table.dtype).tiny).log().to(table.device)


def concrete(table: Tensor, temperature: float, noise: torch.Generator) -> Tensor:
    """A sample of the concrete distribution with the logits ``table`` [slots, options].

    Each row is ``softmax((log p + Gumbel noise) / temperature)``, where p is the softmax of the
    row's logits.
    """
    return torch.softmax(
        (torch.log_softmax(table, dim=-1) + gumbel(table, noise)) / temperature, dim=-1
    )
