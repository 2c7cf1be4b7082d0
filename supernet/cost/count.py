"""The two costs of a network that no machine changes: how many parameters it has, how many
multiply-adds an input takes.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from supernet.task import Task

# what the parameters of an auxiliary head, which serves training alone, are called
AUXILIARY = "auxiliary."


@dataclass(frozen=True)
class Cost:
    """``params``: learnt numbers; ``madds``: multiply-adds of one input. Papers print both in
    millions.
    """

    params: int
    madds: int


def count(network: nn.Module, task: Task) -> Cost:
    """The cost of a standalone ``network`` on one input of ``task``, as papers count it.

    An auxiliary head counts for nothing: it is thrown away after training. Multiply-adds are those
    of convolutions and linear layers in evaluation mode; one multiplication and the addition behind
    it count as one. Normalisation, activation, pooling and sums are left out, as in the tables of
    DARTS. Nothing is computed (PyTorch's meta device): it takes a moment at any size, whatever
    device the network is on.
    """
    params = sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if not name.startswith(AUXILIARY)
    )
    shell = copy.deepcopy(network).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shell(task.example(1, "meta"))
    return Cost(
        params, counter.get_total_flops() // 2
    )  # a multiply-add is two floating-point operations
