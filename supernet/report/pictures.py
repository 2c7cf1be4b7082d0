"""Which pictures the page has: each is a drawing with a caption and a key of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from supernet.report import series, values
from supernet.report.figures import MEDIUM, SMALL, Chart, Dots, Line, drawn, identifier, inline
from supernet.report.graph import draw_graph
from supernet.report.series import Rows
from supernet.report.style import FOUND, OTHERS, Style, shared_styles, styles
from supernet.report.summary import with_interval
from supernet.report.values import COSTS, Results

NO_UNIT = "value"
METRICS = {  # name of a figure, or what stands before the last "/" of it -> title, unit
    "loss": ("loss", "nats"),
    "architecture_loss": ("loss of the architecture", "nats"),
    "accuracy": ("accuracy", "%"),
    "architecture_accuracy": ("accuracy of the architecture", "%"),
    "entropy": ("entropy of the logits", "nats"),
    "entropy/policy": ("entropy of the policy", "nats"),
    "reward": ("reward of the policy", NO_UNIT),
}


@dataclass(frozen=True)
class Picture:
    """A drawing as it stands in the page: ``key`` says what each style in it means, ``note`` what
    to look for.
    """

    caption: str
    svg: str  # as figures.inline gave it: only that is not escaped
    key: Mapping[str, Style]
    note: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, and a key that all of them share."""

    pictures: Sequence[Picture]
    key: Mapping[str, Style]
    small: bool = False


def picture(
    caption: str, chart: Chart, name: str, key: Mapping[str, Style] | None = None
) -> Picture:
    """The chart as a picture; ``name`` begins every id in it."""
    return Picture(caption, inline(drawn(chart), name), key or {})


def numbered(kind: str, count: int) -> list[str]:
    """``supernet 1 of 4``, ``supernet 2 of 4``, ..."""
    return [f"{kind} {number} of {count}" for number in range(1, count + 1)]


# --- architectures


def option_styles(results: Results, rows: Rows) -> dict[str, Style]:
    """A style for each option, the same in every picture: options come in the order of the logits,
    then of the graphs.
    """
    architecture = results.get("architecture", {})
    of_graphs = [
        [option for _, _, option in edges if option]
        for edges in architecture.get("graph", {}).values()
    ]
    return shared_styles([*series.options(rows).values(), *of_graphs])


def graphs(results: Results, options: Mapping[str, Style]) -> list[Picture]:
    """A drawing for each graph of the architecture, if its space can be drawn."""
    found = results.get("architecture", {})
    nodes = found.get("nodes", {})
    return [
        Picture(
            name[:1].upper() + name[1:],
            inline(draw_graph(edges, options, nodes.get(name)), f"graph-{name}"),
            {},
        )
        for name, edges in found.get("graph", {}).items()
    ]


# --- the search


def search_curves(results: Results, supernets: Sequence[Rows]) -> Gallery | None:
    """Loss, accuracy, entropy and whatever else was logged and belongs to no instrument."""
    of_instruments = [p for one in values.instruments(results).values() for p in one["prefixes"]]
    names = [
        name
        for name in series.names_in(row for rows in supernets for row in rows)
        if not name.startswith(("logits/", *of_instruments))
    ]
    panels: dict[str, list[str]] = {}
    for name in names:
        group = name if name in METRICS else name.rpartition("/")[0] or name
        panels.setdefault(group, []).append(name)
    pictures = []
    for group, members in panels.items():
        title, unit = METRICS.get(group, (group.replace("_", " "), NO_UNIT))
        caption = title if unit == NO_UNIT else f"{title} ({unit})"
        pictures.append(curves(caption, unit, members, supernets, "search"))
    return Gallery(pictures, supernet_key(len(supernets))) if pictures else None


def instrument_curves(results: Results, supernets: Sequence[Rows]) -> Gallery | None:
    """One picture for each instrument that gave figures; a dashed line where a guard acted."""
    names = series.names_in(row for rows in supernets for row in rows)
    acted = {f"guard-{one['epoch']}": one["epoch"] for one in values.guards(results)}
    pictures = []
    for instrument in values.instruments(results).values():
        members = [name for name in names if name.startswith(tuple(instrument["prefixes"]))]
        if members:
            title, unit = instrument["title"], instrument.get("unit", NO_UNIT)
            one = curves(title, unit, members, supernets, "collapse", acted)
            pictures.append(replace(one, note=instrument["meaning"]))
    return Gallery(pictures, supernet_key(len(supernets))) if pictures else None


def supernet_key(count: int) -> dict[str, Style]:
    """The style of each supernet; a single one needs no key."""
    return styles(numbered("supernet", count)) if count > 1 else {}


def curves(
    title: str,
    unit: str,
    names: Sequence[str],
    supernets: Sequence[Rows],
    prefix: str,
    upright: Mapping[str, float] | None = None,
) -> Picture:
    """Figures of the same kind over the epochs.

    One figure has a curve for each supernet. Several figures have a curve each, which is the mean
    over the supernets, with their range.
    """
    factor = 100 if unit == "%" else 1
    found = {name: [series.curve(rows, name) * (1, factor) for rows in supernets] for name in names}
    lines, key = [], {}
    if len(names) == 1:
        style = list(styles(numbered("supernet", len(supernets))).values())
        for number, points in enumerate(found[names[0]]):
            gid = identifier("curve", names[0], number)
            lines.append(Line(series.thinned(points), style[number], gid))
    else:
        labels = {name: shortened(name, names) for name in names}
        by_name = styles(labels.values())
        key = by_name
        for name, each in found.items():
            mean = series.together([one for one in each if len(one)])
            lines.append(Line(mean, by_name[labels[name]], identifier("curve", name)))
    chart = Chart("epoch", unit, lines, upright=upright or {}, size=MEDIUM)
    return picture(title, chart, identifier(prefix, names[0]), key)


def shortened(name: str, names: Sequence[str]) -> str:
    """The name without the parts, up to a ``/``, with which all ``names`` begin."""
    parts = [one.split("/") for one in names]
    same = 0
    while len({tuple(one[: same + 1]) for one in parts}) == 1 and same + 1 < min(map(len, parts)):
        same += 1
    return "/".join(name.split("/")[same:])


def share_curves(
    supernets: Sequence[Rows],
    group: str,
    options: Mapping[str, Style],
    chosen: Sequence[str],
) -> Gallery:
    """A picture for each slot of a group: the share of each option over the epochs; ``chosen`` are
    the options of the architecture that was found.
    """
    found = [series.shares(rows, group) for rows in supernets]
    found = [one for one in found if one]
    pictures, key = [], {}
    for slot, names in found[0].items():
        own = chosen[slot] if slot < len(chosen) else None
        lines = []
        for option in names:
            points = series.together([one[slot][option] for one in found if slot in one])
            width, name = 2.4 if option == own else 1.0, identifier("share", slot, option)
            lines.append(Line(points, options[option], name, width))
            key[option] = options[option]
        chart = Chart("epoch", "share", lines, limits=_limits(found), size=SMALL)
        caption = f"slot {slot}: {own}" if own else f"slot {slot}"
        pictures.append(picture(caption, chart, f"logits-{group}-{slot}"))
    return Gallery(pictures, key, small=True)


def _limits(found: Sequence[Mapping[int, Mapping[str, np.ndarray]]]) -> tuple[float, float]:
    """The same limits for every slot, so that pictures can be compared."""
    highest = max(
        points[:, 1].max()
        for slots in found
        for options in slots.values()
        for points in options.values()
    )
    return 0.0, min(1.02, 1.05 * highest)


# --- what was found


def cost_scatter(results: Results) -> Picture | None:
    """Test accuracy against parameters: each training a dot, and means with their intervals."""
    others, found = results.get("random_baseline"), results.get("retrain")
    dots, key = [], {}
    if others and others.get("architectures"):
        each = others["architectures"]
        x, y = [one["params"] for one in each], [100 * one["accuracy"] for one in each]
        dots += _sample(x, y, others, OTHERS, "random")
        key["random architectures"] = Style(OTHERS, dots=True)
    if found and results.get("cost"):
        y = [100 * accuracy for accuracy in found["accuracy"]]
        x = [results["cost"]["params"]] * len(y)
        dots += _sample(x, y, found, FOUND, "found")
        key["the architecture that was found, with other seeds"] = Style(FOUND, dots=True)
    if not dots:
        return None
    chart = Chart("parameters", "test accuracy (%)", dots=dots)
    return picture("Test accuracy and parameters", chart, "scatter", key)


def _sample(
    x: Sequence[float], y: Sequence[float], about: Mapping[str, Any], colour: str, name: str
) -> list[Dots]:
    """Every value, and their mean with its interval if there is one."""
    low, high = about.get("ci95") or (None, None)
    mean = Dots(
        [float(np.mean(x))],
        [100 * about["mean"]],
        colour,
        f"mean-{name}",
        marker="D",
        size=9,
        hollow=True,
        low=None if low is None else [100 * low],
        high=None if high is None else [100 * high],
    )
    return [Dots(x, y, colour, f"dots-{name}"), mean]


def pareto(results: Results, rows: Rows, cost: str) -> Picture | None:
    """Accuracy with inherited weights against ``cost``: every architecture that was judged is a
    dot, the Pareto front a line.
    """
    front, judged = results.get("derive", {}).get("pareto"), series.stages(rows, "derive")
    if not front or cost not in front[0]:
        return None
    dots = []
    if judged:
        each = [row for stage in judged for row in stage if row.get("accuracy") is not None]
        accuracy = [100 * row["accuracy"] for row in each]
        dots.append(Dots([row[cost] for row in each], accuracy, OTHERS, "judged", size=3.5))
    ends = [values.interval_of(one["accuracy"], values.images_each(results)) for one in front]
    intervals = [end for end in ends if end is not None]
    dots.append(
        Dots(
            [one[cost] for one in front],
            [100 * one["accuracy"] for one in front],
            FOUND,
            "front",
            steps=True,
            low=[100 * low for low, _ in intervals] or None,
            high=[100 * high for _, high in intervals] or None,
        )
    )
    chart = Chart(COSTS[cost], "accuracy with inherited weights (%)", dots=dots)
    key = {
        "an architecture that was judged": Style(OTHERS, dots=True),
        "the Pareto front": Style(FOUND),
    }
    return picture("Accuracy and cost", chart, "pareto", key)


def growth(results: Results) -> Picture | None:
    """The validation error of every network that has grown against its multiply-adds: a thin line
    leads from parent to child, a thick one is the lower convex hull.
    """
    found = results.get("growth")
    if not found:
        return None
    places = [(one["madds"], 100 * one["error"]) for one in found["models"]]
    lines = [
        Line(np.array([places[one["parent"]], place]), Style(OTHERS), f"child-{number}", 0.8)
        for number, (one, place) in enumerate(zip(found["models"], places, strict=True))
        if one["parent"] is not None
    ]
    hull = [places[number] for number in found["hull"]]
    lines.append(Line(np.array(hull), Style(FOUND), "hull", 2.0))
    dots = [
        Dots([x for x, _ in some], [y for _, y in some], colour, name, size=size)
        for some, colour, name, size in (
            (places, OTHERS, "networks", 4),
            (hull, FOUND, "on-hull", 5),
        )
    ]
    chart = Chart(COSTS["madds"], "validation error (%)", lines, dots)
    key = {
        "a network; a line leads to its children": Style(OTHERS, dots=True),
        "the lower convex hull": Style(FOUND),
    }
    return picture("Growth", chart, "growth", key)


def training_curves(rows: Rows) -> Gallery | None:
    """Loss and accuracy of every training: those of the found architecture in colour, those of
    random ones in grey.
    """
    found, others = series.stages(rows, "retrain"), series.stages(rows, "random")
    if not found and not others:
        return None
    named = styles(numbered("found architecture, training", len(found)))
    pictures = []
    for name, unit in {"loss": "nats", "accuracy": "%"}.items():
        factor = 100 if unit == "%" else 1
        lines = [
            Line(series.thinned(series.curve(stage, name)) * (1, factor), style, gid)
            for each, look, kind in (
                (others, [Style(OTHERS)] * len(others), "random"),
                (found, list(named.values()), "retrain"),
            )
            for stage, style, gid in zip(
                each,
                look,
                (identifier("curve", kind, number) for number in range(len(each))),
                strict=True,
            )
        ]
        title = f"{name} on the training images ({unit})"
        pictures.append(picture(title, Chart("epoch", unit, lines, size=MEDIUM), f"retrain-{name}"))
    return Gallery(pictures, named | ({"random architectures": Style(OTHERS)} if others else {}))


def rank_scatters(ranked: Mapping[str, Any], truth: str, number: int) -> Gallery | None:
    """The truth against the accuracy with inherited weights, of every supernet that was ranked."""
    known = [point for point in ranked["points"] if truth in point]
    pictures = []
    for i, (predictor, found) in enumerate(ranked["against"][truth].items()):
        if not predictor.endswith(", recalibrated"):
            continue
        x = [100 * point[predictor] for point in known]
        trained = truth == "trained from scratch"
        y = [(100 if trained else 1) * point[truth] for point in known]
        label = "accuracy when trained from scratch (%)" if trained else truth
        dots = Dots(x, y, FOUND, "architectures", size=4)
        chart = Chart("accuracy with inherited weights (%)", label, dots=[dots], size=MEDIUM)
        caption = f"{predictor}: tau {with_interval(found['all'])}"
        pictures.append(picture(caption, chart, f"rank-{number}-{i}"))
    return Gallery(pictures, {}) if pictures else None
