"""The machinery that runs a cell: a directed graph whose edges carry operations. Spaces say only
what the graph looks like.

The first nodes of a cell are given, every other node is the sum of its in-edges, and the last
``outputs`` nodes, concatenated, are what the cell returns. :class:`MixedCell` owns all options of
every edge and is told per call what to run; :class:`Cell` owns one operation an edge and is a plain
network. An operation reads its source with stride ``strides[source]``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.mixture import Choice, ChoiceGroup, Mixture
from supernet.ops import OPERATIONS, DropPath, Rectified
from supernet.ops.fast.program import Program


class Cell(nn.Module):
    """A cell of one operation an edge: ``edges`` lists (source, target, operation name)."""

    def __init__(
        self, edges, nodes: int, outputs: int, strides, channels: int, affine: bool, pool_norm: bool
    ):
        super().__init__()
        self.nodes, self.outputs, self.stride = nodes, outputs, strides[0]
        self.wiring = [
            (source, target, f"from_{source}_to_{target}") for source, target, _ in edges
        ]
        self.operations = {f"from_{source}_to_{target}": name for source, target, name in edges}
        self.edges = nn.ModuleDict(
            {
                f"from_{source}_to_{target}": OPERATIONS[name](
                    channels, strides[source], affine, pool_norm
                )
                for source, target, name in edges
            }
        )
        self.drop_path = DropPath()

    def forward(self, *inputs: Tensor) -> Tensor:
        states = list(inputs)
        for node in range(len(inputs), self.nodes):
            total = None
            for source, target, edge in self.wiring:
                if target == node:
                    out = self.edges[edge](states[source])
                    if not isinstance(self.edges[edge], nn.Identity):
                        out = self.drop_path(out)
                    total = out if total is None else total + out
            if total is None:  # nothing leads here
                total = torch.zeros_like(states[0][:, :, :: self.stride, :: self.stride])
            states.append(total)
        return states[-1] if self.outputs == 1 else torch.cat(states[-self.outputs :], dim=1)


class MixedCell(nn.Module):
    """A cell of a supernet: edge ``k`` of ``edges`` (source, target) owns every option of slot
    ``k`` of ``group``.

    It runs what a mixture says of that group. Options that are not active are not computed; a
    tensor that several operations rectify is rectified once. In training, several weighted
    operations a slot run at once, as :mod:`supernet.ops.fast.program` says; with :func:`set_recompute`
    in less memory.

    With ``partial_channels`` K (PC-DARTS, Xu et al., ICLR 2020, section 3.2, eq. 2) the operations
    read, and give, the first of K parts of the channels. The others pass each edge as they are,
    pooled 2×2 where the stride is two, scaled by the sum of the edge's weights: one for a
    distribution or a path, its share under edge normalisation. In the sum of a node the channels of
    the K parts are then shuffled, so that the next edges read others. They pass also where ``none``
    is chosen.
    """

    def __init__(
        self,
        edges: Sequence[tuple[int, int]],
        nodes: int,
        outputs: int,
        strides: Sequence[int],
        channels: int,
        affine: bool,
        pool_norm: bool,
        group: ChoiceGroup,
        partial_channels: int = 1,
    ):
        super().__init__()
        self.nodes, self.outputs, self.stride = nodes, outputs, strides[0]
        self.group, self.strides, self.divisor = group, strides, partial_channels
        self.programs: dict[int, Any] = {}  # of each node, how its operations ran last
        self.recompute = False
        self.wiring = [(source, target, f"from_{source}_to_{target}") for source, target in edges]
        self.edges = nn.ModuleDict(
            {
                edge: nn.ModuleDict(
                    {
                        name: OPERATIONS[name](
                            channels // partial_channels, strides[source], affine, pool_norm
                        )
                        for name in group.options
                        if name != "none"
                    }
                )
                for source, _, edge in self.wiring
            }
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {
            "programs": {}
        }  # they are full of addresses, and a copy makes its own

    def forward(self, *inputs: Tensor, mixture: Mixture) -> Tensor:
        choice = mixture[self.group.name]
        several = choice.weights is not None and any(len(slot) > 1 for slot in choice.active)
        leave = self._at_once if several and self.training else self._one_by_one
        whole = list(inputs)
        totals: dict[int, Tensor] = {}  # of each node, what has come so far
        for node in range(self.nodes):
            if node >= len(inputs):
                total = totals.get(node)
                if total is None:  # nothing leads here
                    total = torch.zeros_like(
                        self.read(inputs[0])[:, :, :: self.stride, :: self.stride]
                    )
                whole.append(
                    total if self.divisor == 1 else self.rejoined(total, node, whole, choice)
                )
            chosen = [
                (slot, option, target, self.edges[edge][self.group.options[option]])
                for slot, (source, target, edge) in enumerate(self.wiring)
                for option in (choice.active[slot] if source == node else ())
                if self.group.options[option] != "none"
            ]
            if chosen:
                leave(node, self.read(whole[node]), chosen, choice.weights, totals)
        return whole[-1] if self.outputs == 1 else torch.cat(whole[-self.outputs :], dim=1)

    def _one_by_one(
        self, node: int, x: Tensor, chosen, weights: Tensor | None, totals: dict[int, Tensor]
    ) -> None:
        """Adds to each target's total what the ``chosen`` (slot, option, target, operation) make of
        ``x``.
        """
        rectified = None
        for slot, option, target, operation in chosen:
            if isinstance(operation, Rectified):
                rectified = F.relu(x) if rectified is None else rectified
                out = operation.body(rectified)
            else:
                out = operation(x)
            out = out if weights is None else out * weights[slot, option]
            totals[target] = out if target not in totals else totals[target] + out

    def _at_once(
        self, node: int, x: Tensor, chosen, weights: Tensor, totals: dict[int, Tensor]
    ) -> None:
        """The same by a :class:`supernet.ops.fast.program.Program`, of which the last is kept: most
        methods run it again.
        """
        slots, options, targets, operations = zip(*chosen, strict=True)
        known, targets_of, places, program = self.programs.get(node, (None,) * 4)
        key = slots, options, x.device, self.recompute
        if known != key:
            targets_of = list(dict.fromkeys(targets))
            places = torch.tensor([slots, options], device=weights.device)
            program = Program(
                [
                    (targets_of.index(t), operation)
                    for t, operation in zip(targets, operations, strict=True)
                ],
                x.device,
                self.recompute,
            )
            self.programs[node] = key, targets_of, places, program
        sums = program.run(
            x, weights[places[0], places[1]], [totals.get(target) for target in targets_of]
        )
        totals.update(zip(targets_of, sums, strict=True))

    def read(self, state: Tensor) -> Tensor:
        """The channels of a node that operations read."""
        return state if self.divisor == 1 else state[:, : state.shape[1] // self.divisor]

    def rejoined(self, total: Tensor, node: int, whole: Sequence[Tensor], choice: Choice) -> Tensor:
        """A node whose operations give ``total``, with the channels that pass them by."""
        passed = None
        for slot, (source, target, _) in enumerate(self.wiring):
            if target == node and choice.active[slot]:
                state = whole[source]
                part = state[:, state.shape[1] // self.divisor :]
                if self.strides[source] == 2:
                    part = F.max_pool2d(part, 2, ceil_mode=True)
                if choice.weights is not None:
                    part = part * choice.weights[slot, list(choice.active[slot])].sum()
                passed = part if passed is None else passed + part
        if passed is None:
            passed = total.repeat(1, self.divisor - 1, 1, 1)  # nothing leads here: zeros
        return torch.channel_shuffle(torch.cat([total, passed], dim=1), self.divisor)


def set_recompute(network: nn.Module, recompute: bool = True) -> None:
    """Whether the mixed cells of a supernet make cheap activations again in backward instead of
    keeping them: the same bits.

    Those are what depthwise convolutions and poolings make where several weighted operations run at
    once. A path keeps what it always does, and so does a gradient that is to be differentiated
    again.
    """
    for module in network.modules():
        if isinstance(module, MixedCell):
            module.recompute = recompute
