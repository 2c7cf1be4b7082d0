"""How much memory a search will take, foretold from trials of it at two small batches.

What a step keeps for its gradients grows with the batch, all else stays, so that a peak is a line
in the batch and two points give it. They are measured, each in a fresh process that runs the
configured search itself (:mod:`supernet.trial`): no formula knows what kernels of one's own keep,
what an allocator cannot give back, or what the learner and the instruments add. To double the batch
until memory runs out, as batch-size finders for accelerators do, would have the kernel kill the
process on a CPU.

What does not fit is tried with ``search.recompute`` as well, which computes the same in less memory
and more time: it is preferred to a smaller batch, and goes with one where it does not suffice.
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
MARGIN = 0.15  # a forecast may be wrong by that share: what is said to fit, fits all the same
TELLING = (
    16 * 2**20
    # bytes between two trials; below, the grain of the allocator shows, and a larger batch costs little
    # time
)
LEAST = 2  # images in a batch: BatchNorm has nothing to normalise by in a single one


def require_mode(mode: str) -> None:
    """Raises a UserError unless ``mode``, the setting ``memory``, is one that there is."""
    if mode not in MODES:
        raise UserError(f"memory: {unknown(mode, MODES)}")


@dataclass(frozen=True)
class Line:
    """Bytes at the peak of a search with a batch of so many images: ``fixed + per_image * batch``."""

    fixed: float
    per_image: float

    @classmethod
    def through(cls, peaks: Mapping[int, int]) -> "Line":
        """The line through two points, batch -> bytes; it never falls."""
        (small, low), (large, high) = sorted(peaks.items())
        slope = max(0.0, (high - low) / (large - small))
        return cls(high - slope * large, slope)

    def at(self, batch: int) -> int:
        return round(self.fixed + self.per_image * batch)

    def largest(self, limit: float, most: int) -> int:
        """The largest batch, up to ``most``, whose peak is within ``limit`` bytes; 0 if not even
        that of two images is.
        """
        if self.at(LEAST) > limit:
            return 0
        return most if self.at(most) <= limit else int((limit - self.fixed) / self.per_image)


@dataclass(frozen=True)
class MemoryPlan:
    """What a ``stage``, search or retrain, takes at its peak with ``batch_size``, what there is
    (bytes), and the ``largest`` batch that fits.

    ``recomputed`` is the plan of the same search with search.recompute: of one that does not fit,
    if it saves anything there.
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
        """The batch to take instead of one that does not fit: the largest, in whole eights from
        eight on; 0 if there is none.
        """
        return self.largest if self.largest < 8 else self.largest - self.largest % 8

    @property
    def remedy(self) -> dict[str, Any]:
        """The settings of ``search`` to change so that it fits; none if it does, or if nothing
        helps.

        That is recomputation if it is enough, else the suggested batch, with recomputation where
        that allows a larger one.
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
        """Raises a UserError unless the search fits."""
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
    """Settings of ``search`` as they stand on a command line."""
    return " ".join(f"search.{name}={str(value).lower()}" for name, value in remedy.items())


def gibibytes(count: float) -> str:
    return f"{count / 2**30:.2f} GiB"


def planned(settings: Mapping[str, Any], images: int, available: int) -> MemoryPlan:
    """The plan for the search of a run's ``settings``, which trains its weights on so many
    ``images``; takes some seconds.

    Raises:
        UserError: a trial failed.
    """
    kept = plan_of(settings, images, available)
    if kept.fits or settings["search"]["recompute"]:
        return kept
    again = plan_of(
        {**settings, "search": settings["search"] | {"recompute": True}}, images, available
    )
    return (
        dataclasses.replace(kept, recomputed=again) if kept.peak - again.peak >= TELLING else kept
    )  # paths, say, save nothing


def planned_retraining(settings: Mapping[str, Any], images: int, available: int) -> MemoryPlan:
    """The plan for the retraining on so many ``images`` of the network that a run is given, or of
    that of most parameters which it may derive; it takes some seconds.

    Raises:
        UserError: a trial failed.
    """
    return plan_of(settings, images, available, "retrain")


def plan_of(
    settings: Mapping[str, Any], images: int, available: int, stage: str = "search"
) -> MemoryPlan:
    """The plan for a stage as the settings have it.

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
    """The line through the trials of a stage that is to have ``batch_size`` of so many ``images``.

    Raises:
        UserError: a trial failed.
    """
    small, large = trial_batches(batch_size)
    with ThreadPoolExecutor() as pool:
        low, high = pool.map(lambda batch: tried(settings, batch, stage), (small, large))
    if high - low < TELLING and large < images:
        small, low, large = large, high, min(4 * large, images)
        high = tried(settings, large, stage)
    return Line.through({small: low, large: high})


def trial_batches(batch_size: int) -> tuple[int, int]:
    """The two batches to try for one of ``batch_size``: an eighth and a quarter, within what is
    quick and what is telling.
    """
    large = max(2 * LEAST, min(batch_size, 64, max(16, batch_size // 4)))
    return large // 2, large


def tried(settings: Mapping[str, Any], batch: int, stage: str = "search") -> int:
    """The peak of a trial of the search or the retraining at that ``batch``, in bytes.

    Raises:
        UserError: it failed; the text has its last line.
    """
    measure = settings["measure"]
    trial = {
        **settings,
        stage: settings[stage] | {"batch_size": batch},
        # the one epoch that a trial ends has all readings
        "measure": measure | {"every": min(measure["every"], 1)},
    }
    done = subprocess.run(
        [sys.executable, "-P", "-m", "supernet.trial", stage],
        input=json.dumps(trial),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,  # Ctrl-C is for the run, which knows what to do with it
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
