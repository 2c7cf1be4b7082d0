"""The lock on the folder of a run: only one process at a time writes to it.

The operating system holds the lock, and releases it when the process ends for any reason. So a
killed run leaves no lock that somebody has to remove.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from supernet.errors import UserError

LOCK = ".lock"  # the file that is locked; it stays, because a file that is removed locks nothing
HOLDER = ".lock-holder"  # says who holds the lock, for the message; only as long as it is held


class InUse(UserError):
    """Another process writes to the folder."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds the lock on ``folder``, which must exist, inside the block.

    Raises:
        InUse: another process holds it. The message names the process.
        UserError: the folder cannot be written.
    """
    lock, holder = FileLock(folder / LOCK, timeout=0), folder / HOLDER
    try:
        lock.acquire()
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    except Timeout as error:
        raise InUse(
            f"{folder} is in use by {holder_of(folder)}, which writes to it; wait until that "
            "process has ended, or work in another folder"
        ) from error
    except OSError as error:
        lock.release()
        raise UserError(
            f"cannot write to {folder}: {error.strerror or error}; work in another folder, "
            "hydra.run.dir=FOLDER"
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # the folder may have been deleted
            holder.unlink(missing_ok=True)
        lock.release()


def holder_of(folder: Path) -> str:
    """The process that holds the lock on ``folder``, for people."""
    with suppress(OSError, UnicodeDecodeError):
        if text := (folder / HOLDER).read_text(encoding="utf-8")[:200]:
            return " ".join(text.split())
    return "another process"
