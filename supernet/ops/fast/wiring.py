"""What is the same in every step of a combination (:mod:`supernet.ops.fast.combination`): which
term reads which image and adds to which target, and where in memory everything lies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor, nn

from supernet.ops.fast.depthwise import DepthwiseMaker
from supernet.ops.fast.folding import FoldLayout
from supernet.ops.fast.pooling import PoolingMaker
from supernet.ops.fast.rows import FLOAT, Grams, Image, Terms

Maker = DepthwiseMaker | PoolingMaker  # makes images of a source


@dataclass(frozen=True)
class Term:
    """``norm(pointwise(z))``, where z is image ``index`` of a source. Either may be missing
    (``None``): the 1×1 convolution ``pointwise``, or ``norm`` and ``pointwise``.

    The term is added to ``target``. ``position`` is the place of its weight among those of the
    mixture.
    """

    source: int
    index: int
    pointwise: nn.Conv2d | None
    norm: nn.BatchNorm2d | None
    target: int
    position: int = 0


class Wiring:
    """T terms, the sources of their images and their targets.

    A source is one image that is given, or several images that its *maker* makes of one
    (``makers``, with ``None`` for a source that is given). The terms are sorted: the first ``full``
    have a 1×1 convolution and a norm, then come those with a norm, then the others. With
    ``stacked``, the results are one tensor. With ``recompute``, the images that are made are not
    kept for backward, but made again.

    Raises:
        ValueError: an image is normed as it is by one term, and after a 1×1 convolution by another.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        makers: Sequence[Maker | None],
        targets: int,
        device: torch.device,
        stacked: bool = False,
        recompute: bool = False,
    ):
        terms = sorted(
            terms,
            key=lambda term: (term.pointwise is None, term.norm is None, term.source, term.index),
        )
        self.terms = [(term.source, term.index, term.target) for term in terms]
        self.norms = [term.norm for term in terms if term.norm is not None]
        self.pointwise = [term.pointwise for term in terms if term.pointwise is not None]
        self.affine = self.norms if self.norms and self.norms[0].affine else []
        self.makers, self.targets = tuple(makers), targets
        self.stacked, self.recompute = stacked, recompute
        # the number of images of each source
        self.counts = [1 if maker is None else maker.count for maker in makers]
        self.bases = [0, *accumulate(self.counts)][:-1]  # where those of a source begin, among all
        full = len(self.pointwise)
        places = [(source, index) for source, index, _ in self.terms[: len(self.norms)]]
        self.whole, self.diagonal = self._moments(places, full)
        self.layout = FoldLayout(
            full,
            [*map(self.whole.index, places[:full]), *map(self.diagonal.index, places[full:])],
            len(self.whole),
            len(self.diagonal),
            [term.target for term in terms],
            targets,
            [term.position for term in terms],
            [self.bases[source] + index for source, index in self.whole + self.diagonal],
            sum(self.counts),
            self.norms[0].eps if self.norms else 0.0,
            device,
        )
        self.runs = self._runs(full, device)
        self.plans: dict[int, Plan] = {}

    def _moments(self, places: list[Image], full: int) -> tuple[list[Image], list[Image]]:
        """The images (source, index) of which the second moments are needed, and those of which
        their diagonal is enough, each image once. ``places`` are the images of the normed terms.

        In both lists, the images whose maker computes their moments come first.
        """
        made = [
            (source, index, maker)
            for source, maker in enumerate(self.makers)
            if maker is not None
            for index in range(maker.count)
        ]
        normed = {source for source, _ in places}
        convolved = [(s, index) for s, index, maker in made if isinstance(maker, DepthwiseMaker)]
        pooled = [
            (s, index)
            for s, index, maker in made
            if isinstance(maker, PoolingMaker) and s in normed
        ]
        whole = list(dict.fromkeys(convolved + places[:full]))
        diagonal = list(dict.fromkeys(pooled + places[full:]))
        if both := set(whole) & set(diagonal):
            raise ValueError(
                f"images {sorted(both)} are normed as they are and after a 1×1 convolution: give "
                "them twice"
            )
        return whole, diagonal

    def _runs(
        self, full: int, device: torch.device
    ) -> list[tuple[int, int, int, Tensor | None, Tensor]]:
        """Runs of terms that read images of one source: the source, the first term and the one
        after the last, the indices of the images (``None``: all, in order), and the targets.
        """
        runs: list[tuple[int, int, int, Tensor | None, Tensor]] = []
        for (_, source), run in groupby(
            range(len(self.terms)), key=lambda t: (t < full, self.terms[t][0])
        ):
            some = [self.terms[t] for t in run]
            start = runs[-1][2] if runs else 0
            indices, goals = [index for _, index, _ in some], [target for *_, target in some]
            maker = self.makers[source]
            in_order = maker is None or indices == list(range(maker.count))
            images = None if in_order else torch.tensor(indices, device=device)
            targets = torch.tensor(goals, device=device)
            runs.append((source, start, start + len(some), images, targets))
        return runs

    def plan(self, channels: int) -> "Plan":
        """The plan for images of so many channels."""
        if channels not in self.plans:
            self.plans[channels] = Plan(self, channels)
        return self.plans[channels]

    def split(
        self, tensors: Sequence[Any]
    ) -> tuple[Sequence[Any], list[Sequence[Any]], Sequence[Any]]:
        """Splits what :class:`supernet.ops.fast.compiled.Combined` is given, or a list in the same
        order, into the small tensors, those of each source, and the starts.
        """
        count = 1 + len(self.pointwise) + 2 * len(self.affine)
        small, rest, sources = tensors[:count], tensors[count:], []
        for maker in self.makers:
            count = 1 if maker is None else 1 + maker.weights
            sources.append(rest[:count])
            rest = rest[count:]
        return small, sources, rest


class Plan:
    """Where everything lies when the C++ kernels compute a combination of images of so many
    ``channels``.

    There are three buffers. A matrix takes channels² numbers in them, a row takes channels numbers.

    * *moments*: second moments of the images that need them, diagonals of those of others, means of
      both.
    * *folded*: matrices of full terms, diagonals of the others, shifts of the targets.
    * *work*: the gradients of all that is in *folded*; then the matrices and diagonals by which the
      gradients of the targets are multiplied; then the gradients of the moments, by which the
      images are multiplied; and the shifts of the images, source by source.

    Kernels are given lists of addresses where images begin. Forward, these are the sources.
    Backward, they are the gradients of the targets, and then the sources.
    """

    def __init__(self, wiring: Wiring, channels: int):
        square, full = channels * channels, wiring.layout.full
        wholes, diagonals, targets = len(wiring.whole), len(wiring.diagonal), wiring.targets
        terms, images = list(enumerate(wiring.terms)), wiring.whole + wiring.diagonal

        def offsets(count: int, matrices: int) -> list[int]:
            """Where each of ``count`` things begins, and where the last ends: first matrices, then
            rows.
            """
            return [
                k * square if k < matrices else matrices * square + (k - matrices) * channels
                for k in range(count + 1)
            ]

        matrix = offsets(len(terms), full)
        shift = [matrix[-1] + k * channels for k in range(targets + 1)]
        moment = offsets(wholes + diagonals, wholes)
        mean = [moment[-1] + k * channels for k in range(wholes + diagonals + 1)]
        back, of_moment = shift[-1], shift[-1] + matrix[-1]
        of_mean = of_moment + moment[-1]
        self.moments_size, self.folded_size = mean[-1], shift[-1]
        self.work_size = of_mean + sum(wiring.counts) * channels
        self.shift = FLOAT * shift[0]  # in bytes, as the next
        self.backward_shift = [FLOAT * (of_mean + base * channels) for base in wiring.bases]

        # Of each source, where its maker puts the moments of what it makes.
        self.made_moments: list[tuple[slice, slice] | None] = []
        # of the second moments, and of the diagonals: how many are made with the images
        made = (0, 0)
        for source, (maker, count) in enumerate(zip(wiring.makers, wiring.counts, strict=True)):
            if maker is None or (source, 0) not in images:
                self.made_moments.append(None)
                continue
            k = images.index((source, 0))
            self.made_moments.append(
                (slice(moment[k], moment[k + count]), slice(mean[k], mean[k + count]))
            )
            made = (k + count, made[1]) if k < wholes else (made[0], k - wholes + count)
        rest = [*range(made[0], wholes), *range(wholes + made[1], wholes + diagonals)]
        self.moments = Grams(
            [(images[k], images[k], moment[k], "full" if k < wholes else "diagonal") for k in rest]
            + [(None, images[k], mean[k], "sum") for k in rest]
        )
        self.sums = Terms(
            [
                [((s, i), matrix[t], t < full) for t, (s, i, to) in terms if to == target]
                for target in range(targets)
            ]
        )
        self.slopes = Grams(
            [
                ((to, 0), (targets + s, i), matrix[t], "full" if t < full else "diagonal")
                for t, (s, i, to) in terms
            ]
            + [(None, (to, 0), shift[to], "sum") for to in range(targets)]
        )
        self.back = [
            Terms(
                [
                    [
                        ((to, 0), back + matrix[t], t < full)
                        for t, (s, i, to) in terms
                        if (s, i) == (source, index)
                    ]
                    + [
                        ((targets + source, index), of_moment + moment[k], k < wholes)
                        for k, image in enumerate(images)
                        if image == (source, index)
                    ]
                    for index in range(count)
                ]
            )
            for source, count in enumerate(wiring.counts)
        ]
