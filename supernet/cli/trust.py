"""A folder is data, never code: what recorded settings may say.

``from=DIR`` and ``rank.beside=[DIR]`` read the overrides that ``DIR/.hydra/overrides.yaml`` holds.
The folder may come from someone else. So these overrides may only choose options of this package
and set values. They are refused, before anything is imported, if they

- set Hydra's own settings (``hydra.*``), place an option elsewhere (``group@package``), sweep, or
  take an option from outside its group's folder: this program records none of these;
- read the environment or call a resolver in any other way (``${oc.env:HOME}``);
- name a class, by ``_target_``, that no option of the same group in the package names;
- name a program, FILE.py:NAME, as ``space.model`` does.

The user can say that the last three are meant: ``trust=true``, or the same override given anew.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from supernet.cli.options import Folders, Recorded, conf_dir
from supernet.errors import UserError
from supernet.files import PROGRAM, absolute
from supernet.named import classes, programs

# A class that a text names: ``_target_: my.Space`` in YAML, ``_target_=my.Space`` in an override.
NAMED = re.compile(r"_target_['\"]?\s*[=:]\s*['\"]?([\w.]+)")
# A program that a text names: ``space.model=net.py:Net``.
NAMED_PROGRAM = re.compile(r"[=\s'\"]([^=\s'\"]+\.py:[A-Za-z_]\w*)['\"]?$", re.M)


def named(overrides: Sequence[str], folders: Folders) -> frozenset[str]:
    """The classes and programs that the user names, by overrides or in folders of options."""
    files = [path for own in folders.own for path in own.rglob("*.yaml")]
    texts = [*overrides, *(path.read_text(encoding="utf-8", errors="replace") for path in files)]
    programs = [name for text in texts for name in NAMED_PROGRAM.findall(text)]
    programs += [absolute(name, "space.model") for name in programs]
    return frozenset([name for text in texts for name in NAMED.findall(text)] + programs)


# --- the overrides, before Hydra composes them


def require_plain(overrides: Sequence[str], folder: Path, trusted: bool) -> None:
    """Raises a UserError unless every override chooses an option or sets a value, and nothing else.

    If the folder is ``trusted``, resolvers are allowed; the rest is not, because this program never
    records it.
    """
    for override in overrides:
        if found := next(forbidden(override), None):
            raise UserError(
                f"{place(folder)}: {override!r}: {found}, which supernet never records; remove "
                "this line, or start without from="
            )
        if not trusted and calls(override):
            raise UserError(
                f"{place(folder)}: {override!r} reads more than the settings; if you trust this "
                "folder, add trust=true, or give the value anew on the command line"
            )


def forbidden(override: str) -> Iterator[str]:
    """Yields what an override does that no recorded one may do."""
    try:
        (parsed,) = OverridesParser.create().parse_overrides([override])
        name, value = parsed.key_or_group, parsed.value()
    except (HydraException, RecursionError, ValueError):
        name, parsed = "", None
    if not name or parsed is None:
        yield "it is not KEY=VALUE"
        return
    if re.split(r"[./]", name)[0] == "hydra":
        yield "it sets Hydra's own settings"
    if parsed.package is not None:
        yield "it places an option elsewhere"
    if parsed.is_sweep_override():
        yield "it is a sweep"
    elif is_choice(parsed) and any(map(leaves, strings(value))):
        yield "it takes an option from outside its group"


def is_choice(override: Override) -> bool:
    """Whether an override chooses an option of a group."""
    name = override.key_or_group
    return "/" in name or (conf_dir() / name).is_dir()


def leaves(option: str) -> bool:
    """Whether the name of an option is a path out of the folder of its group."""
    return option.startswith(("/", "file:", "pkg:")) or ".." in re.split(r"[/\\]", option)


def strings(value: Any) -> Iterator[str]:
    """Every string in a value, at any depth."""
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        for one in value:
            yield from strings(one)
    elif value is not None:
        yield str(value)


def calls(text: str) -> bool:
    """Whether a text has an interpolation that calls a resolver, as ``${oc.env:HOME}`` does.

    A reference to another setting (``${method}``) has no colon. The name of a resolver stands
    before its colon, so that a brace in a quoted argument cannot hide the colon.
    """
    for start in (found.end() for found in re.finditer(r"\$\{", text)):
        depth, inside = 1, ""
        for letter in text[start:]:
            depth += {"{": 1, "}": -1}.get(letter, 0)
            if depth == 0:
                break
            inside += letter
        if depth or ":" in inside:
            return True
    return False


# --- the classes, after the composition, when every way to write a node has become a node


def require_known_classes(tree: Mapping[str, Any], source: Recorded) -> None:
    """Raises a UserError if recorded settings name a class that is neither the package's own nor
    given anew, or a program that is not given anew. Nothing is imported.
    """
    for where, target in foreign(tree):
        if target not in source.classes:
            program = PROGRAM.fullmatch(target) is not None
            anew = f"{where}={target}" if program else f"{where}._target_={target}"
            what = "this is a program" if program else "this class is not one of supernet's own"
            raise UserError(
                f"{anew}: {what}, and {place(source.folder)} is "
                "data that may come from someone else; if you trust it, add trust=true, or give "
                f"the {'program' if program else 'class'} anew: {anew}"
            )


def foreign(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields every node whose class no option of its group names, and every program: where it is,
    and the class or program.
    """
    for group, node in tree.items():
        for where, target in classes(node, group):
            if target not in classes_of(group):
                yield where, str(target)
        yield from programs(node, group)


@cache
def classes_of(group: str) -> frozenset[str]:
    """The classes that the package's own options of a group name, each also by the shorter names
    under which the package gives it (``supernet.spaces.NB201``).
    """
    texts = (
        path.read_text(encoding="utf-8") for path in sorted((conf_dir() / group).glob("*.yaml"))
    )
    found = {name for text in texts for name in NAMED.findall(text) if name.startswith("supernet.")}
    shorter = {
        ".".join([*name.split(".")[:length], name.rpartition(".")[2]])
        for name in found
        for length in range(1, name.count(".") + 1)
    }
    return frozenset(found | shorter)


def needs_trust(overrides: Sequence[str], tree: Mapping[str, Any], folders: Folders) -> bool:
    """Whether a folder that records these settings is only gone on with by ``trust=true``."""
    return bool(folders.own) or any(map(calls, overrides)) or any(foreign(tree))


def place(folder: Path) -> str:
    """The file of the overrides that ``folder`` was started with, for messages."""
    return str(folder / ".hydra" / "overrides.yaml")
