"""Keeps compiled libraries in the user's cache, and gives them out only if they are what was kept.

A library is code that this process runs. So it is loaded only from a folder and a file that belong
to the user and that no one else can write, and only if its content has the checksum that its name
says: a power failure can leave a part of a file, and a process that loads this part dies without a
word (SIGBUS).
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

OTHERS = stat.S_IWGRP | stat.S_IWOTH  # the group or everyone may write


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "supernet"


def kept(key: str, compile_to: Callable[[Path], None]) -> Path:
    """The library ``kernels-KEY-CHECKSUM.so`` of the cache. If there is none that is sound, it is
    made: ``compile_to`` writes it to a path.

    Raises:
        OSError: the folder belongs to someone else, or cannot be written.
    """
    folder = cache_folder()
    make_private(folder)
    for path in sorted(folder.glob(f"kernels-{key}-*.so")):
        if sound(path):
            return path
        path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        new = Path(temporary) / "kernels.so"
        compile_to(new)
        new.chmod(0o700)
        to_disk(new)
        target = folder / f"kernels-{key}-{checksum(new)}.so"
        new.replace(target)
    to_disk(folder)
    return target


def make_private(folder: Path) -> None:
    """Makes the folder, for this user only. If others could write a folder of this user, they no
    longer can, and the libraries in it are removed.

    Raises:
        PermissionError: it belongs to someone else, or everyone can replace it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name != "posix":
        return
    for parent in folder.resolve().parents:
        about = parent.stat()
        if about.st_mode & stat.S_IWOTH and not about.st_mode & stat.S_ISVTX:
            raise PermissionError(f"everyone can write {parent}, which holds the compiled kernels")
    about = folder.stat(follow_symlinks=False)
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
        raise PermissionError(f"{folder}, for the compiled kernels, is not a folder of this user")
    if about.st_mode & OTHERS:
        folder.chmod(0o700)
        for path in folder.glob("kernels-*"):
            path.unlink(missing_ok=True)


def sound(path: Path) -> bool:
    """Whether a file belongs to this user alone and has the checksum that its name says."""
    try:
        about = path.stat(follow_symlinks=False)
        own = os.name != "posix" or (about.st_uid == os.getuid() and not about.st_mode & OTHERS)
        regular = stat.S_ISREG(about.st_mode)
        return own and regular and path.stem.rpartition("-")[2] == checksum(path)
    except FileNotFoundError:  # another process has just removed it
        return False


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def to_disk(path: Path) -> None:
    """Waits until a file or folder is on disk, so that it survives a power failure."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
