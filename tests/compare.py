"""Comparison of nested states."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch


def differences(first: Any, second: Any, at: str = "") -> Iterator[str]:
    """Yields the paths at which two nested values differ in any bit."""
    if type(first) is not type(second):
        yield f"{at}: {type(first).__name__} and {type(second).__name__}"
    elif isinstance(first, torch.Tensor):
        if first.dtype != second.dtype or not torch.equal(first, second):
            yield at
    elif isinstance(first, Mapping):
        if first.keys() != second.keys():
            yield f"{at}: keys {sorted(map(str, first.keys() ^ second.keys()))}"
        for key in first.keys() & second.keys():
            yield from differences(first[key], second[key], f"{at}/{key}")
    elif isinstance(first, Sequence) and not isinstance(first, str):
        if len(first) != len(second):
            yield f"{at}: lengths {len(first)} and {len(second)}"
        for index, (one, other) in enumerate(zip(first, second, strict=False)):
            yield from differences(one, other, f"{at}/{index}")
    elif first != second:
        yield f"{at}: {first} and {second}"


def identical(first: Any, second: Any) -> bool:
    """Whether two nested values are the same to the last bit. Prints where they differ."""
    found = list(differences(first, second))
    print(*found, sep="\n")
    return not found
