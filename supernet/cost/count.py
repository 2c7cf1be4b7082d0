"""The two costs of a network that do not depend on the machine: the number of its parameters, and
the number of multiply-adds for one input.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from supernet.task import Task

# the prefix of the names of an auxiliary head's parameters; this head is used in training only
AUXILIARY = "auxiliary."


@dataclass(frozen=True)
class Cost:
    """``params``: the number of learnt numbers. ``madds``: the multiply-adds for one input. Papers
    print both in millions.
    """

    params: int
    madds: int


def count(network: nn.Module, task: Task) -> Cost:
    """The cost of a standalone ``network`` on one input of ``task``, as papers count it.

    An auxiliary head is not counted, because it is thrown away after training. Multiply-adds are
    those of convolutions and linear layers in evaluation mode. One multiplication and the addition
    that follows it count as one. Normalisation, activation, pooling and sums are left out, as in
    the tables of DARTS. The pass runs on PyTorch's meta device, which computes no values. Therefore
    it takes only a moment for any network on any device.
    """
    params = sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if not name.startswith(AUXILIARY)
    )
    # Without requires_grad, because the counter refuses a parameter that a module is called with.
    shell = copy.deepcopy(network).to("meta").eval().requires_grad_(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shell(task.example(1, "meta"))
    # a multiply-add is two floating-point operations
    return Cost(params, counter.get_total_flops() // 2)
