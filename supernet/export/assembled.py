"""The source of a network that is put together from its parts.

A network of declared choices has no arguments that build it: its class declares choices. Here its
classes are copied without their constructors, and the function ``network`` gives them the layers
that the choices came to.
"""

import copy
import inspect
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from supernet.errors import UserError
from supernet.export.source import CANNOT, Definitions

LITERALS = (str, int, float, bool, type(None))
OWN = "training"  # what torch's modules have by themselves

HELPER = '''def assembled(kind: type, parts: dict, buffers: dict) -> nn.Module:
    """A module of a class, with these parts, and without a call of its constructor."""
    module = kind.__new__(kind)
    nn.Module.__init__(module)
    for name, part in parts.items():
        setattr(module, name, part)
    for name, buffer in buffers.items():
        module.register_buffer(name, buffer)
    return module'''


class Assembly:
    """The source of ``network``: ``definitions`` of its classes, and an expression that builds it.

    Raises:
        UserError: a part cannot be written as source. The message says which one.
    """

    def __init__(self, network: nn.Module):
        kinds = list(dict.fromkeys(type(m) for m in network.modules() if not is_torch(m)))
        self.graphs: dict[str, str] = {}  # the source of a graph's class -> its name
        self.definitions = Definitions(None, assembled=True)
        for kind in kinds:
            self.definitions.add(kind)
        self.kind = "nn.Module" if is_torch(network) else type(network).__name__
        self.expression = self.module(network, "network", 1)
        for body, name in self.graphs.items():
            self.definitions.texts[name] = f"class {name}(nn.Module):\n    {body}"
        self.definitions.texts["assembled"] = HELPER
        self.definitions.names.setdefault("torch", set()).add("nn")
        self.definitions.modules.add("torch")

    def module(self, module: nn.Module, where: str, depth: int) -> str:
        """The expression that builds a module. ``where`` is its name, for messages."""
        if isinstance(module, torch.fx.GraphModule):
            return self.parts(self.graph(module), module, where, depth, bare=True)
        if not is_torch(module):
            return self.parts(type(module).__name__, module, where, depth)
        kind, children = type(module), dict(module.named_children())
        numbered = list(children) == [str(number) for number in range(len(children))]
        if kind in (nn.Sequential, nn.ModuleList) and numbered:
            inner = [self.module(m, f"{where}.{n}", depth + 1) for n, m in children.items()]
            listed = lines(inner, depth)
            return f"nn.{kind.__name__}({f'[{listed}]' if kind is nn.ModuleList else listed})"
        if kind is nn.ModuleDict:
            return f"nn.ModuleDict({self.dictionary(children, where, depth)})"
        if children or not hasattr(nn, kind.__name__):
            raise UserError(f"{CANNOT}: {where} is a {kind.__name__}, which cannot be written down")
        return f"nn.{kind.__name__}({', '.join(arguments(module, where))})"

    def parts(
        self, kind: str, module: nn.Module, where: str, depth: int, bare: bool = False
    ) -> str:
        """The expression for a module that gets its parts one by one. A ``bare`` one has children
        alone.
        """
        given: dict[str, str] = {}
        for name, value in () if bare else vars(module).items():
            if not name.startswith("_") and name != OWN:
                given[name] = self.value(value, f"{where}.{name}")
        for name, parameter in () if bare else module._parameters.items():
            given[name] = "None" if parameter is None else f"nn.Parameter({empty(parameter)})"
        for name, child in module._modules.items():
            one = None if child is None else self.module(child, f"{where}.{name}", depth + 1)
            given[name] = str(one)
        buffers = {}
        for name, buffer in module._buffers.items():
            if name in module._non_persistent_buffers_set or buffer is None:
                raise UserError(f"{CANNOT}: the buffer {where}.{name} is not in the state dict")
            buffers[name] = empty(buffer)
        whole = [f'"{name}": {text}' for name, text in given.items()]
        held = ", ".join(f'"{name}": {text}' for name, text in buffers.items())
        return f"assembled({kind}, {{{lines(whole, depth)}}}, {{{held}}})"

    def dictionary(self, children: dict[str, nn.Module], where: str, depth: int) -> str:
        inner = [
            f'"{name}": {self.module(child, f"{where}.{name}", depth + 1)}'
            for name, child in children.items()
        ]
        return f"{{{lines(inner, depth)}}}"

    def graph(self, module: torch.fx.GraphModule) -> str:
        """The name of the class of a graph, which is written as source."""
        body = module.code.strip().replace("\n", "\n    ").replace("    \n", "\n")
        if body not in self.graphs:
            self.graphs[body] = f"Graph{len(self.graphs)}"
        return self.graphs[body]

    def value(self, value: Any, where: str) -> str:
        """The expression for an attribute of a module."""
        if isinstance(value, partial) and value.func is copy.copy and len(value.args) == 1:
            self.definitions.names.setdefault("functools", set()).add("partial")
            self.definitions.names.setdefault("copy", set()).add("copy")
            return f"partial(copy, {self.value(value.args[0], where)})"
        if isinstance(value, torch.Generator):  # of a run, such as that of DropPath
            return "None"
        if type(value) in LITERALS:
            return repr(value)
        if type(value) in (list, tuple):
            inner = ", ".join(self.value(one, where) for one in value)
            return f"[{inner}]" if type(value) is list else f"({inner}{',' * (len(value) == 1)})"
        if type(value) is dict and all(type(key) in LITERALS for key in value):
            pairs = (f"{key!r}: {self.value(one, where)}" for key, one in value.items())
            return f"{{{', '.join(pairs)}}}"
        name = getattr(value, "__name__", "")
        for place, module in (("nn.functional", nn.functional), ("torch", torch)):
            if name and value is getattr(module, name, None):
                return f"{place}.{name}"
        raise UserError(
            f"{CANNOT}: the attribute {where} is a {type(value).__name__}, which cannot be written "
            "down; keep numbers, texts, lists and modules as attributes"
        )


def is_torch(module: nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] == "torch" or isinstance(
        module, torch.fx.GraphModule
    )


def empty(tensor: torch.Tensor) -> str:
    """The expression for a tensor of that shape; its values come from the file of the weights."""
    dtype = "" if tensor.dtype == torch.float32 else f", dtype={tensor.dtype}"
    return f"torch.empty({tuple(tensor.shape)}{dtype})"


def lines(texts: list[str], depth: int) -> str:
    """The parts of an expression, each on a line of its own."""
    if not texts:
        return ""
    indent = "    " * (depth + 1)
    return "".join(f"\n{indent}{text}," for text in texts) + "\n" + "    " * depth


def arguments(module: nn.Module, where: str) -> Iterator[str]:
    """The arguments of the constructor that builds a layer of torch again. Layers keep their
    arguments as attributes of the same names; those that have the default value are left out.
    """
    for name, parameter in inspect.signature(type(module)).parameters.items():
        several = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if name in ("device", "dtype") or several:
            continue
        if not hasattr(module, name):
            if parameter.default is parameter.empty:
                raise UserError(
                    f"{CANNOT}: {where} is a {type(module).__name__}, which does not say how it "
                    "was built"
                )
            continue
        value = getattr(module, name)
        if name == "bias" and not isinstance(value, bool):
            value = value is not None
        if value == parameter.default and parameter.default is not parameter.empty:
            continue
        yield f"{name}={value!r}" if parameter.default is not parameter.empty else repr(value)
