"""Colours and dashes: one style for each name, the same in every picture of a page."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle, product

FOUND, OTHERS = "#0072b2", "#8a939b"  # the architecture that the run found; all others
COLOURS = (  # of Okabe & Ito, but for three: told apart by readers who do not see every colour
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#8c6d1f",
    "#56b4e9",
    "#7f3c8d",
    "#555555",
)
DASHES = ((), (4, 2), (1, 1.5))  # lengths of dash and gap in line widths; none is a solid line


@dataclass(frozen=True)
class Style:
    """How one name is drawn: as a line, or as dots."""

    colour: str
    dash: tuple[float, ...] = ()
    dots: bool = False


EVERY = tuple(Style(colour, dash) for dash, colour in product(DASHES, COLOURS))


def styles(names: Iterable[str]) -> dict[str, Style]:
    """A style for each name, in the order in which the names come.

    The colours are used up first, then the dashes; after that the styles begin again.
    """
    return dict(zip(dict.fromkeys(names), cycle(EVERY), strict=False))


def shared_styles(groups: Iterable[Iterable[str]]) -> dict[str, Style]:
    """A style for each name of several groups: the same wherever the name comes again, and
    different within a group as long as there are enough styles.
    """
    known: dict[str, Style] = {}
    for group in map(list, groups):
        taken = {known[name] for name in group if name in known}
        free = [style for style in EVERY if style not in taken] or list(EVERY)
        new = [name for name in dict.fromkeys(group) if name not in known]
        known |= dict(zip(new, cycle(free), strict=False))
    return known
