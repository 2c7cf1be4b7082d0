"""The space of a model as it is, of timm, torchvision, or the user's own."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from supernet.bounds import Bounded
from supernet.files import PROGRAM, PROGRAM_PATH
from supernet.spaces.converted.models import IMAGE, made, shape_of
from supernet.spaces.converted.plan import Plan, planned
from supernet.spaces.declared.adapted import adapt
from supernet.spaces.declared.program import class_of
from supernet.spaces.declared.space import Module
from supernet.task import Classification, Task

SHARES = {"*": [0.5, 0.67, 1.0]}


@dataclass
class Converted(Module):
    """The space of the smaller networks in a model.

    ``model`` is the name of a model of timm or torchvision, or FILE.py:NAME, or in Python a module.
    ``settings`` are arguments of the model. ``pretrained`` loads the weights that timm or
    torchvision have for it. ``shape`` is that of an input with which the choices are found, by
    default that of the images which the model is made for.

    ``widths`` says which shares of each width can be chosen: pattern -> shares. A pattern is
    compared with the names of layers (``layer1.*``), with the names of their classes (``Linear``),
    and with ``heads`` for numbers of heads. The last one that fits counts. ``depths`` does the same
    for the number of blocks; a pattern is compared with the name of the list of blocks and the
    class of the blocks. A share of 1 is always there: the largest network is the model.

    A "fresh" network begins with its part of the model's own initial weights. If these are
    pretrained, so is the network.
    """

    model: Any = field(metadata=PROGRAM_PATH)
    pretrained: bool = False
    shape: list[int] | None = None
    widths: dict[str, Any] = field(default_factory=lambda: dict(SHARES))
    depths: dict[str, Any] = field(default_factory=lambda: dict(SHARES))

    def __post_init__(self) -> None:
        Bounded.__post_init__(self)
        if isinstance(self.model, str) and PROGRAM.fullmatch(self.model):
            self.made = class_of(self.model)
        self.name = self.model if isinstance(self.model, str) else type(self.model).__name__
        self.name = self.name.rpartition(":")[2]
        _ = self.groups

    def whole(self, task: Task, pretrained: bool) -> nn.Module:
        """The model, in which nothing is a choice."""
        if isinstance(self.model, nn.Module):
            return copy.deepcopy(self.model)
        if PROGRAM.fullmatch(self.model):
            return super().build(task)
        return made(self.model, task, self.settings or {}, pretrained)

    @cached_property
    def any_task(self) -> Task:  # type: ignore[override]
        """The task with which the choices are found."""
        if isinstance(self.model, nn.Module):
            model = emptied(copy.deepcopy(self.model)).eval()
            task = Classification(tuple(self.shape or IMAGE), 1)
            with torch.no_grad():
                return replace(task, outputs=model(task.example(1, "meta")).shape[-1])
        return Classification(tuple(self.shape or shape_of(self.model, self.settings or {})), 10)

    @cached_property
    def plan(self) -> Plan:
        model = self.empty(self.any_task)
        return planned(model.eval(), self.any_task.example(1, "meta"), self.widths, self.depths)

    def empty(self, task: Task) -> nn.Module:
        """The model without values. It is made with values, because constructors compute with
        them.
        """
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return emptied(self.whole(task, pretrained=False))

    def build(self, task: Task) -> nn.Module:
        without = torch.get_default_device().type == "meta"
        model = self.empty(task) if without else self.whole(task, self.pretrained)
        for name, rules in self.plan.rules.items():
            adapt(model.get_submodule(name), rules)
        return model

    def notes(self) -> Iterator[str]:
        """What is left as it is."""
        yield from (f"left as it is: {line}" for line in self.plan.left)


def emptied(model: nn.Module) -> nn.Module:
    """The model without values, on the meta device. Tensors that modules share stay shared."""
    found: dict[int, tuple[Tensor, Tensor]] = {}  # the tensor is kept, so that its id stays its own
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is None:
                    continue
                empty = torch.empty_like(tensor, device="meta")
                if isinstance(tensor, nn.Parameter):
                    empty = nn.Parameter(empty, tensor.requires_grad)
                held[name] = found.setdefault(id(tensor), (tensor, empty))[1]  # type: ignore[assignment]
    return model


def convert(model: nn.Module, example: Tensor, widths: Any = None, depths: Any = None) -> Converted:
    """The space of the smaller networks in a ``model`` as it is. Its supernet begins with the
    weights of the model, and its largest network is the model, to the bit.

    ``example`` is a batch of inputs of the model. The model is not changed. ``widths`` and
    ``depths`` are those of :class:`Converted`. ``space.plan.left`` says which layers are left as
    they are, and why; ``space.any_task`` is the task of the model.

    Raises:
        UserError: the model cannot be followed, or nothing in it can be made smaller.
    """
    return Converted(
        model,
        shape=list(example.shape[1:]),
        widths=dict(widths or SHARES),
        depths=dict(depths or SHARES),
    )
