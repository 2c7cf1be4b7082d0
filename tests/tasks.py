"""Tasks for tests."""

from supernet.spaces.space import Space
from supernet.task import Classification, NextToken


def task_of(classes: int, channels: int = 3, size: tuple[int, int] = (8, 8)) -> Classification:
    """The classification task of small images."""
    return Classification((channels, *size), classes)


def task_for(space: Space, classes: int = 10, channels: int = 3) -> Classification:
    """A task that the networks of a space can be built for: small images, or a short text."""
    if isinstance(getattr(space, "any_task", None), NextToken):
        return NextToken((6,), classes)
    return task_of(classes, channels)
