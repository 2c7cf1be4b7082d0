"""Writes the source of a network as one file that needs PyTorch alone, and runs such a file.

The classes are those that trained the network, copied word for word. Starting from the network's
class, the names that a definition uses are followed through the imports of its module, and whatever
belongs to the network is taken over, each definition after those that it needs. What belongs to it
is decided by one rule: a module does if it lies in this project, or in the same top-level package
(or module) as the network's class. All else must be PyTorch or the standard library, and is
imported. Of a table of functions (lambdas), such as that of the operations, only the entries stay
whose names are among the arguments that the network is built with.
"""

import ast
import builtins
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from supernet.errors import UserError
from supernet.task import Task

PROJECT = __name__.partition(".")[0]
CANNOT = "cannot export the network"


class Definitions:
    """What one class needs to stand in a file of its own: imports, and ``texts``, from name to
    source, in order.

    No module is imported for that: all that a class needs at run time is imported already.
    """

    def __init__(self, kind: type, keys: Collection[str]):
        self.keys = keys  # of tables, the entries to keep
        self.own = {PROJECT, kind.__module__.partition(".")[0]}
        self.modules: set[str] = set()  # imported whole
        self.names: dict[str, set[str]] = {}  # module -> names imported from it
        self.texts: dict[str, str] = {}
        self._origin: dict[str, str] = {}  # name -> module that defines it
        if kind.__qualname__ != kind.__name__:
            raise UserError(
                f"{CANNOT}: {kind.__qualname__} is defined inside something else; define it at the "
                f"top level of {kind.__module__}"
            )
        self._add(kind.__name__, kind.__module__)

    def _add(self, name: str, module: str) -> None:
        """Adds what ``name`` means at the top level of ``module``, unless it means nothing there (a
        local name, a builtin).
        """
        source, statements = _parsed(sys.modules[module])
        for statement in statements:
            match statement:
                case ast.Import(names):
                    for alias in names:
                        if (alias.asname or alias.name.partition(".")[0]) == name:
                            self._import_module(alias, module)
                case ast.ImportFrom(names=names):
                    for alias in names:
                        if (alias.asname or alias.name) == name:
                            self._import_name(alias, statement, module)
                case ast.ClassDef() | ast.FunctionDef() if statement.name == name:
                    self._define(name, module, statement, _text(source, statement))
                case ast.Assign(targets=[ast.Name(id=target)]) if target == name:
                    self._define(name, module, *self._assigned(source, statement))
                case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr()) if target == name:
                    self._define(name, module, *self._assigned(source, statement))

    def _import_module(self, alias: ast.alias, module: str) -> None:
        if self._belongs(alias.name, module):
            raise UserError(
                f"{CANNOT}: {module} imports the module {alias.name} as a whole; import the names "
                f"that it uses, as in from {alias.name} import NAME"
            )
        self.modules.add(alias.name + (f" as {alias.asname}" if alias.asname else ""))

    def _import_name(self, alias: ast.alias, statement: ast.ImportFrom, module: str) -> None:
        source = statement.module or ""
        if statement.level:
            package = sys.modules[module].__package__
            source = importlib.util.resolve_name("." * statement.level + source, package)
        if not self._belongs(source, module):
            text = alias.name + (f" as {alias.asname}" if alias.asname else "")
            self.names.setdefault(source, set()).add(text)
        elif alias.asname not in (None, alias.name):
            raise UserError(
                f"{CANNOT}: {module} imports {alias.name} of {source} as {alias.asname}; import it "
                "by its own name"
            )
        elif isinstance(getattr(sys.modules[source], alias.name, None), ModuleType):
            raise UserError(
                f"{CANNOT}: {module} imports the module {source}.{alias.name} as a whole; import "
                "the names that it uses"
            )
        else:
            self._add(alias.name, source)

    def _belongs(self, source: str, module: str) -> bool:
        """Whether what is imported from ``source`` is to be copied; if not, it may be imported."""
        root = source.partition(".")[0]
        if root in self.own:
            return True
        if root != "torch" and root not in sys.stdlib_module_names:
            raise UserError(
                f"{CANNOT}: {module} imports {root}, but an exported network needs PyTorch alone; "
                "do without it in what the network's class uses"
            )
        return False

    def _define(self, name: str, module: str, node: ast.AST, text: str) -> None:
        if name in self._origin:
            if self._origin[name] != module:
                raise UserError(
                    f"{CANNOT}: {name} is defined in {module} and in {self._origin[name]}, and one "
                    "file cannot hold both; rename one"
                )
            return
        self._origin[name] = module
        for statement in _parsed(sys.modules[module])[1]:
            if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
                for alias in statement.names:
                    self.names.setdefault("__future__", set()).add(alias.name)
        for used in ast.walk(node):
            if isinstance(used, ast.Name) and used.id != name:
                self._add(used.id, module)
        self.texts[name] = text

    def _assigned(self, source: str, statement: ast.Assign | ast.AnnAssign) -> tuple[ast.AST, str]:
        """What a statement assigns, and its text with the comment above it; of a table of functions
        the entries in use alone.
        """
        comment, lines = _with_comment(source, statement)
        table = statement.value
        if not (
            isinstance(table, ast.Dict)
            and isinstance(statement, ast.Assign)
            and all(isinstance(value, ast.Lambda) for value in table.values)
        ):
            return statement, "\n".join(comment + lines)
        kept = [
            (k, v)
            for k, v in zip(table.keys, table.values, strict=True)
            if ast.literal_eval(k) in self.keys
        ]
        entries = [
            f"    {ast.get_source_segment(source, k)}: {ast.get_source_segment(source, v)},"
            for k, v in kept
        ]
        text = [*comment, f"{statement.targets[0].id} = {{", *entries, "}"]
        return ast.Dict([k for k, _ in kept], [v for _, v in kept]), "\n".join(text)

    def import_lines(self) -> list[str]:
        names = [
            f"from {module} import {', '.join(sorted(names))}"
            for module, names in sorted(self.names.items())
        ]
        future = [line for line in names if line.startswith("from __future__ ")]
        whole = [f"import {module}" for module in sorted(self.modules)]
        return future + whole + [line for line in names if line not in future]


@cache
def _parsed(module: ModuleType) -> tuple[str, list[ast.stmt]]:
    source = inspect.getsource(module)
    return source, ast.parse(source).body


def _text(source: str, statement: ast.ClassDef | ast.FunctionDef) -> str:
    first = min([statement.lineno, *(decorator.lineno for decorator in statement.decorator_list)])
    return "\n".join(source.splitlines()[first - 1 : statement.end_lineno])


def _with_comment(source: str, statement: ast.stmt) -> tuple[list[str], list[str]]:
    """The lines of the comment right above a statement, and those of the statement."""
    lines = source.splitlines()
    first = statement.lineno - 1
    while first and lines[first - 1].startswith("#"):
        first -= 1
    return lines[first : statement.lineno - 1], lines[statement.lineno - 1 : statement.end_lineno]


def _strings(value: Any) -> Iterator[str]:
    """All strings in nested values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _strings(list(value.items()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def network_source(
    kind: type,
    settings: Mapping[str, Any],
    *,
    architecture: str,
    version: str,
    task: Task,
    mean: list[float],
    std: list[float],
) -> str:
    """The text of ``network.py``: ``kind(**settings)`` with every definition that it needs, as a
    person would lay it out.

    ``architecture`` is the architecture in its papers' notation, ``task`` what it was trained for;
    ``mean`` and ``std`` (per channel, of pixels from 0 to 1) normalise the images.

    Raises:
        UserError: some definition cannot be copied; the line says which and why.
    """
    definitions = Definitions(kind, set(_strings(settings)))
    wrapped = textwrap.fill(
        architecture,
        120,
        initial_indent="    ",
        subsequent_indent="        ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    shape = ", ".join(str(size) for size in task.input_shape)
    header = f'''"""A network that was found and trained by {PROJECT} {version}. This file needs PyTorch alone.

{wrapped}

    from safetensors.torch import load_file

    model = network()
    model.load_state_dict(load_file("model.safetensors"))
    logits = model.eval()(images)  # [B, {shape}] -> [B, {task.outputs}]

Images are pixels from 0 to 1, less MEAN, divided by STD, both one number a channel.
"""'''
    data = f"""INPUT_SHAPE = ({shape})  # channels, height, width
MEAN = {mean}
STD = {std}
# What the network is built with: its architecture and its size.
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
