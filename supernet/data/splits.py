"""Splits the training images: one part trains the weights, the other the architecture.

The test images are in neither part.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from supernet.errors import UserError


@dataclass(frozen=True, eq=False)
class Splits:
    """Two disjoint sets of training images, as int64 indices in random order."""

    weights: Tensor
    architecture: Tensor


def split(
    labels: Tensor,
    weights_share: float,
    generator: np.random.Generator,
    limit: int | None = None,
    parts: tuple[str, str] = ("split for the weights", "split for the architecture"),
    names: Sequence[str] | None = None,
    setting: str = "data.architecture_share",
) -> Splits:
    """Splits images with these ``labels``, int64 [N], at random into two parts.

    A share ``weights_share`` of them trains the weights, the rest trains the architecture. Every
    class is divided in this proportion, to within one image; a class of two images or more has at
    least one in each part. With ``limit`` only ``limit`` images
    are used, in the same proportion from each class; without it every image is in one of the parts.
    In messages, ``parts`` are the names of the two parts, ``names`` those of the classes (without
    them, their numbers), and ``setting`` is the one that gives the share.

    Raises:
        UserError: the share or the limit is out of range, or a class would have no image in one of
        the parts.
    """
    classes = labels.cpu().numpy()
    count = len(classes)
    if not 0 < weights_share < 1:
        raise UserError(
            f"the {parts[0]} has a share of {weights_share:g}; must lie between 0 and 1"
        )
    if limit is not None and not 1 <= limit <= count:
        raise UserError(
            f"data.train_limit={limit}: there are {count} training images; choose 1 to {count}, or "
            "null for all"
        )
    used = apportion(np.bincount(classes), limit or count)
    weights = apportion(used, round(weights_share * used.sum()))
    weights = weights.clip(np.minimum(used, 1), np.maximum(used - 1, 0))
    if used.min() < 2:
        label = int(np.argmin(used))
        called = names[label] if names is not None else str(label)
        few = "no image" if used[label] == 0 else "one image"
        cause = f" of data.train_limit={limit}" if limit is not None else ""
        raise UserError(
            f"the class {called} has {few}{cause}, but needs one in the {parts[0]} and one in the "
            f"{parts[1]} ({setting}); add images, or raise the limit of images"
        )
    order = generator.permutation(count)
    shuffled = classes[order]
    rank = np.empty(count, dtype=np.int64)  # position of each image among those of its class
    by_class = np.argsort(shuffled, kind="stable")
    rank[by_class] = np.arange(count) - np.searchsorted(shuffled[by_class], shuffled[by_class])
    first = rank < weights[shuffled]
    second = ~first & (rank < used[shuffled])
    return Splits(torch.from_numpy(order[first]), torch.from_numpy(order[second]))


def apportion(counts: np.ndarray, total: int) -> np.ndarray:
    """Scales the integer ``counts`` so that their sum is ``total``, by the method of largest
    remainders. Each result differs from its exact share by less than one.
    """
    floors, remainders = np.divmod(counts.astype(np.int64) * total, counts.sum())
    floors[np.argsort(-remainders, kind="stable")[: total - floors.sum()]] += 1
    return floors
