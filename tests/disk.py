"""A full disk, on any machine."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def small_disk(largest: int) -> Iterator[None]:
    """No file can grow beyond ``largest`` bytes: every writer of this process meets the error of
    the system, as on a full disk.

    Every writer, the test runner's own output among them where it goes to a file: keep nothing
    inside but what is to fail.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
