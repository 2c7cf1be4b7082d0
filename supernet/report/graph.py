"""Draws a graph of an architecture, such as a cell: nodes in one row, edges as arcs above and below
it, each with its option.
"""

import re
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch
from matplotlib.path import Path

from supernet.report.figures import identifier
from supernet.report.style import Style

Edge = Sequence[str]  # source node, target node, option; an edge without a decision has option ""
RADIUS = 0.14  # of a node; nodes are 1 apart
LEVEL = 0.42  # height of one level of arcs
PLAIN_LEVEL = 0.3  # and of the arcs without an option
INSIDE = 2  # letters of a name that fit into a node at full size
INNER, OUTER = "#eef2f6", "#dfe8d8"  # nodes inside the graph; its inputs and outputs


def nodes_of(edges: Sequence[Edge]) -> list[str]:
    """The nodes that have edges, from left to right: each stands behind all that it reads, and
    nodes between which the edges do not decide go by name.
    """
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for source, target, _ in edges:
        sorter.add(target, source)
    sorter.prepare()
    nodes: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=lambda name: (len(name), name))
        nodes += ready
        sorter.done(*ready)
    return nodes


def levels(spans: Sequence[tuple[int, int]], width: float) -> list[int]:
    """The level of each arc, such that no two labels overlap: 0 is a straight line, positive is
    above it, negative below.

    A label stands at the middle of its arc and takes ``width`` (nodes are 1 apart). Short arcs come
    first, long ones pass over.
    """
    chosen: dict[int, int] = {}
    for i in sorted(range(len(spans)), key=lambda i: (spans[i][1] - spans[i][0], spans[i])):
        start, end = spans[i]
        if end - start == 1 and spans[i] not in [spans[j] for j in chosen]:
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


def draw_graph(
    edges: Sequence[Edge], styles: Mapping[str, Style], nodes: Sequence[str] | None = None
) -> Figure:
    """The graph as a figure; the edges have the ids ``edge-NUMBER-SOURCE-TARGET``, those without an
    option ``plain-NUMBER-SOURCE-TARGET``.

    Args:
        edges: the edges of the graph.
        styles: the style of each option.
        nodes: the nodes from left to right; those that it leaves out come after them, as
            :func:`nodes_of` finds them.
    """
    nodes = list(dict.fromkeys([*(nodes or ()), *nodes_of(edges)]))
    place = {name: x for x, name in enumerate(nodes)}
    decided = [edge for edge in edges if edge[2]]
    plain = [edge for edge in edges if not edge[2]]
    heights = levels([(place[source], place[target]) for source, target, _ in decided], width=1.0)
    below = [-PLAIN_LEVEL * (place[target] - place[source] - 1) for source, target, _ in plain]

    top, bottom = max([0, *heights]) * LEVEL, min([0, *heights]) * LEVEL
    extent = (-0.5, max(len(nodes), 2) - 0.5, min([bottom, *below]) - 0.2, top + 0.2)
    scale = min(2.0, 10 / max(len(nodes), 1))  # inches between two nodes
    figure = Figure(figsize=((extent[1] - extent[0]) * scale, (extent[3] - extent[2]) * scale))
    axes = figure.add_axes(
        (0, 0, 1, 1), frameon=False, xlim=extent[:2], ylim=extent[2:], aspect="equal"
    )
    axes.set_axis_off()

    for i, ((source, target, _), height) in enumerate(zip(plain, below, strict=True)):
        name = identifier("plain", i, source, target)
        arc(axes, place[source], place[target], height, name, Style("#c8ccd0"), width=0.8)
    for i, ((source, target, option), level) in enumerate(zip(decided, heights, strict=True)):
        style, name = styles.get(option, Style("#333333")), identifier("edge", i, source, target)
        arc(axes, place[source], place[target], level * LEVEL, name, style, width=1.6)
        middle = (place[source] + place[target]) / 2
        label(axes, middle, level * LEVEL, option, style.colour)
    inner = {source for source, _, _ in edges} & {target for _, target, _ in edges}
    for name, x in place.items():
        node(axes, x, name, INNER if name in inner else OUTER)
    return figure


def label(axes: Axes, x: float, y: float, option: str, colour: str) -> None:
    """The option of an edge, on a white ground."""
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    style: dict[str, Any] = {
        "color": colour,
        "fontsize": 9,
        "ha": "center",
        "va": "center",
        "zorder": 3,
    }
    axes.text(x, y, option, parse_math=False, bbox=box, **style)


def node(axes: Axes, x: float, name: str, colour: str) -> None:
    """A circle with the node's name; an index such as in ``c_{k-2}`` is written ``c(k−2)``."""
    axes.add_patch(Circle((x, 0), RADIUS, facecolor=colour, edgecolor="#5b6770", zorder=4))
    text = re.sub(r"_\{(.*?)\}|_(\w)$", lambda m: f"({m[1] or m[2]})".replace("-", "−"), name)
    size = 10 if len(text) <= INSIDE else 8 if len(text) <= 3 * INSIDE else 6
    axes.text(x, 0, text, fontsize=size, ha="center", va="center", zorder=5, parse_math=False)


def arc(
    axes: Axes, start: float, end: float, height: float, gid: str, style: Style, width: float
) -> None:
    """An arrow from node to node that rises to ``height`` half-way; straight if that is 0."""
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
        path=path,
        arrowstyle="-|>",
        mutation_scale=9,
        shrinkA=0,
        shrinkB=0,
        color=style.colour,
        linestyle=(0, style.dash) if style.dash else "-",
        linewidth=width,
        zorder=2,
    )
    arrow.set_gid(gid)
    axes.add_patch(arrow)
