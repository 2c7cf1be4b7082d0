"""Named, seeded random generators: the only source of chance in a run, and part of every
checkpoint.
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
    """Generators by name, all derived from one seed, each made when it is first asked for.

    A name always gets the same sequence, whoever asks first, so that a new consumer of random
    numbers does not change those of the others. Decisions on the host (paths, splits, orders) come
    from ``host`` generators, which never wait for a device. Tensors of noise come from ``tensor``
    generators, which live on the device that uses them.

    A ``scope``, such as ``supernet/1``, stands before every name: streams of one seed and two
    scopes are independent of each other.
    """

    def __init__(self, seed: int, scope: str = ""):
        self.seed, self.scope = seed, scope
        self._host: dict[str, np.random.Generator] = {}
        self._tensor: dict[str, torch.Generator] = {}

    def _derived(self, name: str) -> int:
        scoped = f"{self.scope}/{name}" if self.scope else name
        return int(
            np.random.SeedSequence([self.seed, zlib.crc32(scoped.encode())]).generate_state(
                1, np.uint64
            )[0]
            >> 1
        )

    def restarted(self) -> "Streams":
        """The streams of the same seed and scope, all at their beginning."""
        return Streams(self.seed, self.scope)

    def host(self, name: str) -> np.random.Generator:
        """The numpy generator of that name."""
        if name not in self._host:
            self._host[name] = np.random.Generator(np.random.PCG64(self._derived(name)))
        return self._host[name]

    def tensor(self, name: str, device: torch.device | str = "cpu") -> torch.Generator:
        """The torch generator of that name on that device."""
        key = f"{name}@{torch.device(device).type}"
        if key not in self._tensor:
            self._tensor[key] = torch.Generator(device).manual_seed(self._derived(name))
        return self._tensor[key]

    @contextmanager
    def initialising(self, name: str) -> Iterator[None]:
        """Torch's modules draw their first weights from its global generator: seeded inside this
        block, restored after.
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
        """Every generator goes on where it was. Those of a device that is not here are left out: a
        run that has moved to another machine goes on, though no longer to the same bits.
        """
        self.seed, self.scope = state["seed"], state["scope"]
        for name, value in state["host"].items():
            self.host(name).bit_generator.state = value
        for key, value in state["tensor"].items():
            name, _, kind = key.rpartition("@")
            if present(kind):
                self.tensor(name, kind).set_state(value)


def gumbel(table: Tensor, noise: torch.Generator) -> Tensor:
    """Standard Gumbel noise of the shape, type and device of ``table``, drawn on the host:
    ``-log(E)`` of exponential E.
    """
    drawn = torch.empty(table.shape, dtype=table.dtype).exponential_(generator=noise)
    return -drawn.clamp_min(torch.finfo(table.dtype).tiny).log().to(table.device)


def concrete(table: Tensor, temperature: float, noise: torch.Generator) -> Tensor:
    """A draw of the concrete distribution of logits ``table``: ``softmax((log p + Gumbel noise) /
    temperature)``, row by row.
    """
    return torch.softmax(
        (torch.log_softmax(table, dim=-1) + gumbel(table, noise)) / temperature, dim=-1
    )
