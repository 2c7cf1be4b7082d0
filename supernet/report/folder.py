"""What the pages that compare methods or searchers share: they are made from a folder, and end with
what repeats it.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from supernet.files import write_text
from supernet.report import values
from supernet.report.values import Results
from supernet.shapes import Overrides, Settings, read

# name of the folder, results.json, settings, overrides of the line -> HTML
Page = Callable[[str, Results, Mapping[str, Any], Sequence[str]], str]


def write_page(folder: Path, page: Page, shape: Any) -> Path:
    """Writes ``report.html`` in ``folder`` and returns its path. ``shape`` is that of the results.

    Raises:
        UserError: a file of the folder cannot be read, or the page cannot be written.
    """
    results, line = read(folder / "results.json", shape), folder / ".hydra" / "overrides.yaml"
    overrides = read(line, Overrides) if line.exists() else []
    path = folder / "report.html"
    write_text(path, page(folder.resolve().name, results, settings_of(folder), overrides))
    return path


def settings_of(folder: Path) -> Mapping[str, Any]:
    """The settings that ``folder`` has recorded; none if it has not.

    Raises:
        UserError: they cannot be read.
    """
    path = folder / ".hydra" / "config.yaml"
    found: Mapping[str, Any] = read(path, Settings) if path.exists() else {}
    return found


def ending(
    results: Results, first: Results, config: Mapping[str, Any], overrides: Sequence[str]
) -> dict[str, Any]:
    """What ``comparison.html.jinja`` ends with. ``first`` holds the environment."""
    given = [one for one in overrides if not one.startswith("hydra.")]
    return {
        "command": shlex.join(["supernet", "study", *given]),
        "checklist": values.checklist(results),
        "settings": values.settings(config),
        "versions": values.versions(first),
    }
