"""Settings that are text keep the text that was typed, and switches are true or false.

Hydra reads a value before it knows which setting it is for: ``2024_01_15`` is a number, ``null``
is nothing, ``a,b`` are two jobs of a sweep, ``[x]`` is a list. If the type of the setting is text,
such a value is put into quotes here, so that Hydra takes it as it is. A value that was typed with
quotes around it is left to Hydra, and so are references (``${...}``), the ``null`` of a setting
that may have no value, and the commas of a sweep (``-m``).
"""

import dataclasses
import types
import typing
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, cast

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from omegaconf import DictConfig, OmegaConf

from supernet.cli.composition import composition
from supernet.cli.line import CommandLine, key
from supernet.cli.options import Folders
from supernet.cli.overrides import quoted
from supernet.cli.trust import require_known_classes
from supernet.config import Config, class_of, require_switch
from supernet.errors import UserError


def with_texts(line: CommandLine, before: Sequence[str]) -> list[str]:
    """The overrides of the line, with quotes around text that Hydra would read as something else.
    ``before`` are overrides that hold as well, unless the line has them.

    Raises:
        UserError: a setting that is true or false has another value.
    """
    types_of = Types([*before, *line.overrides], line.folders)
    return [with_text(override, line.sweeps, types_of) for override in line.overrides]


def with_text(override: str, sweeps: bool, types_of: "Types") -> str:
    """One of the overrides of :func:`with_texts`."""
    (parsed,) = OverridesParser.create().parse_overrides([override])
    name, equals, typed = override.partition("=")
    if not equals or parsed.is_delete() or "@" in name or types_of.chooses(override):
        return override
    value = None if parsed.is_sweep_override() else parsed.value()
    if types_of.of_section(key(override)) is bool and isinstance(value, int | float | str):
        require_switch(key(override), typed)
    if says_the_same(parsed, typed):
        return override
    kind = types_of(key(override))
    inner = {one for one in alternatives(kind) if one is not type(None)}
    if sweeps and parsed.is_choice_sweep() and "(" not in typed and inner <= {str}:
        return f"{name}={','.join(map(as_text, pieces(typed)))}" if inner else override
    if inner == {str}:
        nothing = value is None and typed == "null" and type(None) in alternatives(kind)
        swept = sweeps and (parsed.is_sweep_override() or isinstance(value, str))
        return override if nothing or swept else f"{name}={quoted(typed)}"
    if inner == {list[str]} and isinstance(value, list):
        items = list(pieces(typed.strip()[1:-1]))
        return override if items == value else f"{name}=[{','.join(map(as_text, items))}]"
    return override


def says_the_same(parsed: Override, typed: str) -> bool:
    """Whether a text setting gets what was typed, however Hydra reads it."""
    if parsed.is_sweep_override():
        return False
    raw, value = parsed._value, parsed.value()
    if isinstance(raw, QuotedString):
        return True
    return not isinstance(value, bool | None | list | dict) and str(value) == typed


def pieces(typed: str) -> Iterator[str]:
    """The parts of a text between its commas. Commas inside quotes or brackets do not count."""
    start, depth, quote = 0, 0, ""
    for place, letter in enumerate(typed):
        if quote:
            quote = "" if letter == quote and typed[place - 1] != "\\" else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == "," and not depth:
            yield typed[start:place].strip()
            start = place + 1
    if typed[start:].strip():
        yield typed[start:].strip()


def as_text(piece: str) -> str:
    """A piece in quotes. Quotes that it has already are kept."""
    has = len(piece) > 1 and piece[0] == piece[-1] and piece[0] in "'\""
    return piece if has else quoted(piece)


def alternatives(kind: Any) -> set[Any]:
    """The types that a type allows: ``str | None`` -> {str, None}."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return set(typing.get_args(kind))
    return {kind}


class Types:
    """Looks up the type of a setting by its full name. ``None`` if it is not known.

    The settings of a part have the types of its class. The class is imported only if the YAML does
    not show the type, because torch takes seconds to import.
    """

    def __init__(self, overrides: Sequence[str], folders: Folders):
        self.folders, self.groups = folders, folders.groups()
        self.choices = [one for one in overrides if self.chooses(one)]

    def chooses(self, override: str) -> bool:
        """Whether an override chooses a part or a recipe."""
        return key(override) in self.groups or key(override).endswith("._target_")

    def __call__(self, name: str) -> Any:
        found = self.of_section(name)
        if found is None and not name.startswith("hydra."):  # a part, or something in it
            return self.in_part(name)
        return found

    @staticmethod
    def of_section(name: str) -> Any:
        """The same, without the settings of parts."""
        first, _, rest = name.partition(".")
        kind, steps = (HydraConf, rest) if first == "hydra" else (Config, name)
        found, left = walked(kind, steps.split("."))
        return None if left else found

    @cached_property
    def tree(self) -> DictConfig:
        """The settings of the chosen parts.

        Raises:
            UserError: a recorded class is not known. None is imported before.
        """
        with composition(self.choices, self.folders) as cfg:
            tree = OmegaConf.masked_copy(cfg, [str(one) for one in cfg if one != "hydra"])
        if self.folders.recorded is not None:
            require_known_classes(
                cast(dict[str, Any], OmegaConf.to_container(tree)), self.folders.recorded
            )
        return tree

    def in_part(self, name: str) -> Any:
        """The type of a setting of a part."""
        tree = self.tree
        shown = at(tree, name)
        if isinstance(shown, bool | int | float | str):
            return type(shown)
        steps = name.split(".")
        for end in range(len(steps) - 1, 0, -1):
            where = ".".join(steps[:end])
            target = at(tree, f"{where}._target_")
            if isinstance(target, str):
                try:
                    kind = class_of({"_target_": target}, where)
                except UserError:
                    return None  # the message for it comes when the part is built
                found, left = walked(kind, steps[end:])
                return None if left else found
        return None


def walked(kind: Any, steps: Sequence[str]) -> tuple[Any, Sequence[str]]:
    """Follows the names of nested fields. Returns the type, and the names from the first one on
    that is not a field of a dataclass.
    """
    for number, step in enumerate(steps):
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
            return kind, steps[number:]
        hints = typing.get_type_hints(kind)
        if step not in hints:
            return kind, steps[number:]
        kind = hints[step]
    return kind, ()


def at(tree: DictConfig, name: str) -> Any:
    """The value at ``name`` as it is written, ``None`` if there is none."""
    node: Any = tree
    for step in name.split("."):
        if not isinstance(node, DictConfig) or step not in node._content:  # type: ignore[operator]
            return None
        node = node._get_node(step)
    return node._value() if node is not None else None
