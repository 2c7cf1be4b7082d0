"""The error type for every problem that the user can solve, and checks that raise it."""

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any


class UserError(ValueError):
    """A problem that the user can solve. Its text is one line that says what is wrong, where, and
    what to do.

    The command line prints this line without a traceback and exits with code 2.
    """


def one_line(error: BaseException) -> str:
    """The error in one line. The type of an error that is not the user's is part of the line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


# What torch, numpy and the system say if there is not enough memory; in lower case. They say it in
# errors of several types.
NO_MEMORY = (
    "out of memory",
    "allocate memory",
    "not enough memory",
    "unable to allocate",
    "bad_alloc",
    "failed to map segment",
    "storage size calculation overflowed",
    "integer multiplication overflow",
    "array is too big",
    "maximum allowed dimension exceeded",
    "can't start new thread",
)


def lacks_memory(error: BaseException) -> bool:
    """Whether the error says that there is not enough memory."""
    if isinstance(error, UserError):
        return False
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in NO_MEMORY)


@contextmanager
def enough_memory(what: str, change: str = "") -> Iterator[None]:
    """Raises a UserError if there is not enough memory for what the block does.

    ``what`` names that for the message, and ``change`` the settings to make smaller.
    """
    try:
        yield
    except Exception as error:
        if not lacks_memory(error):
            raise
        change = change or "network, batch or set of images, or allow the process more memory"
        wanted = re.search(r"(\d+) bytes|allocate ([\d.]+ \wi?B)", str(error))
        size = ""
        if wanted is not None:
            count = wanted[2] or f"{int(wanted[1]) / 2**30:,.2f} GiB"
            size = f" (it asked for {count} at once)"
        raise UserError(
            f"{what}: there is not enough memory{size}; choose a smaller {change}"
        ) from error


def unknown(word: str, known: Sequence[str]) -> str:
    """The message for a name that is not in ``known``. It suggests the most similar known name, if
    one is similar.
    """
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    several = word.split(",")
    if several[1:] and set(several) <= set(known):
        hint = "add -m to run a job for each; "
    return f"unknown {word!r}; {hint}choose one of {', '.join(known)}"


def is_number(value: Any) -> bool:
    """Whether ``value`` is a number. ``True`` and ``False`` are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def require(
    key: str,
    value: float,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> None:
    """Raises a UserError unless ``value`` is a finite number, at least ``least``, greater than
    ``above``, below ``below`` and at most ``most``. ``key`` is the name of the setting that has
    this value. ``True`` and ``False`` are no numbers.
    """
    # a whole number may be too large for a float, and is then finite all the same
    finite = is_number(value) and (isinstance(value, int) or math.isfinite(value))
    if finite and least <= value <= most and above < value < below:
        return
    bounds = {"at least": least, "greater than": above, "below": below, "at most": most}
    wanted = " and ".join(
        f"{word} {bound:.19g}" if isinstance(bound, float) else f"{word} {bound}"
        for word, bound in bounds.items()
        if math.isfinite(bound)
    )
    raise UserError(f"{key}={value}: must be {wanted or 'a finite number'}")


def require_different(key: str, values: Sequence[Any]) -> None:
    """Raises a UserError if one of ``values`` is there twice. ``key`` is the name of the
    setting.
    """
    twice = [value for number, value in enumerate(values) if value in values[:number]]
    if twice:
        raise UserError(f"{key}: {twice[0]} is there twice; leave one out")


def require_stages(key: str, stages: Sequence[Any]) -> None:
    """Raises a UserError unless ``stages`` is a list of pairs of numbers, whose first numbers are
    shares of the search (0 to below 1) that rise. ``key`` is the name of the setting.
    """
    pairs = all(
        isinstance(stage, list | tuple) and list(map(is_number, stage)) == [True, True]
        for stage in stages
    )
    starts = [stage[0] for stage in stages] if pairs else []
    if not (
        pairs
        and all(0 <= start < 1 for start in starts)
        and all(a < b for a, b in pairwise(starts))
    ):
        raise UserError(
            f"{key}={stages}: must be pairs, the first of each a rising share of the search below 1"
        )
