"""Tasks for tests."""

from supernet.task import Classification


def task_of(classes: int, channels: int = 3, size: tuple[int, int] = (8, 8)) -> Classification:
    """The classification task of small images."""
    return Classification((channels, *size), classes)
