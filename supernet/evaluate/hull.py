"""The lower convex hull of costs and errors, on which growth chooses the networks that grow next
(Petridish, Hu et al., NeurIPS 2019).
"""

from collections.abc import Sequence

import numpy as np

Point = tuple[float, float]  # the cost and the error of a network


def lower_hull(points: Sequence[Point]) -> list[int]:
    """The indices of the points on the lower convex hull, from the cheapest to the one of least
    error. Of equal points the first one counts.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i], i))
    hull: list[int] = []
    for index in order:
        x, y = points[index]
        if hull and y >= points[hull[-1]][1]:
            continue  # not better than a cheaper one
        while len(hull) > 1:
            (x0, y0), (x1, y1) = points[hull[-2]], points[hull[-1]]
            if (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0:
                break
            hull.pop()  # above the line between its neighbours
        hull.append(index)
    return hull


def near_hull(points: Sequence[Point], margin: float) -> list[int]:
    """The indices of the points whose error is above the hull by at most a share ``margin``. Beyond
    the point of least error, the hull is level.
    """
    hull = lower_hull(points)
    costs, errors = zip(*(points[i] for i in hull), strict=True)
    return [
        index
        for index, (cost, error) in enumerate(points)
        if error <= (1 + margin) * np.interp(cost, costs, errors)
    ]


def parents_of(
    points: Sequence[Point],
    chosen: Sequence[int],
    able: Sequence[int],
    wanted: int,
    margin: float,
    rng: np.random.Generator,
) -> list[int]:
    """The indices of the next networks to grow: up to ``wanted`` of those that are ``able`` and
    near the hull.

    They are visited from the most expensive to the cheapest, again and again; each is taken with
    the probability 1 / (n + 1), where n is how often it was ``chosen`` before.
    """
    near = set(near_hull(points, margin))
    waiting = sorted((i for i in able if i in near), key=lambda i: (-points[i][0], i))
    taken: list[int] = []
    while waiting and len(taken) < wanted:
        for index in list(waiting):
            if len(taken) < wanted and rng.random() < 1 / (chosen[index] + 1):
                taken.append(index)
                waiting.remove(index)
    return taken


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The share of the rectangle from the origin to ``reference`` in which a cost and an error are
    reached by one of the points, or beaten (Zitzler & Thiele 1999, in two dimensions).
    """
    area, (_, least) = 0.0, reference
    for cost, error in sorted(points):
        if cost < reference[0] and error < least:
            area += (reference[0] - cost) * (least - error)
            least = error
    return area / (reference[0] * reference[1])
