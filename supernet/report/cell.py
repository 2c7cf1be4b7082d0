"""Draws a cell as a graph: nodes in one row, edges as arcs above and below it, each with its
operation.
"""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch
from matplotlib.path import Path

Edge = tuple[str, str, str]  # source, target, operation
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#8c6d1f",
    "#56b4e9",
    "#7f3c8d",
    "#555555",
)  # Okabe & Ito, mostly
RADIUS = 0.14  # of a node; nodes are 1 apart
LEVEL = 0.42  # height of one level of arcs
OUTPUT_LEVEL = 0.3  # and of the unlabelled ones to the output


def nodes_of(edges: Sequence[Edge]) -> list[str]:
    """The nodes from left to right. A cell with inputs ``c_{k-2}``, ``c_{k-1}`` (DARTS) has an
    output ``c_k`` as well.
    """
    names = {name for source, target, _ in edges for name in (source, target)}
    inner = [str(i) for i in range(max([3, *(int(name) for name in names if name.isdigit())]) + 1)]
    if any(name.startswith("c_") for name in names):
        return ["c_{k-2}", "c_{k-1}", *inner, "c_k"]
    return inner


def levels(spans: Sequence[tuple[int, int]], width: float) -> list[int]:
    """The level of each arc, such that no two labels overlap: 0 is a straight line, positive is
    above it, negative below.

    A label stands at the middle of its arc and takes ``width`` (nodes are 1 apart). Short arcs come
    first, long ones pass over.
    """
    chosen: dict[int, int] = {}
    for i in sorted(range(len(spans)), key=lambda i: (spans[i][1] - spans[i][0], spans[i])):
        start, end = spans[i]
        if end - start == 1:
            chosen[i] = 0
            continue
        for level in [sign * size for size in range(1, len(spans) + 1) for sign in (1, -1)]:
            here = [j for j in chosen if chosen[j] == level]
            inside = [
                j
                for j in chosen
                if chosen[j] * level > 0 and start <= spans[j][0] and spans[j][1] <= end
            ]
            apart = all(abs(start + end - sum(spans[j])) / 2 > width for j in here)
            if apart and all(abs(level) > abs(chosen[j]) for j in inside):
                chosen[i] = level
                break
    return [chosen[i] for i in range(len(spans))]


def draw_cell(edges: Sequence[Edge], colours: dict[str, str]) -> Figure:
    """The graph of one cell; the edges have the ids ``edge-SOURCE-TARGET``."""
    nodes = nodes_of(edges)
    place = {name: i for i, name in enumerate(nodes)}
    heights = levels([(place[source], place[target]) for source, target, _ in edges], width=1.0)
    output = [(name, "c_k", "") for name in nodes if name.isdigit()] if "c_k" in place else []

    top, bottom = max([0, *heights]), min([0, *heights])
    lowest = min(bottom * LEVEL, -OUTPUT_LEVEL * (len(output) - 1))
    extent = (-0.5, len(nodes) - 0.5, lowest - 0.2, top * LEVEL + 0.2)
    scale = min(2.0, 10 / len(nodes))  # inches between two nodes
    figure = Figure(figsize=((extent[1] - extent[0]) * scale, (extent[3] - extent[2]) * scale))
    axes = figure.add_axes(
        (0, 0, 1, 1), frameon=False, xlim=extent[:2], ylim=extent[2:], aspect="equal"
    )
    axes.set_axis_off()

    for source, target, _ in output:
        span = place[target] - place[source]
        arc(
            axes,
            place[source],
            place[target],
            -OUTPUT_LEVEL * (span - 1),
            f"output-{source}",
            color="#c8ccd0",
            linewidth=0.8,
            zorder=1,
        )
    for (source, target, operation), level in zip(edges, heights, strict=True):
        colour = colours.get(operation, "#333333")
        start, end, height = place[source], place[target], level * LEVEL
        arc(
            axes,
            start,
            end,
            height,
            f"edge-{source}-{target}",
            color=colour,
            linewidth=1.6,
            zorder=2,
        )
        axes.text(
            (start + end) / 2,
            height,
            operation,
            color=colour,
            fontsize=8,
            ha="center",
            va="center",
            zorder=3,
            parse_math=False,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    for name, x in place.items():
        inner = name.isdigit()
        axes.add_patch(
            Circle(
                (x, 0),
                RADIUS,
                facecolor="#eef2f6" if inner else "#dfe8d8",
                edgecolor="#5b6770",
                zorder=4,
            )
        )
        text = (
            name
            if inner
            else name.replace("_{", "(").replace("}", ")").replace("_k", "(k)").replace("-", "−")
        )
        axes.text(x, 0, text, fontsize=9 if inner else 7, ha="center", va="center", zorder=5)
    return figure


def arc(axes, start: float, end: float, height: float, gid: str, **style) -> None:
    """An arrow from node to node that rises to ``height`` half-way; a straight line if that is 0."""
    if height == 0:
        path = Path([(start + RADIUS, 0), (end - RADIUS, 0)])
    else:
        sign = 1 if height > 0 else -1
        foot = sign * RADIUS
        control = foot + (height - foot) * 4 / 3
        path = Path(
            [(start, foot), (start, control), (end, control), (end, foot)],
            [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4],
        )
    arrow = FancyArrowPatch(
        path=path, arrowstyle="-|>", mutation_scale=9, shrinkA=0, shrinkB=0, **style
    )
    arrow.set_gid(gid)
    axes.add_patch(arrow)
