"""A supernet of a model as it is: its widths, heads and depths become choices."""

from supernet.spaces.converted.space import convert

__all__ = ["convert"]
