"""The drawings of the report that have axes: plain values in, matplotlib figures out; and how a
figure becomes a part of the page.

Words (titles, legends) stand in the page itself, where they wrap and can be read aloud. A drawing
holds its axes and their labels alone.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from supernet.report.series import Range
from supernet.report.style import Style

GRID, FRAME = "#e8ebee", "#b0b7bd"
WIDE, MEDIUM, SMALL = (5.2, 2.9), (3.6, 2.2), (1.85, 1.4)  # of a drawing, in inches
COUNTED = ("epoch", "evaluations")  # labels of axes with whole numbers alone
LETTERS = {WIDE: 9, MEDIUM: 8, SMALL: 7}  # the size of its letters, in points


@dataclass(frozen=True)
class Line:
    """One curve: points ``[n, 2]``, or the mean of several curves with their range as a band."""

    points: np.ndarray | Range
    style: Style
    name: str  # its id in the page, after that of the picture
    width: float = 1.3


@dataclass(frozen=True)
class Dots:
    """Points without a line between them; ``low`` and ``high`` are the ends of their intervals."""

    x: Sequence[float]
    y: Sequence[float]
    colour: str
    name: str
    marker: str = "o"
    size: float = 4
    hollow: bool = False
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    steps: bool = False  # whether a line in steps joins them
    across: bool = False  # whether the intervals are those of x


@dataclass(frozen=True)
class Chart:
    """What a drawing shows: its marks and what its axes say, with units."""

    x: str
    y: str
    lines: Sequence[Line] = ()
    dots: Sequence[Dots] = ()
    upright: Mapping[str, float] = field(default_factory=dict)  # dashed lines: name -> x
    limits: tuple[float, float] | None = None  # of y
    size: tuple[float, float] = WIDE
    logarithmic: bool = False  # the axis of y, which then needs limits
    names: Sequence[str] = ()  # of the places 0, 1, ... of y, from above


def identifier(*parts: object) -> str:
    """A name for an element of the page: letters, digits, ``_``, ``.`` and ``-`` alone."""
    return "-".join(re.sub(r"[^\w.]+", "-", str(part)) for part in parts)


def inline(figure: Figure, name: str) -> Markup:
    """The figure as an ``<svg>`` element: the only text of a page that is not escaped again.

    Matplotlib escapes the words in it. Every id begins with ``name``, so that several figures fit
    into one page.
    """
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(
            file, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    text = file.getvalue().decode()
    prefix = f"{identifier(name)}-"
    return Markup(re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", text[text.index("<svg") :]))


def drawn(chart: Chart) -> Figure:
    """The chart as a figure."""
    figure = Figure(figsize=chart.size, layout="constrained")
    axes = figure.subplots()
    tidy(axes, chart)
    for line in chart.lines:
        _line(axes, line)
    for dots in chart.dots:
        _dots(axes, dots)
    for name, x in chart.upright.items():
        axes.axvline(x, color=FRAME, linewidth=1, linestyle="--").set_gid(name)
    if chart.dots:
        axes.margins(x=0.1, y=0.1)
    if chart.limits:
        axes.set_ylim(*chart.limits)
    return figure


def tidy(axes: Axes, chart: Chart) -> None:
    """The labels of the axes, and numbers written in full."""
    size = LETTERS.get(chart.size, LETTERS[WIDE])
    axes.set_xlabel(chart.x, fontsize=size, parse_math=False)
    axes.set_ylabel(fill(chart.y, 28), fontsize=size, parse_math=False)
    framed(axes, size)
    for axis, label in ((axes.xaxis, chart.x), (axes.yaxis, chart.y)):
        if chart.names and axis is axes.yaxis:
            axes.set_yticks(range(len(chart.names)), chart.names, parse_math=False)
            axes.invert_yaxis()
            continue
        steps = 3 if chart.size == SMALL else 5
        axis.set_major_locator(MaxNLocator(steps, integer=label in COUNTED))
        axis.set_major_formatter(lambda value, _: number(value))
    if chart.logarithmic and chart.limits:
        low, high = chart.limits
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        axes.yaxis.set_major_formatter(lambda value, _: number(value))
        axes.minorticks_off()


def framed(axes: Axes, size: float) -> None:
    """A light grid, a frame at the left and below; ``size`` is that of the labels, in points."""
    axes.tick_params(labelsize=size - 1, color=FRAME)
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FRAME)


def number(value: float) -> str:
    """A number on an axis: ``12,000``, ``0.25``, ``3e-05``."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def _line(axes: Axes, line: Line) -> None:
    style: dict[str, Any] = {
        "color": line.style.colour,
        "linestyle": (0, line.style.dash) if line.style.dash else "-",
        "linewidth": line.width,
    }
    if isinstance(line.points, Range):
        x, y = line.points.x, line.points.mean
        band = axes.fill_between(
            x, line.points.low, line.points.high, color=line.style.colour, alpha=0.15, linewidth=0
        )
        band.set_gid(f"{line.name}-range")
    else:
        x, y = line.points.T
    marker = "." if len(x) < 2 else None  # a line needs two points, else it cannot be seen
    axes.plot(x, y, marker=marker, **style)[0].set_gid(line.name)


def _dots(axes: Axes, dots: Dots) -> None:
    if dots.low is not None and dots.high is not None:
        middle = dots.x if dots.across else dots.y
        ends = np.maximum(0, (np.subtract(middle, dots.low), np.subtract(dots.high, middle)))
        bars = axes.errorbar(
            dots.x,
            dots.y,
            xerr=ends if dots.across else None,
            yerr=None if dots.across else ends,
            fmt="none",
            ecolor=dots.colour,
            elinewidth=1,
            capsize=4,
        )
        bars.lines[2][0].set_gid(f"{dots.name}-interval")
    (line,) = axes.plot(
        dots.x,
        dots.y,
        color=dots.colour,
        marker=dots.marker,
        markersize=dots.size,
        markerfacecolor="none" if dots.hollow else dots.colour,
        linestyle="-" if dots.steps else "none",
        drawstyle="steps-post" if dots.steps else "default",
        linewidth=1.3,
    )
    line.set_gid(dots.name)
