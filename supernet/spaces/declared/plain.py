"""The plain network of one architecture: a copy of the module, without any choice in it."""

import copy
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from supernet.spaces.declared.adapted import Adapted
from supernet.spaces.declared.blocks import Depth, OneOf
from supernet.spaces.declared.choices import Choose, Size, cut
from supernet.spaces.declared.layer import Elastic


def plain(network: nn.Module, reads: Mapping[str, int], fresh: bool) -> nn.Module:
    """The plain network that ``network`` comes to on the present path. ``network`` is changed.

    Every choice is replaced by what it comes to: an elastic layer by the layer of torch, a OneOf by
    the chosen module, a Depth by the ``nn.Sequential`` of the first blocks, a choice that a forward
    reads by a function that returns its value. All other modules stay as they are.

    ``reads`` says how many channels each elastic layer reads (name -> channels). If the network is
    ``fresh``, the plain layers get initial weights of their own, because those of a part of a large
    layer are not distributed as those of a small one. After that, a method ``reset_parameters`` of
    the network is called, if there is one. Otherwise the plain layers have the weights of the
    elastic ones.
    """
    widths = {module: reads[name] for name, module in network.named_modules() if name in reads}
    replacing = Replacing(widths, fresh)
    found = replacing.replaced(network)
    reset = getattr(found, "reset_parameters", None)
    if fresh and reset is not None and found is network:
        reset()
    return found


class Replacing:
    """Replaces choices by what they come to. A module that stands in two places is replaced by one
    module; parameters that two layers share are shared again if both use the same part.
    """

    def __init__(self, widths: Mapping[nn.Module, int], fresh: bool):
        self.widths, self.fresh = widths, fresh
        self.done: dict[int, tuple[nn.Module, nn.Module]] = {}
        self.parameters: dict[Any, tuple[nn.Parameter, nn.Parameter]] = {}

    def replaced(self, module: nn.Module) -> nn.Module:
        if id(module) not in self.done:
            self.done[id(module)] = module, self.made(module)
        return self.done[id(module)][1]

    def made(self, module: nn.Module) -> nn.Module:
        if isinstance(module, OneOf):
            return self.replaced(module.chosen())
        if isinstance(module, Depth):
            blocks = [self.replaced(block) for block in module.chosen()]
            return nn.Sequential(*blocks).train(module.training)
        if isinstance(module, Elastic):
            layer = module.plain(self.widths.get(module, told(module)), self.kept)
            for one in layer.modules() if self.fresh else ():
                if callable(reset := getattr(one, "reset_parameters", None)):
                    reset()
            return layer
        drop_skipped(module)
        for name, child in list(module._modules.items()):
            if child is not None:
                module._modules[name] = self.replaced(child)
        if isinstance(module, Adapted):
            module.settle(self.kept)
        for name, value in list(vars(module).items()):
            if not name.startswith("_"):
                vars(module)[name] = without_choices(value)
        return module

    def kept(self, parameter: nn.Parameter, part: Tensor) -> nn.Parameter:
        key = id(parameter), tuple(part.shape)
        if key not in self.parameters:
            value = part.detach().clone(memory_format=torch.contiguous_format)
            self.parameters[key] = parameter, nn.Parameter(value, parameter.requires_grad)
        return self.parameters[key][1]


def drop_skipped(module: nn.Module) -> None:
    """Removes the blocks that the present path does not run from a list of blocks. The others are
    numbered again.
    """
    blocks = module._modules
    left = {
        name: block
        for name, block in blocks.items()
        if not (isinstance(block, Adapted) and block.skipped())
    }
    if len(left) < len(blocks):
        numbered = list(blocks) == [str(number) for number in range(len(blocks))]
        blocks.clear()
        blocks.update({str(n): one for n, one in enumerate(left.values())} if numbered else left)


def told(layer: Elastic) -> int:
    """How many channels a layer reads that ``forward`` does not call: as many as it was told."""
    return cut(next(iter(layer.sizes.values()))).length


def without_choices(value: Any) -> Any:
    """A value in which every choice is replaced by a function that returns what it comes to."""
    if isinstance(value, Size):
        return partial(copy.copy, value())
    if type(value) in (list, tuple):
        return type(value)(map(without_choices, value))
    if type(value) is dict:
        return {key: without_choices(one) for key, one in value.items()}
    return value


# --- what a module declares


def read_by(module: nn.Module) -> Iterator[Choose]:
    """The decisions that a module itself reads, without those of its children."""
    if isinstance(module, OneOf | Depth):
        yield from module.choice.decisions
    elif isinstance(module, Elastic):
        for size in module.sizes.values():
            yield from size.decisions if isinstance(size, Size) else ()
    elif isinstance(module, Adapted):
        yield from module.rules.decisions
    else:
        for name, value in vars(module).items():
            if not name.startswith("_"):
                yield from choices_in(value)


def choices_in(value: Any) -> Iterator[Choose]:
    """The decisions in a value, at any depth of lists, tuples and dictionaries."""
    if isinstance(value, Size):
        yield from value.decisions
    elif type(value) in (list, tuple):
        for one in value:
            yield from choices_in(one)
    elif type(value) is dict:
        yield from choices_in(list(value.values()))


def declared_in(module: nn.Module) -> Iterator[Choose]:
    """Every decision that a module or a module in it reads; one may come several times."""
    for one in module.modules():
        yield from read_by(one)


def active_in(module: nn.Module) -> Iterator[nn.Module]:
    """The modules that the present path comes to, OneOfs and Depths included, without the modules
    in elastic layers.
    """
    if isinstance(module, Adapted) and module.skipped():
        return
    yield module
    parts: Any
    if isinstance(module, Elastic):
        parts = ()
    elif isinstance(module, OneOf):
        parts = [module.chosen()]
    elif isinstance(module, Depth):
        parts = module.chosen()
    else:
        parts = module.children()
    for part in parts:
        yield from active_in(part)
