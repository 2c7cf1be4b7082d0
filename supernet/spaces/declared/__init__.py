"""Choices that are declared in an ordinary module, and the space that they make."""

from supernet.spaces.declared import elastic
from supernet.spaces.declared.blocks import Depth, OneOf
from supernet.spaces.declared.choices import Choose
from supernet.spaces.declared.space import declared

__all__ = ["Choose", "Depth", "OneOf", "declared", "elastic"]
