"""Growth of a network of one's own, block by block (macro search in Petridish, Hu et al., NeurIPS
2019).
"""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from supernet.bounds import Bounded
from supernet.errors import UserError
from supernet.files import JSON_PATH, PROGRAM, PROGRAM_PATH
from supernet.mixture import Architecture
from supernet.spaces.converted.models import made, shape_of
from supernet.spaces.declared.plain import declared_in
from supernet.spaces.declared.program import called, class_of
from supernet.spaces.declared.space import Module
from supernet.spaces.growing.shortcuts import Shape, fits, shapes_of
from supernet.spaces.growing.space import GrowingSpace, Target
from supernet.spaces.space import Form, read_architecture
from supernet.task import Classification, Task


class GrowingBlocks(GrowingSpace):
    """The base of spaces in which every block of a network grows by itself. A subclass builds the
    network, which has the same form in the search and in the evaluation.

    A shortcut ends at the output of a block. It reads a layer of the block (the name of the layer,
    which is no normalisation), the outputs of the two blocks before (``before1``, ``before2``), or
    an earlier addition at the same block (``added0``, ...).
    """

    @property
    def seed_names(self) -> list[str]:
        return ["whole"]

    def blocks_of(self, network: nn.Module) -> list[str]:
        """The names of the blocks: by default, all parts of a list (a Sequential or a ModuleList)
        that have parts themselves, and are inside no other block.
        """
        found: list[str] = []
        for name, module in network.named_modules():
            inside = any(name == one or name.startswith(f"{one}.") for one in found)
            if isinstance(module, nn.Sequential | nn.ModuleList) and not inside:
                for part, child in module.named_children():
                    if any(True for _ in child.children()) and not plain_list(child):
                        found.append(f"{name}.{part}" if name else part)
        return found

    def places(self, seed: str, form: Form) -> dict[str, list[Target]]:
        return self.targets

    @cached_property
    def targets(self) -> dict[str, list[Target]]:
        """The blocks and what can be read at each. They do not depend on the task."""
        with torch.device("meta"):
            network = self.network("whole", self.any_task, "search").eval()
        shapes: Mapping[str, Shape] = shapes_of(network, self.any_task.example(2, "meta"))
        names = [name for name in self.blocks_of(network) if name in shapes]
        if not names:
            raise UserError(
                f"the space {self.name}: no block of the network returns one tensor; name the "
                "blocks by space.blocks"
            )
        found = {}
        for number, name in enumerate(names):
            parts = {
                part: f"{name}.{part}"
                for part, layer in network.get_submodule(name).named_children()
                if f"{name}.{part}" in shapes and any(p.dim() > 1 for p in layer.parameters())
            }
            before = {
                f"before{back}": names[number - back] for back in (1, 2) if number - back >= 0
            }
            roles = {
                role: source
                for role, source in (parts | before).items()
                if fits(shapes[source], shapes[name])
            }
            if roles:
                found[name] = [Target(name, roles)]
        return found


def plain_list(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList)


@dataclass
class GrowingModule(GrowingBlocks):
    """Growth of a model of one's own, or of timm or torchvision.

    ``model`` is FILE.py:NAME, or the name of a model, or in Python a class. ``settings`` are its
    arguments. If it declares choices, ``architecture`` says which of its networks grows: a text, or
    the path of a JSON file. ``blocks`` are patterns of the names of its blocks; ``None`` finds them
    by itself. ``shape`` is that of an input with which the shapes of blocks are compared.
    """

    model: Any = field(metadata=PROGRAM_PATH)
    settings: dict[str, Any] | None = None
    architecture: str | None = field(default=None, metadata=JSON_PATH)
    blocks: list[str] | None = None
    shape: list[int] | None = None

    def __post_init__(self) -> None:
        Bounded.__post_init__(self)
        self.made = self.model
        if isinstance(self.model, str) and PROGRAM.fullmatch(self.model):
            self.made = class_of(self.model)
        self.name = self.model if isinstance(self.model, str) else self.model.__name__
        self.name = f"growing_{self.name.rpartition(':')[2]}"
        if self.choices is None and self.architecture is not None:
            raise UserError("space.architecture: the model has no choices; leave it out")
        _ = self.targets

    @cached_property
    def any_task(self) -> Task:  # type: ignore[override]
        shape = self.shape
        if shape is None:
            named = isinstance(self.made, str)
            shape = list(shape_of(self.made, self.settings or {})) if named else [3, 32, 32]
        return Classification(tuple(shape), 10)

    @cached_property
    def choices(self) -> Module | None:
        """The space of the choices that the model declares, if it declares some."""
        if isinstance(self.made, str):
            return None
        with torch.device("meta"):
            network = called(self.made, self.settings, self.any_task)
        has = next(declared_in(network), None) is not None
        return Module(self.made, self.settings) if has else None

    @cached_property
    def chosen(self) -> Architecture:
        """Which network of a model with choices grows."""
        if self.architecture is None:
            raise UserError(
                f"space.model={self.model}: it has choices; say which of its networks grows: "
                "space.architecture=RUN_DIR/architecture.json, of a run with space=module"
            )
        assert self.choices is not None
        return read_architecture(self.choices, self.architecture)

    def network(self, seed: str, task: Task, form: Form) -> nn.Module:
        if isinstance(self.made, str):
            return made(self.made, task, self.settings or {}, pretrained=False)
        if self.choices is None:
            return called(self.made, self.settings, task)
        return self.choices.standalone(self.chosen, task)

    def blocks_of(self, network: nn.Module) -> list[str]:
        if self.blocks is None:
            return super().blocks_of(network)
        names = [name for name, _ in network.named_modules() if name]
        found = [n for n in names if any(fnmatch.fnmatchcase(n, one) for one in self.blocks)]
        for pattern in self.blocks:
            if not fnmatch.filter(names, pattern):
                raise UserError(f"space.blocks: no part of the model is called {pattern!r}")
        return found
