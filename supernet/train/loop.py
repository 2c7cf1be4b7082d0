"""The training loop that all stages share.

A stage says what one step does. The loop counts the steps, logs the figures, writes checkpoints,
resumes from them, and stops when a signal arrives.
"""

import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from supernet.device import peak_memory_bytes
from supernet.errors import UserError
from supernet.track.console import Progress
from supernet.track.interface import Tracker
from supernet.train.checkpoint import Checkpoints


class Stage(Protocol):
    """A training that proceeds in steps. Its state can be saved between any two steps.

    A stage may end early: it lowers :attr:`steps` at the end of an epoch. A stage may have an
    attribute ``parts`` (name -> seconds): the loop keeps these times in the checkpoint, so that
    they cover all sessions of an interrupted stage. It may have a ``title``, which people are shown
    instead of its name.
    """

    name: str
    key: str  # changes with every setting that the result depends on; see Checkpoints.load
    device: torch.device
    steps: int  # the number of steps of the whole stage
    steps_per_epoch: int

    def step(self, index: int) -> dict[str, Tensor]:
        """Does step ``index`` and returns the figures for the log.

        The figures are tensors, so that the host does not wait for the device in every step.
        """

    def end_of_epoch(self) -> dict[str, float]:
        """Returns the figures that are logged once an epoch."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class StageCost:
    """The time and memory that a stage took, over all its sessions."""

    seconds: float
    steps: int
    peak_memory_bytes: int
    parts: dict[str, float]  # name of a part of the stage -> how many of the seconds it took


class Stopped(Exception):
    """A signal stopped the run. A checkpoint was written, from which the run can be resumed."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


# The signals that stop a run. The system sends SIGHUP when a terminal is closed.
STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class StopRequest:
    """Remembers that a signal of :data:`STOPPING` arrived, until the stage can write a checkpoint
    and stop.

    A second signal raises KeyboardInterrupt at once. A signal that this process was started to
    ignore, as ``nohup`` does with SIGHUP, stays ignored.
    """

    def __init__(self) -> None:
        self.signum: int | None = None

    def _receive(self, signum: int, frame: Any) -> None:
        if self.signum is not None:
            raise KeyboardInterrupt
        self.signum = signum

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        heeded = [s for s in STOPPING if signal.getsignal(s) is not signal.SIG_IGN]
        before = {s: signal.signal(s, self._receive) for s in heeded}
        try:
            yield self
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def check(self) -> None:
        """Raises :class:`Stopped` if a signal has arrived."""
        if self.signum is not None:
            raise Stopped(self.signum)


def run_stage(
    stage: Stage,
    checkpoints: Checkpoints | None = None,
    tracker: Tracker | None = None,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
    log_every: int = 10,
) -> StageCost:
    """Runs ``stage`` to its end. If there is a checkpoint of it, the stage resumes from there.

    Every ``log_every`` steps, and at the end of each epoch, the mean of each figure since the last
    row is logged. The returned cost covers all sessions of an interrupted stage.

    Raises:
        UserError: the loss or a weight is not finite (the last checkpoint was written before that);
            or a checkpoint cannot be read or written.
        Stopped: ``stop`` received a signal; a checkpoint has been written.
    """
    tracker, progress, stop = (
        tracker or Tracker(),
        progress or Progress(quiet=True),
        stop or StopRequest(),
    )
    step, sums, counts, seconds, peak = 0, {}, {}, 0.0, 0
    parts: dict[str, float] = getattr(stage, "parts", {})
    saved = checkpoints.load(stage.name, stage.key) if checkpoints else None
    if saved and checkpoints:
        step, sums, counts, seconds, peak = (
            saved[k] for k in ("step", "sums", "counts", "seconds", "peak_memory_bytes")
        )
        parts |= {name: value for name, value in saved["parts"].items() if name in parts}
        checkpoints.restore(stage, saved)
        tracker.load_state_dict(saved["tracker"])
    started = time.perf_counter() - seconds

    def save() -> None:
        state = stage.state_dict()
        require_finite(stage, step, sums)
        if not all(tensor.isfinite().all() for tensor in tensors(state)):
            raise diverged(stage, step, "a weight is not finite")
        if checkpoints:
            checkpoints.save(
                stage.name,
                {
                    "key": stage.key,
                    "step": step,
                    "sums": sums,
                    "counts": counts,
                    "seconds": time.perf_counter() - started,
                    "peak_memory_bytes": peak,
                    "parts": dict(parts),
                    "state": state,
                    "tracker": tracker.state_dict(),
                },
            )

    title = getattr(stage, "title", stage.name)
    with progress.stage(title, stage.steps, start=step) as update:
        while step < stage.steps:
            figures = stage.step(step)
            step += 1
            for name, value in figures.items():  # a step may leave out some figures
                sums[name] = value + sums[name] if name in sums else value
                counts[name] = counts.get(name, 0) + 1
            if step % log_every == 0 or step % stage.steps_per_epoch == 0 or step == stage.steps:
                require_finite(stage, step, sums)
                peak = max(peak, peak_memory_bytes(stage.device))
                means = {name: float(value) / counts[name] for name, value in sums.items()}
                if step % stage.steps_per_epoch == 0:
                    means |= stage.end_of_epoch()
                tracker.log(stage.name, step, {"epoch": step / stage.steps_per_epoch, **means})
                update(step, {**means, "peak_memory_bytes": peak})
                sums, counts = {}, {}
            if step < stage.steps and (
                stop.signum is not None or (checkpoints and checkpoints.due())
            ):
                save()
                stop.check()
    save()
    return StageCost(time.perf_counter() - started, step, peak, parts)


def require_finite(stage: Stage, step: int, figures: dict[str, Tensor]) -> None:
    """Raises a UserError if one of the ``figures`` is not finite."""
    for name, value in figures.items():
        if not math.isfinite(float(value)):
            raise diverged(stage, step, f"{name} is {float(value)}")


def diverged(stage: Stage, step: int, what: str) -> UserError:
    """The error to raise when a training has diverged; ``what`` says which value is not finite."""
    return UserError(
        f"{stage.name}: {what} at step {step}; lower the learning rate or clip gradients more "
        "(a checkpoint from before, if there is one, is kept)"
    )


def tensors(state: Any) -> Iterator[Tensor]:
    """Yields every tensor in a state, at any depth of nested mappings."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for part in state.values():
            yield from tensors(part)
