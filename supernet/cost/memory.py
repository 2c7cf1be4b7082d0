"""Predicts how much memory a search will take, from trials of it at two small batches.

The tensors that a step keeps for its gradients grow with the batch; everything else stays the same.
So the peak is a line in the batch, and two points define the line. Each point is measured in a
fresh process that runs the configured search itself (:mod:`supernet.trial`). A formula could not
know what the project's own kernels keep, what an allocator cannot give back, or what the learner
and the instruments add. Batch-size finders for accelerators double the batch until memory runs out.
On a CPU, the operating system would then kill the process.

If a search does not fit, it is also tried with ``search.recompute``, which computes the same in
less memory and more time. Recomputation is preferred to a smaller batch. If it does not suffice,
both are changed.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from supernet.errors import UserError, unknown

MODES = ("ignore", "check", "refuse", "fit")
MARGIN = 0.15  # a prediction may be too low by this share, and the search will still fit
# The least difference, in bytes, between two trials. Peaks of the same trial differ by some MiB, so
# that a smaller difference says little; and then a third, larger batch takes little time.
LEAST_DIFFERENCE = 32 * 2**20
LEAST = 2  # images in a batch: BatchNorm cannot normalise a single image


def require_mode(mode: str) -> None:
    """Raises a UserError if ``mode``, the value of the setting ``memory``, does not exist."""
    if mode not in MODES:
        raise UserError(f"memory: {unknown(mode, MODES)}")


@dataclass(frozen=True)
class Line:
    """The peak of a search as a function of its batch, in bytes: ``fixed + per_image * batch``."""

    fixed: float
    per_image: float

    @classmethod
    def through(cls, peaks: Mapping[int, int]) -> "Line":
        """The line through two points, batch -> bytes. Its slope is never negative."""
        (small, low), (large, high) = sorted(peaks.items())
        slope = max(0.0, (high - low) / (large - small))
        return cls(high - slope * large, slope)

    def at(self, batch: int) -> int:
        return round(self.fixed + self.per_image * batch)

    def largest(self, limit: float, most: int) -> int:
        """The largest batch, up to ``most``, whose peak is within ``limit`` bytes. It is 0 if even
        the peak of two images is above the limit.
        """
        if self.at(LEAST) > limit:
            return 0
        return most if self.at(most) <= limit else int((limit - self.fixed) / self.per_image)


@dataclass(frozen=True)
class MemoryPlan:
    """The predicted ``peak`` of a ``stage`` (search or retrain) with ``batch_size``, the memory
    that is ``available`` (both in bytes), and the ``largest`` batch that fits.

    If the search does not fit, ``recomputed`` is the plan of the same search with search.recompute;
    ``None`` if recomputation saves nothing.
    """

    batch_size: int
    peak: int
    available: int
    largest: int
    recomputed: "MemoryPlan | None" = None
    stage: str = "search"

    @property
    def fits(self) -> bool:
        return self.peak * (1 + MARGIN) <= self.available

    @property
    def suggested(self) -> int:
        """The batch to use if the configured one does not fit: the largest that fits, from eight on
        rounded down to a multiple of eight; 0 if there is none.
        """
        return self.largest if self.largest < 8 else self.largest - self.largest % 8

    @property
    def remedy(self) -> dict[str, Any]:
        """The settings of ``search`` to change so that it fits. Empty if it fits already, or if no
        change helps.

        Recomputation is preferred if it suffices. Otherwise it is the suggested batch, together
        with recomputation if that allows a larger batch.
        """
        again = self.recomputed
        if self.fits:
            return {}
        if again is not None and again.fits:
            return {"recompute": True}
        if again is not None and again.suggested > self.suggested:
            return {"batch_size": again.suggested, "recompute": True}
        return {"batch_size": self.suggested} if self.suggested else {}

    def __str__(self) -> str:
        need, have = gibibytes(self.peak), gibibytes(self.available)
        ends = (
            f"the largest batch that fits is {self.largest}"
            if self.largest
            else "not even a batch of two images fits"
        )
        other = f"; with search.recompute=true {self.recomputed}" if self.recomputed else ""
        return f"about {need} at {self.stage}.batch_size={self.batch_size} of {have}; {ends}{other}"

    def require_fit(self) -> None:
        """Raises a UserError if the search does not fit."""
        if not self.fits:
            change = (
                f"{overrides(self.remedy)}, which fits, or memory=fit"
                if self.remedy
                else "a smaller space.search"
            )
            raise UserError(
                f"memory: {self}, with {MARGIN:.0%} to spare; choose {change}; memory=ignore "
                "tries it all the same"
            )


def overrides(remedy: Mapping[str, Any]) -> str:
    """Settings of ``search`` in the form of a command line."""
    return " ".join(f"search.{name}={str(value).lower()}" for name, value in remedy.items())


def gibibytes(count: float) -> str:
    return f"{count / 2**30:.2f} GiB"


def planned(settings: Mapping[str, Any], images: int, available: int) -> MemoryPlan:
    """The plan for the search of a run's ``settings``, which trains the weights on ``images``
    images. It takes some seconds.

    Raises:
        UserError: a trial failed.
    """
    kept = plan_of(settings, images, available)
    if kept.fits or settings["search"]["recompute"]:
        return kept
    again = plan_of(
        {**settings, "search": settings["search"] | {"recompute": True}}, images, available
    )
    saves = kept.peak - again.peak >= LEAST_DIFFERENCE  # for paths, recomputation saves nothing
    return dataclasses.replace(kept, recomputed=again) if saves else kept


def planned_retraining(settings: Mapping[str, Any], images: int, available: int) -> MemoryPlan:
    """The plan for the retraining on ``images`` images. It is for the network that the run is
    given, or else for the network with the most parameters that the run may derive. It takes some
    seconds.

    Raises:
        UserError: a trial failed.
    """
    return plan_of(settings, images, available, "retrain")


def plan_of(
    settings: Mapping[str, Any], images: int, available: int, stage: str = "search"
) -> MemoryPlan:
    """The plan for a stage with these settings.

    Raises:
        UserError: a trial failed.
    """
    batch_size = min(settings[stage]["batch_size"], images)
    line = line_of(settings, images, batch_size, stage)
    return MemoryPlan(
        batch_size,
        line.at(batch_size),
        available,
        line.largest(available / (1 + MARGIN), images),
        stage=stage,
    )


def line_of(
    settings: Mapping[str, Any], images: int, batch_size: int, stage: str = "search"
) -> Line:
    """The line through the trials of a stage with ``batch_size``, which trains on ``images``
    images.

    Raises:
        UserError: a trial failed.
    """
    small, large = trial_batches(batch_size)
    with ThreadPoolExecutor() as pool:
        low, high = pool.map(lambda batch: tried(settings, batch, stage), (small, large))
    if high - low < LEAST_DIFFERENCE and large < images:
        small, low, large = large, high, min(4 * large, images)
        high = tried(settings, large, stage)
    return Line.through({small: low, large: high})


def trial_batches(batch_size: int) -> tuple[int, int]:
    """The two batches of the trials, for a stage with ``batch_size``: an eighth and a quarter of
    it. They are limited so that a trial is neither slow nor too small to show a difference.
    """
    large = max(2 * LEAST, min(batch_size, 64, max(16, batch_size // 4)))
    return large // 2, large


def tried(settings: Mapping[str, Any], batch: int, stage: str = "search") -> int:
    """The peak of a trial of the search or the retraining with that ``batch``, in bytes.

    Raises:
        UserError: the trial failed. The message has the last line of its error.
    """
    measure = settings["measure"]
    trial = {
        **settings,
        stage: settings[stage] | {"batch_size": batch},
        # a trial has one epoch, at whose end all instruments are read
        "measure": measure | {"every": min(measure["every"], 1)},
    }
    done = subprocess.run(
        [sys.executable, "-P", "-m", "supernet.trial", stage],
        input=json.dumps(trial),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,  # so that Ctrl-C reaches only the run, which ends the trial itself
    )
    if done.returncode:
        killed = (
            "it was killed, as happens where memory runs out"
            if done.returncode == -signal.SIGKILL
            else ""
        )
        why = killed or (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(
            f"memory: a trial of {stage}.batch_size={batch} failed: {why}; memory=ignore leaves "
            "it out"
        )
    return int(done.stdout.split()[-1])
