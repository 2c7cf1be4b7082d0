"""Writes the source of a network as one file that needs PyTorch alone, and runs such a file.

The classes are those that trained the network, copied word for word: starting from the network's
class, the names that a definition uses are followed through the imports of its module, and whatever
the project defines is taken over, each definition after those that it needs. Of the table of
operations only the entries in use stay.
"""

import ast
import builtins
import importlib
import inspect
import sys
import textwrap
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

PROJECT = __name__.partition(".")[0]


class Definitions:
    """What one class needs to stand in a file of its own: imports, and ``texts``, from name to
    source, in order.
    """

    def __init__(self, kind: type, keys: Collection[str]):
        self.keys = keys  # of tables, the entries to keep
        self.modules: set[str] = set()  # imported whole
        self.names: dict[str, set[str]] = {}  # module -> names imported from it
        self.texts: dict[str, str] = {}
        self._origin: dict[str, str] = {}  # name -> module that defines it
        self._add(kind.__name__, kind.__module__)

    def _add(self, name: str, module: str) -> None:
        """Adds what ``name`` means at the top level of ``module``, unless it means nothing there (a
        local name, a builtin).
        """
        source, statements = _parsed(module)
        for statement in statements:
            match statement:
                case ast.Import(names) | ast.ImportFrom(names=names):
                    for alias in names:
                        if (alias.asname or alias.name) == name:
                            self._import(alias, getattr(statement, "module", None))
                case ast.ClassDef() | ast.FunctionDef() if statement.name == name:
                    self._define(name, module, statement, _text(source, statement))
                case ast.Assign(targets=[ast.Name(id=target)], value=ast.Dict() as table) if (
                    target == name
                ):
                    self._define(name, module, *self._cut(source, statement, table))

    def _import(self, alias: ast.alias, module: str | None) -> None:
        if module is not None and module.partition(".")[0] == PROJECT:
            self._add(alias.name, module)
            return
        text = alias.name + (f" as {alias.asname}" if alias.asname else "")
        if module is None:
            self.modules.add(text)
        else:
            self.names.setdefault(module, set()).add(text)

    def _define(self, name: str, module: str, node: ast.AST, text: str) -> None:
        if self._origin.setdefault(name, module) != module:
            raise ValueError(
                f"{name} is defined in {module} and in {self._origin[name]}; one file cannot hold "
                "both: rename one"
            )
        if name in self.texts:
            return
        for used in ast.walk(node):
            if isinstance(used, ast.Name) and used.id != name:
                self._add(used.id, module)
        self.texts[name] = text

    def _cut(self, source: str, statement: ast.Assign, table: ast.Dict) -> tuple[ast.Dict, str]:
        """The table with the entries in use alone, and its text with the comment above it."""
        lines = source.splitlines()
        first = statement.lineno - 1
        while first and lines[first - 1].startswith("#"):
            first -= 1
        kept = [
            (k, v)
            for k, v in zip(table.keys, table.values, strict=True)
            if ast.literal_eval(k) in self.keys
        ]
        entries = [
            f"    {ast.get_source_segment(source, k)}: {ast.get_source_segment(source, v)},"
            for k, v in kept
        ]
        text = [
            *lines[first : statement.lineno - 1],
            f"{statement.targets[0].id} = {{",
            *entries,
            "}",
        ]
        return ast.Dict([k for k, _ in kept], [v for _, v in kept]), "\n".join(text)

    def import_lines(self) -> list[str]:
        whole = [f"import {module}" for module in sorted(self.modules)]
        return whole + [
            f"from {module} import {', '.join(sorted(names))}"
            for module, names in sorted(self.names.items())
        ]


@cache
def _parsed(module: str) -> tuple[str, list[ast.stmt]]:
    source = inspect.getsource(importlib.import_module(module))
    return source, ast.parse(source).body


def _text(source: str, statement: ast.ClassDef | ast.FunctionDef) -> str:
    first = min([statement.lineno, *(decorator.lineno for decorator in statement.decorator_list)])
    return "\n".join(source.splitlines()[first - 1 : statement.end_lineno])


def network_source(
    kind: type,
    settings: Mapping[str, Any],
    operations: Collection[str],
    *,
    architecture: str,
    version: str,
    input_shape: tuple[int, int, int],
    mean: list[float],
    std: list[float],
) -> str:
    """The text of ``network.py``: ``kind(**settings)`` with every definition that it needs, as a
    person would lay it out.

    ``operations`` names the operations in use, ``architecture`` is the architecture in its papers'
    notation, ``mean`` and ``std`` (per channel, of pixels from 0 to 1) normalise the images.
    """
    definitions = Definitions(kind, operations)
    wrapped = textwrap.fill(
        architecture,
        120,
        initial_indent="    ",
        subsequent_indent="        ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    shape = ", ".join(str(size) for size in input_shape)
    header = f'''"""A network that was found and trained by {PROJECT} {version}. This file needs PyTorch alone.

{wrapped}

    from safetensors.torch import load_file

    model = network()
    model.load_state_dict(load_file("model.safetensors"))
    logits = model.eval()(images)  # [B, {shape}] -> [B, {settings["classes"]}]

Images are pixels from 0 to 1, less MEAN, divided by STD, both one number a channel.
"""'''
    data = f"""INPUT_SHAPE = ({shape})  # channels, height, width
MEAN = {mean}
STD = {std}
# The architecture: every edge of a cell is (source node, target node, operation).
SETTINGS = {_literal(settings)}"""
    build = f'''def network() -> {kind.__name__}:
    """The network with fresh weights."""
    return {kind.__name__}(**SETTINGS)'''
    parts = [
        header + "\n\n" + "\n".join(definitions.import_lines()),
        *definitions.texts.values(),
        data,
        build,
    ]
    return "\n\n\n".join(parts) + "\n"


def _literal(settings: Mapping[str, Any]) -> str:
    """A dictionary as Python, a line an entry; lists a line an item."""
    lines = ["{"]
    for name, value in settings.items():
        if isinstance(value, list) and value:
            lines += [f'    "{name}": [', *(f"        {_value(item)}," for item in value), "    ],"]
        else:
            lines.append(f'    "{name}": {_value(value)},')
    return "\n".join([*lines, "}"])


def _value(value: Any) -> str:
    """``repr`` with the quotes of the rest of the file."""
    if isinstance(value, tuple):
        return f"({', '.join(_value(item) for item in value)})"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def run_source(path: Path) -> ModuleType:
    """Runs the file at ``path`` in a module of its own, which may import PyTorch and the standard
    library but nothing else.

    So the file is proven to stand alone, even where this project can be imported. It is code: run
    only files that you trust.

    Raises:
        ImportError: the file imports something else.
    """

    def import_torch_alone(name, *rest):
        root = name.partition(".")[0]
        if root != "torch" and root not in sys.stdlib_module_names:
            raise ImportError(f"{path.name} imports {name}, but may import torch alone")
        return builtins.__import__(name, *rest)

    module = ModuleType(path.stem)
    module.__dict__["__builtins__"] = vars(builtins) | {"__import__": import_torch_alone}
    # The bare name, so that exported programs, which note where each operation came from, hold no
    # path of this machine.
    exec(compile(path.read_text(encoding="utf-8"), path.name, "exec"), module.__dict__)
    return module
