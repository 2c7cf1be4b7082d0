"""The class that a user names as FILE.py:NAME.

The file is run as a module of its own. Whoever calls this must know that the user trusts the file:
the command line runs it only if the user named it there (:mod:`supernet.cli.trust`).
"""

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from supernet.errors import UserError, unknown
from supernet.files import PROGRAM
from supernet.task import Task

EXPECTED = "expected FILE.py:NAME, the name of a class in a file"


def class_of(model: str) -> Any:
    """The class or function that ``model`` names.

    A file is run once for each content. Its module is called by the name of the file and the
    content, so that networks can be copied and pickled, and that their source can be found.

    Raises:
        UserError: the text is not FILE.py:NAME, the file cannot be read or run, or defines no such
            name.
    """
    file, _, name = model.rpartition(":")
    if not PROGRAM.fullmatch(model):
        raise UserError(f"space.model={model}: {EXPECTED}")
    path = Path(file).expanduser().resolve()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"space.model={model}: cannot read it ({error.strerror})") from error
    digest = hashlib.sha256(str(path).encode() + b"\0" + content).hexdigest()[:12]
    called = f"{path.stem}_{digest}"
    if called not in sys.modules:
        spec = importlib.util.spec_from_file_location(called, path)
        assert spec is not None and spec.loader is not None
        module = sys.modules[called] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[called]
            raise UserError(
                f"space.model={model}: the file cannot be run ({type(error).__name__}: {error})"
            ) from error
    found = getattr(sys.modules[called], name, None)
    if not callable(found):
        known = [n for n, value in vars(sys.modules[called]).items() if isinstance(value, type)]
        raise UserError(f"space.model={model}: {unknown(name, known)}")
    return found


def called(
    made: Callable[..., nn.Module], settings: Mapping[str, Any] | None, task: Task
) -> nn.Module:
    """The module that ``made`` returns for these settings. Its arguments ``classes``, ``channels``
    and ``task`` get their values from the task, where the settings do not give them.

    Raises:
        UserError: the settings are not its arguments.
    """
    given = {"classes": task.outputs, "channels": task.input_shape[0], "task": task}
    named = inspect.signature(made).parameters
    own = {name: value for name, value in given.items() if name in named}
    arguments = own | dict(settings or {})
    try:
        inspect.signature(made).bind(**arguments)
    except TypeError as error:
        raise UserError(
            f"space.model={made.__name__}: {error}; give its arguments by space.settings"
        ) from error
    return made(**arguments)
