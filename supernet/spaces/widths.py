"""Widths as papers of mobile networks round them."""

from supernet.spaces.declared.choices import Computed, Size


def nearest(width: float, ratio: float = 1.0, divisor: int = 8) -> int:
    """The multiple of ``divisor`` that is nearest to ``width * ratio``. If it is more than a tenth
    smaller, it is the next larger multiple (Howard et al., ICCV 2019, MobileNetV3).
    """
    wanted = width * ratio
    found = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return found + divisor if found < 0.9 * wanted else found


def rounded(width: int | Size, ratio: float | Size = 1.0) -> int | Size:
    """:func:`nearest`, for numbers and for choices."""
    if isinstance(width, Size) or isinstance(ratio, Size):
        return Computed(nearest, width, ratio)
    return nearest(width, ratio)
