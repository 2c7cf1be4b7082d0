"""The classes and programs that nested settings name, which are run when the settings are used."""

from collections.abc import Iterator, Mapping
from typing import Any

from supernet.files import PROGRAM


def classes(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Yields where a node is and the class that it names, for all nodes in a value."""
    if isinstance(value, Mapping) and "_target_" in value:
        yield where, value["_target_"]
    for place, part in parts(value, where):
        yield from classes(part, place)


def programs(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yields where a program, FILE.py:NAME, is named in a value, and its name."""
    if isinstance(value, str) and PROGRAM.fullmatch(value):
        yield where, value
    for place, part in parts(value, where):
        yield from programs(part, place)


def parts(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yields what a mapping or a list holds, and where it is."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield f"{where}.{name}", part
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield f"{where}[{index}]", part
