"""Writes the source of a network as one file that needs PyTorch only, and runs such a file.

The file holds the classes that trained the network, copied word for word. The search for them
starts at the network's class. It follows the names that a definition uses through the imports of
its module, and copies every definition that belongs to the network, after the definitions that it
needs itself. One rule decides what belongs to the network: modules of this project, and modules of
the same top-level package (or module) as the network's class. Everything else must be PyTorch or
the standard library, and is imported.

Some tables hold functions (lambdas), such as the table of the operations. Of such a table, only the
entries are kept whose names are in the arguments that the network is built with.
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
from typing import Any, NamedTuple

from torch import nn

from supernet.errors import UserError
from supernet.task import Task

PROJECT = __name__.partition(".")[0]
CANNOT = "cannot export the network"


class Definitions:
    """Everything that one class needs in a file of its own: the imports, and ``texts`` (name ->
    source, in order).

    No module is imported for this: everything that a class needs at run time is imported already.
    """

    def __init__(self, kind: type | None, keys: Collection[str] = (), assembled: bool = False):
        """``keys`` are the entries of tables of functions to keep. If the network is ``assembled``
        from its parts, its classes are copied without their constructors.
        """
        self.keys, self.assembled = keys, assembled
        self.own = {PROJECT}
        self.modules: set[str] = set()  # imported as a whole
        self.names: dict[str, set[str]] = {}  # module -> names imported from it
        self.texts: dict[str, str] = {}
        self._origin: dict[str, str] = {}  # name -> module that defines it
        if kind is not None:
            self.add(kind)

    def add(self, kind: type) -> None:
        """Adds the definition of a class.

        Raises:
            UserError: it is not defined at the top level of a module.
        """
        self.own.add(kind.__module__.partition(".")[0])
        if kind.__qualname__ != kind.__name__:
            raise UserError(
                f"{CANNOT}: {kind.__qualname__} is defined inside something else; define it at the "
                f"top level of {kind.__module__}"
            )
        self._add(kind.__name__, kind.__module__)

    def _add(self, name: str, module: str) -> None:
        """Adds the definition of ``name`` at the top level of ``module``. If there is none (it is a
        local name or a builtin), it adds nothing.
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
                    self._define(name, module, *self._copied(source, statement, module))
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
        """Whether a definition of the module ``source`` is copied; if not, it is imported.

        Raises:
            UserError: it may not be imported either.
        """
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

    def _copied(
        self, source: str, statement: ast.ClassDef | ast.FunctionDef, module: str
    ) -> tuple[ast.AST, str]:
        """The definition that is copied, and its text. An assembled module needs no constructor."""
        kind = getattr(sys.modules[module], statement.name, None)
        is_module = isinstance(kind, type) and issubclass(kind, nn.Module)
        if not (self.assembled and is_module and isinstance(statement, ast.ClassDef)):
            return statement, _text(source, statement)
        text = source.splitlines()
        first = min([statement.lineno, *(one.lineno for one in statement.decorator_list)]) - 1
        left_out: set[int] = set()
        for part in statement.body:
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                left_out |= set(range(part.lineno - 1, part.end_lineno or part.lineno))
        body = [part for part in statement.body if part.lineno - 1 not in left_out]
        kept = [text[n] for n in range(first, statement.end_lineno or 0) if n not in left_out]
        if not any(not _is_docstring(part) for part in body):
            kept.append("    pass")
        bare = ast.ClassDef(statement.name, statement.bases, statement.keywords, body, [])
        return bare, "\n".join(_squeezed(kept))

    def _assigned(self, source: str, statement: ast.Assign | ast.AnnAssign) -> tuple[ast.AST, str]:
        """The expression that a statement assigns, and the text of the statement with the comment
        above it. Of a table of functions, only the used entries are returned.
        """
        comment, lines = _with_comment(source, statement)
        table = statement.value
        if not (
            isinstance(table, ast.Dict)
            and isinstance(statement, ast.Assign)
            and isinstance(statement.targets[0], ast.Name)
            and all(isinstance(value, ast.Lambda) for value in table.values)
        ):
            return statement, "\n".join(comment + lines)
        kept = [
            (k, v)
            for k, v in zip(table.keys, table.values, strict=True)
            if k is not None and ast.literal_eval(k) in self.keys
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


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _squeezed(lines: list[str]) -> list[str]:
    """The lines without those that are empty behind an empty one, and without empty ones at the
    end.
    """
    found: list[str] = []
    for line in lines:
        if line.strip() or (found and found[-1].strip()):
            found.append(line)
    while found and not found[-1].strip():
        found.pop()
    return found


def _with_comment(source: str, statement: ast.stmt) -> tuple[list[str], list[str]]:
    """The lines of the comment directly above a statement, and the lines of the statement."""
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


class About(NamedTuple):
    """What ``network.py`` says of its network.

    Attributes:
        architecture: the architecture in the notation of its paper.
        version: that of this package.
        task: what the network was trained for.
        mean: of each channel, of pixels from 0 to 1; images are normalised by it.
        std: the same for the standard deviation.
    """

    architecture: str
    version: str
    task: Task
    mean: list[float]
    std: list[float]


def network_source(kind: type, settings: Mapping[str, Any], about: About) -> str:
    """The text of ``network.py``: ``kind(**settings)``, with every definition that it needs, in a
    readable layout.

    Raises:
        UserError: a definition cannot be copied. The message says which one, and why.
    """
    definitions = Definitions(kind, set(_strings(settings)))
    comment = "# What the network is built with: its architecture and its size."
    data = f"{comment}\nSETTINGS = {_literal(settings)}"
    return laid_out(definitions, data, kind.__name__, f"{kind.__name__}(**SETTINGS)", about)


IMAGES = "Images are pixels from 0 to 1, less MEAN, divided by STD, both one number a channel."
TOKENS = "Tokens are numbers; architecture.json lists what each one stands for (class_names)."


def laid_out(definitions: Definitions, data: str, kind: str, expression: str, about: About) -> str:
    """The text of ``network.py``, whose function ``network`` returns an ``expression`` of the class
    ``kind``.
    """
    architecture, version, task, mean, std = about
    wrapped = textwrap.fill(
        architecture,
        120,
        initial_indent="    ",
        subsequent_indent="        ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    shape = ", ".join(str(size) for size in task.input_shape)
    outputs = ", ".join(str(size) for size in task.output_shape or ("...",))
    inputs, axes, words = "images", "channels, height, width", IMAGES
    if len(task.input_shape) == 1:
        inputs, axes, words = "tokens", "length", TOKENS
    title = f"A network that was found and trained by {PROJECT} {version}."
    header = f'''"""{title} This file needs PyTorch alone.

{wrapped}

    from safetensors.torch import load_file

    model = network()
    model.load_state_dict(load_file("model.safetensors"))
    logits = model.eval()({inputs})  # [B, {shape}] -> [B, {outputs}]

{words}
"""'''
    facts = f"""INPUT_SHAPE = {tuple(task.input_shape)}  # {axes}
MEAN = {mean}
STD = {std}"""
    build = f'''def network() -> {kind}:
    """The network with fresh weights."""
    return {expression}'''
    parts = [
        header + "\n\n" + "\n".join(definitions.import_lines()),
        *definitions.texts.values(),
        "\n".join(filter(None, (facts, data))),
        build,
    ]
    return "\n\n\n".join(parts) + "\n"


def _literal(settings: Mapping[str, Any]) -> str:
    """A dictionary as Python source: one line for each entry, and for each item of a list."""
    lines = ["{"]
    for name, value in settings.items():
        if isinstance(value, list) and value:
            lines += [f'    "{name}": [', *(f"        {_value(item)}," for item in value), "    ],"]
        else:
            lines.append(f'    "{name}": {_value(value)},')
    return "\n".join([*lines, "}"])


def _value(value: Any) -> str:
    """The ``repr`` of a value, with double quotes as in the rest of the file."""
    if isinstance(value, tuple):
        return f"({', '.join(_value(item) for item in value)})"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def run_source(path: Path) -> ModuleType:
    """Runs the file at ``path`` in a module of its own. The file may import PyTorch and the
    standard library only.

    This proves that the file can be used alone, even if this project could be imported. The file is
    code: run only files that you trust.

    Raises:
        ImportError: the file imports another module.
    """

    def import_torch_alone(name: str, *rest: Any) -> ModuleType:
        root = name.partition(".")[0]
        if root != "torch" and root not in sys.stdlib_module_names:
            raise ImportError(f"{path.name} imports {name}, but may import torch alone")
        return builtins.__import__(name, *rest)

    module = ModuleType(path.stem)
    module.__dict__["__builtins__"] = vars(builtins) | {"__import__": import_torch_alone}
    # Exported programs record the file of each operation. With the bare name, they hold no path of
    # this machine.
    exec(compile(path.read_text(encoding="utf-8"), path.name, "exec"), module.__dict__)
    return module
