"""Files: atomic writes, checksums, the paths that settings name, and the readers of JSON and npz.

A write is atomic: a file is written as a whole or not at all, even if the process crashes.
"""

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supernet.errors import UserError

if TYPE_CHECKING:
    import numpy as np

# The metadata of a dataclass field that holds the path of a file or folder, or a list of paths.
# Such a setting becomes absolute where the command line is read, and the content of its file is
# part of the keys of jobs.
PATH = {"path": ""}
# The same for a field that holds a path only if its value ends in .json, or names a program.
JSON_PATH = {"path": r"\.json$"}
PROGRAM_PATH = {"path": r"\.py:[A-Za-z_]\w*$"}
# A text that names a program: a class or function NAME in a file, FILE.py:NAME.
PROGRAM = re.compile(r"(?s:.+)\.py:[A-Za-z_]\w*")


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path in the folder of ``path``. When the block ends, the temporary file
    replaces ``path``.

    The temporary file is on disk (fsync) before it is renamed. A crash at any moment therefore
    leaves either the old file or the new one. If the block raises, the temporary file is removed
    and the old file stays unchanged.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
        if os.name == "posix":  # the rename survives a crash only once the folder is on disk too
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another "
            "folder (what was there before is untouched)"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes ``text`` as UTF-8, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes ``value`` as indented JSON, atomically.

    Raises:
        ValueError: ``value`` contains NaN or infinity, which JSON cannot express.
        UserError: the file cannot be written.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads one JSON file; :func:`supernet.shapes.read` also checks what it holds.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    return parsed(Path(path), from_json, "JSON")


def from_json(text: str | bytes) -> Any:
    """The value that a JSON text stands for. Its numbers are finite, because JSON has no others.

    Raises:
        ValueError: it is not JSON.
    """
    return json.loads(text, parse_constant=finite, parse_float=finite)


def finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a number that JSON has")
    return value


def parsed(path: Path, parse: Callable[[str], Any], language: str) -> Any:
    """The value that the text of a file stands for. ``parse`` raises a ValueError if it is not of
    that ``language``.

    Raises:
        UserError: the file cannot be read, or is not of that language.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; restore it") from error
    except (ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise UserError(
            f"{path} is not valid {language} ({said}); restore it or remove it"
        ) from error


def within(folder: Path, name: str) -> Path:
    """The file of that ``name`` in ``folder``.

    Raises:
        UserError: the name, or a symbolic link, leads out of the folder.
    """
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UserError(f"{folder / name}: this is outside the folder; remove it from there")
    return path


def absolute(path: str, setting: str) -> str:
    """The absolute form of a path that a person typed: ``~`` is replaced by the home folder, and a
    relative path begins in the working folder. Links are kept. ``setting`` is the name of the
    setting that holds the path, for the message.

    Raises:
        UserError: the path is empty, or the home folder that ``~NAME`` means is not known.
    """
    if not path.strip():
        raise UserError(f"{setting}={path}: is empty; give the path of a file or folder")
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError as error:
        raise UserError(
            f"{setting}={path}: there is no such user; write the whole path, or ./{path} for a "
            "name that begins with ~"
        ) from error


def file_of(path: str) -> Path:
    """The file that a setting names: the path, or the file of a program (FILE.py:NAME)."""
    return Path(path.rpartition(":")[0] if PROGRAM.fullmatch(path) else path)


def content_of(path: str) -> str:
    """What a setting stands for that names a file: its checksum; for a program also its NAME."""
    program = PROGRAM.fullmatch(path)
    return checksum(file_of(path)) + (f":{path.rpartition(':')[2]}" if program else "")


def checksum(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); restore it or remove it"
        ) from error


def read_npz(path: Path, where: str, names: Sequence[str] | None = None) -> "dict[str, np.ndarray]":
    """Reads the arrays ``names`` of an npz file, or all of its arrays. Names that the file does not
    have are left out. Pickled objects are not read, so that no code of the file runs.

    ``where`` is what messages call the file.

    Raises:
        UserError: the file is missing, is not an npz file, or is damaged; or one of the arrays is
            not an array of numbers or of text.
    """
    import numpy as np  # imported late, because every command imports this module

    try:
        with open(path, "rb") as handle:  # numpy itself would not close a damaged file
            file = np.load(handle, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise UserError(f"{where}: holds a single array; save arrays by name, numpy.savez")
            wanted = file.files if names is None else [name for name in names if name in file.files]
            arrays = {name: file[name] for name in wanted}
    except FileNotFoundError as error:
        raise UserError(f"{where}: no such file; give the path of an npz file") from error
    except UserError:
        raise
    # Damaged bytes reach several libraries, and they raise errors of a dozen types.
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise UserError(
            f"{where}: not a readable npz file, or damaged ({reason}); write it anew with "
            "numpy.savez"
        ) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # numpy returns other members of the zip as bytes
            raise UserError(
                f"{where}: {name} is a file of another kind, not an array; write it anew with "
                "numpy.savez"
            )
    return arrays
