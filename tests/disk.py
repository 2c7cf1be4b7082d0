"""Simulates a full disk on any machine."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def small_disk(largest: int) -> Iterator[None]:
    """No file can grow beyond ``largest`` bytes. Every write of this process beyond that fails as
    on a full disk.

    This also holds for the output of the test runner, if it goes to a file. Put only the code that
    must fail inside the block.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
