"""What an architecture costs, as a sum over its choices: exact for parameters and multiply-adds, a
model for latency.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from supernet.mixture import Architecture, Choice, Mixture
from supernet.spaces.space import Space


@dataclass(frozen=True)
class CostTable:
    """``fixed`` is what every network of the space costs, ``options[group]`` (float64 [slots,
    options]) what each choice adds.
    """

    space: Space
    fixed: float
    options: dict[str, Tensor]

    def of(self, architecture: Architecture) -> float:
        """The cost of an architecture."""
        total = self.fixed
        for name, choice in self.space.path(architecture).items():
            total += sum(
                row[option] for row, (option,) in zip(self._rows[name], choice.active, strict=True)
            )
        return total

    @cached_property
    def _rows(self) -> dict[str, list[list[float]]]:
        """The same numbers as ``options``, which are looked up thirty times as fast: budgets draw
        thousands of architectures.
        """
        return {name: table.tolist() for name, table in self.options.items()}

    def expected(self, mixture: Mixture) -> Tensor:
        """The mean cost of architectures drawn by a dense mixture, differentiable in its weights
        (Cai et al., ICLR 2019, eq. 8).

        A slot counts as often as the space keeps it (:meth:`Space.presence`): in DARTS's cells 2 of
        a node's in-edges.
        """
        total = torch.zeros(())
        for name, choice in mixture.items():
            table = self.options[name] * self.space.presence(name)[:, None]
            total = total + (choice.weights * table.to(choice.weights)).sum()
        return total + self.fixed


def counted(space: Space, classes: int, input_shape: tuple[int, int, int]) -> dict[str, CostTable]:
    """The tables of ``params`` and ``madds`` (multiply-adds an image, as
    :func:`supernet.cost.count.count` has them).
    """
    with torch.device("meta"):
        network = space.supernet(classes, input_shape[0], phase="evaluation").eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.empty(1, *input_shape), everything(space))
    flops = counter.get_flop_counts()
    root = type(network).__name__

    def params(name: str, module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters(recurse=False))

    def madds(
        name: str, module: nn.Module
    ) -> int:  # of leaves: the counter books a module's flops with its parents too
        leaf = not any(True for _ in module.children())
        return sum(flops.get(f"{root}.{name}", {}).values()) // 2 if leaf else 0

    return {"params": tabulated(space, network, params), "madds": tabulated(space, network, madds)}


def everything(space: Space) -> Mixture:
    """The mixture that runs every option of every slot."""
    return {group.name: Choice.dense(torch.ones(group.shape)) for group in space.groups}


def tabulated(
    space: Space, network: nn.Module, cost: Callable[[str, nn.Module], float]
) -> CostTable:
    """A table from the cost of each single module of a supernet, its children not counted."""
    options = {group.name: torch.zeros(group.shape, dtype=torch.float64) for group in space.groups}
    places = space.candidates(network)
    fixed = 0.0
    for name, module in network.named_modules():
        parts = name.split(".")
        place = next(
            (places[p] for i in range(len(parts), 0, -1) if (p := ".".join(parts[:i])) in places),
            None,
        )
        if place is None:
            fixed += cost(name, module)
        else:
            group, slot, index = place
            options[group][slot, index] += cost(name, module)
    return CostTable(space, fixed, options)
