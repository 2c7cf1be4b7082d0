"""Overrides, the words KEY=VALUE, in Hydra's grammar."""

import contextlib
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from supernet.cli.messages import WHOLE
from supernet.cli.options import Folders
from supernet.config import SEVERAL
from supernet.errors import UserError


def readable(override: str, folders: Folders) -> str:
    """The override, with quotes around its value if Hydra's grammar cannot read it otherwise. An
    architecture, for example, needs quotes.

    Raises:
        UserError: it is not an override, or it removes a whole group.
    """
    name, _, value = override.partition("=")
    for text in (override, f"{name}={quoted(value)}"):
        with contextlib.suppress(OverrideParseException):
            (parsed,) = OverridesParser.create().parse_overrides([text])
            group = parsed.key_or_group
            if not group:
                break
            several = group in SEVERAL and isinstance(parsed.value(), list)
            chosen = parsed.is_sweep_override() or isinstance(parsed.value(), str) or several
            if group in folders.groups() and (parsed.is_delete() or not chosen):
                names = ", ".join(folders.options(group))
                what = "leave it out" if group in WHOLE else "a run needs one"
                raise UserError(f"{override}: {what}; choose one of {names}")
            return text
    raise UserError(f"{override!r} is not KEY=VALUE; see supernet --help")


def quoted(text: str) -> str:
    return "'" + text.replace("'", "\\'") + "'"


def single_jobs(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of some jobs of a sweep, so that each value of each swept key is in one of
    them.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    swept = {
        o.input_line: [f"{o.key_or_group}={v}" for v in o.sweep_string_iterator()]
        for o in parsed
        if o.is_sweep_override()
    }
    first = [swept.get(o, [o])[0] for o in overrides]
    found = [first]
    for position, override in enumerate(overrides):
        found += [
            [*first[:position], value, *first[position + 1 :]]
            for value in swept.get(override, [])[1:]
        ]
    return found
