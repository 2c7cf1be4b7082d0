"""The plots of the report, each a matplotlib figure from plain values, and their form as inline
SVG.
"""

import io
import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from supernet.report.cell import COLOURS

Rows = Sequence[Mapping[str, Any]]
FOUND, CHANCE = "#0072b2", "#8a939b"
COSTS = {"params": "parameters", "madds": "multiply-adds", "latency_ms": "latency (ms)"}
POINTS = 1000  # of a curve at most; more cannot be seen


def svg(figure: Figure, name: str) -> str:
    """The figure as an ``<svg>`` element; every id in it begins with ``name``, so that several fit
    into one page.
    """
    file = io.BytesIO()
    settings = {"svg.fonttype": "none", "svg.hashsalt": name}
    with matplotlib.rc_context(settings):
        FigureCanvasSVG(figure).print_svg(
            file, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    text = file.getvalue().decode()
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text[text.index("<svg") :])


def curve(axes: Axes, rows: Rows, name: str, gid: str, **style: Any) -> None:
    """One metric over the epochs (or steps, where the rows have none); long ones as the means of
    equal groups.
    """
    points = [
        (row.get("epoch", row["step"]), row[name]) for row in rows if row.get(name) is not None
    ]
    if not points:
        return
    if len(points) > POINTS:
        points = [np.mean(group, axis=0) for group in np.array_split(np.array(points), POINTS)]
    (line,) = axes.plot(*zip(*points, strict=True), **style)
    line.set_gid(gid)


def panels(titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """A row of empty panels."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    axes = list(figure.subplots(1, max(len(titles), 2), squeeze=False)[0])
    for one in axes[len(titles) :]:
        one.set_axis_off()
    for one, title in zip(axes, titles, strict=False):
        tidy(one, title)
    return figure, axes


def tidy(axes: Axes, title: str, size: float = 10) -> None:
    axes.set_title(title, fontsize=size, loc="left", parse_math=False)
    axes.tick_params(labelsize=size - 2, color="#b0b7bd")
    axes.ticklabel_format(useOffset=False)  # an offset would stand where the title does
    axes.grid(color="#e8ebee", linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#b0b7bd")


def search_curves(rows: Rows) -> Figure:
    """Loss and accuracy of the search, and the entropy of the logits or of the policy, if there are
    any.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    kinds = {
        "loss": [n for n in names if n.endswith("loss")],
        "accuracy": [n for n in names if n.endswith("accuracy")],
        "entropy of the logits (nats)": [
            n for n in names if n.startswith("entropy/") and n != "entropy/policy"
        ],
        "entropy of the policy (nats)": [n for n in names if n == "entropy/policy"],
    }
    kinds = {title: found for title, found in kinds.items() if found}
    figure, axes = panels(list(kinds))
    for one, found in zip(axes, kinds.values(), strict=False):
        for name, colour in zip(found, COLOURS, strict=False):
            label = name.removeprefix("entropy/")
            curve(
                one,
                rows,
                name,
                f"curve-{name.replace('/', '-')}",
                color=colour,
                linewidth=1.2,
                label=label,
            )
        if len(found) > 1:
            one.legend(fontsize=8, frameon=False)
        one.set_xlabel("epoch", fontsize=8)
    return figure


COLLAPSE = {  # title -> how the names of its figures begin, and what it says
    "share of the derivation": (
        "share/skip share/parameter_free",
        "skips, or options without weights, take over",
    ),
    "dominant eigenvalue": (
        "eigenvalue",
        "growth: the search has come to a sharp place, and what is derived there is poor",
    ),
    "accuracy, mixture and derived": (
        "gap/",
        "far apart: the mixture is not what is derived from it",
    ),
    "cosine of logit gradients": (
        "gradient_cosine",
        "near 1: step after step pushes the same way; near 0: only noise is left",
    ),
    "gradient norm of an option's weights": (
        "gradient_norm/",
        "near 0: the option no longer learns",
    ),
    "share of operations that are frozen": (
        "share/frozen",
        "these overfit, and no longer learn (OLES)",
    ),
}


def collapse_figures(rows: Rows) -> dict[str, list[str]]:
    """Title -> the figures of a search that are drawn under it, of those that were logged."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    found = {
        title: [n for n in names if n.startswith(tuple(starts.split()))]
        for title, (starts, _) in COLLAPSE.items()
    }
    return {title: figures for title, figures in found.items() if figures}


def collapse_curves(rows: Rows, guards: Rows = ()) -> Figure:
    """Small multiples, one for each instrument, over the epochs; a line where a guard fired."""
    found = collapse_figures(rows)
    columns = min(3, len(found))
    height = -(-len(found) // columns)
    figure = Figure(figsize=(10, 2.6 * height), layout="constrained")
    grid = figure.subplots(height, columns, squeeze=False).ravel()
    for axes in grid[len(found) :]:
        axes.set_axis_off()
    for axes, (title, names) in zip(grid, found.items(), strict=False):
        tidy(axes, title, 9)
        for name, colour in zip(names, cycle(COLOURS), strict=False):
            label = name.removeprefix("share/").removeprefix("gap/").removeprefix("gradient_norm/")
            style = {"color": colour, "linewidth": 1.2, "marker": ".", "markersize": 3}
            curve(axes, rows, name, f"curve-{name.replace('/', '-')}", label=label, **style)
        for epoch in dict.fromkeys(one["epoch"] for one in guards):
            axes.axvline(epoch, color=CHANCE, linewidth=0.8, linestyle="--").set_gid(
                f"guard-{title.replace(' ', '-')}-{epoch}"
            )
        if len(names) > 1:
            axes.legend(fontsize=7, frameon=False)
        axes.set_xlabel("epoch", fontsize=8)
    return figure


def retrain_curves(stages: Mapping[str, Rows]) -> Figure:
    """Loss and accuracy of every retraining: the found architecture in colour, the random ones in
    grey.
    """
    figure, axes = panels(["loss on the training images", "accuracy on the training images"])
    for one, name in zip(axes, ("loss", "accuracy"), strict=True):
        labelled = set()
        for stage, rows in sorted(
            stages.items()
        ):  # random before retrain, so that the found one lies on top
            kind = "found" if stage.startswith("retrain") else "random"
            style = {"color": FOUND if kind == "found" else CHANCE, "linewidth": 1.2, "alpha": 0.85}
            label = None if kind in labelled else kind
            labelled.add(kind)
            curve(one, rows, name, f"curve-{stage.replace('/', '-')}-{name}", label=label, **style)
        if one.lines:
            one.legend(fontsize=8, frameon=False)
        one.set_xlabel("epoch", fontsize=8)
    return figure


def logit_shares(rows: Rows, group: str) -> dict[int, tuple[np.ndarray, dict[str, np.ndarray]]]:
    """For each slot of a group: the epochs, and for each option its share by softmax at these
    epochs.
    """
    logged = [row for row in rows if any(name.startswith(f"logits/{group}/") for name in row)]
    slots: dict[int, list[str]] = {}
    for name in logged[0] if logged else ():
        if name.startswith(f"logits/{group}/"):
            _, _, slot, option = name.split("/", 3)
            slots.setdefault(int(slot), []).append(option)
    epochs = np.array([row.get("epoch", row["step"]) for row in logged], dtype=float)
    result = {}
    for slot, options in sorted(slots.items()):
        table = np.array(
            [[row.get(f"logits/{group}/{slot}/{o}") for o in options] for row in logged],
            dtype=float,
        )
        table = np.exp(table - table.max(axis=1, keepdims=True))
        table /= table.sum(axis=1, keepdims=True)
        result[slot] = (epochs, dict(zip(options, table.T, strict=True)))
    return result


def logit_curves(
    rows: Rows, group: str, colours: Mapping[str, str], chosen: Sequence[str] | None = None
) -> Figure:
    """Small multiples, one a slot: the shares of the options over the epochs; ``chosen`` are the
    options derived.
    """
    shares = logit_shares(rows, group)
    columns = min(len(shares), 6 if len(shares) <= 6 else 5)
    height = -(-len(shares) // columns)
    figure = Figure(figsize=(10, 1.7 * height + 0.5), layout="constrained")
    grid = figure.subplots(height, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes in grid[len(shares) :]:
        axes.set_axis_off()
    handles = {}
    for axes, (slot, (epochs, options)) in zip(grid, shares.items(), strict=False):
        own = chosen[slot] if chosen is not None and slot < len(chosen) else None
        tidy(axes, f"{slot}: {own}" if own else f"{slot}", 8.5)
        for option, share in options.items():
            width = 2.2 if option == own else 1.0
            (line,) = axes.plot(epochs, share, color=colours[option], linewidth=width, label=option)
            line.set_gid(f"share-{slot}-{option}")
            handles.setdefault(option, Line2D([], [], color=colours[option], linewidth=2))
    figure.legend(
        handles.values(), handles, loc="outside upper left", ncols=8, fontsize=8, frameon=False
    )
    return figure


def cost_scatter(results: Mapping[str, Any]) -> Figure:
    """Test accuracy against parameters: each architecture a dot, means with their 95% intervals."""
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    tidy(axes, "test accuracy (%)")
    axes.set_xlabel("parameters", fontsize=8)
    chance, trained = results.get("random_baseline"), results.get("retrain")
    if chance and chance.get("architectures"):
        each = chance["architectures"]
        params = [one["params"] for one in each]
        dots = axes.scatter(
            params,
            [100 * one["accuracy"] for one in each],
            color=CHANCE,
            s=16,
            label="random, one dot each",
        )
        dots.set_gid("dots-random")
        mean_with_interval(
            axes, float(np.mean(params)), chance, CHANCE, "D", "random, mean and 95% interval"
        )
    if trained and results.get("cost"):
        params = results["cost"]["params"]
        values = [100 * value for value in trained["accuracy"]]
        dots = axes.scatter(
            [params] * len(values), values, color=FOUND, s=16, label="found, one dot a seed"
        )
        dots.set_gid("dots-found")
        mean_with_interval(axes, params, trained, FOUND, "o", "found, mean and 95% interval")
    axes.margins(x=0.15)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def pareto(rows: Rows, front: Rows, cost: str) -> Figure:
    """Accuracy with inherited weights against ``cost``: every architecture judged a dot, the Pareto
    front a line.
    """
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    tidy(axes, "accuracy with inherited weights (%)")
    axes.set_xlabel(COSTS[cost], fontsize=8)
    dots = axes.scatter(
        [r[cost] for r in rows],
        [100 * r["accuracy"] for r in rows],
        color=CHANCE,
        s=12,
        label="judged",
    )
    dots.set_gid("judged")
    x, y = [one[cost] for one in front], [100 * one["accuracy"] for one in front]
    (line,) = axes.plot(
        x, y, color=FOUND, marker="o", markersize=4, drawstyle="steps-post", label="Pareto front"
    )
    line.set_gid("front")
    axes.xaxis.set_major_formatter(
        lambda value, _: f"{value:g}" if cost == "latency_ms" else f"{value:,.0f}"
    )
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def rank_scatter(points: Rows, truth: str, predictors: Sequence[str]) -> Figure:
    """The truth against each predictor: every architecture a dot."""
    figure, panel = panels(predictors)
    for axes, name in zip(panel, predictors, strict=False):
        known = [point for point in points if truth in point]
        dots = axes.scatter(
            [100 * point[name] for point in known],
            [point[truth] for point in known],
            color=FOUND,
            s=10,
            alpha=0.7,
        )
        dots.set_gid(f"rank-{name}")
        axes.set_xlabel("accuracy with inherited weights (%)", fontsize=8)
    panel[0].set_ylabel(truth, fontsize=8)
    return figure


def mean_with_interval(
    axes: Axes, x: float, trained: Mapping[str, Any], colour: str, marker: str, label: str
) -> None:
    mean, ends = trained["mean"], trained.get("ci95")
    error = [[100 * (mean - ends[0])], [100 * (ends[1] - mean)]] if ends else None
    axes.errorbar(
        [x],
        [100 * mean],
        error,
        fmt=marker,
        color=colour,
        markersize=8,
        mfc="none",
        capsize=5,
        label=label,
    )
