"""The checkpoint files of the training stages.

A checkpoint is written atomically, and its checksums are verified when it is read. The training
loop decides when to write one.
"""

import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from supernet.errors import UserError
from supernet.files import atomic
from supernet.shapes import Checkpoint, checked

VERSION = 1


class Restorable(Protocol):
    """A stage, as far as a checkpoint knows it; see :class:`supernet.train.loop.Stage`."""

    name: str
    steps: int

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class Checkpoints:
    """The checkpoint files in ``folder``, one for each stage.

    :meth:`due` says whether ``every_seconds`` have passed since the last checkpoint was written.
    ``before_save`` is called before a file is written; it may raise a UserError.
    """

    folder: Path
    every_seconds: float = 60.0
    before_save: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        self._last = time.monotonic()

    def path(self, stage: str) -> Path:
        return self.folder / f"{stage.replace('/', '-')}.pt"

    def due(self) -> bool:
        return time.monotonic() - self._last >= self.every_seconds

    def save(self, stage: str, state: dict[str, Any]) -> Path:
        self.before_save()
        path = self.path(stage)
        with atomic(path) as temporary:
            try:
                torch.save({"version": VERSION, "stage": stage, **state}, temporary)
            except RuntimeError as error:  # torch raises this where other writers raise OSError
                raise OSError("the disk seems to be full") from error
        self._last = time.monotonic()
        return path

    def load(self, stage: str, key: str) -> dict[str, Any] | None:
        """The last checkpoint of ``stage``, with its tensors on the CPU; ``None`` if there is none.

        Only tensors and plain values are read (``weights_only``), so that no code can run.

        Raises:
            UserError: the file is damaged, or it was written by another version, for another stage,
                or with another ``key`` (other settings).
        """
        path = self.path(stage)
        if not path.exists():
            return None
        try:
            with zipfile.ZipFile(path) as archive:
                # torch writes checksums but does not verify them when it reads
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file can raise almost any exception
            raise UserError(
                f"checkpoint {path} is damaged ({type(error).__name__}); restore it, or remove it "
                f"and give the same command again, which then runs {stage} anew"
            ) from error
        if (
            not isinstance(state, dict)
            or state.get("version") != VERSION
            or state.get("stage") != stage
        ):
            raise UserError(
                f"{path} is not a version {VERSION} checkpoint of the stage {stage}; remove it"
            )
        if state.get("key") != key:
            raise UserError(
                f"checkpoint {path} was written with other settings (another space, method, data "
                f"or seed); remove it to start the stage {stage} anew, or start in a new folder"
            )
        advice = f"remove it to start the stage {stage} anew"
        content: dict[str, Any] = checked(state, Checkpoint, f"checkpoint {path}", advice)
        return content

    def restore(self, stage: Restorable, saved: dict[str, Any]) -> None:
        """Restores a fresh ``stage`` from its checkpoint, the value of :meth:`load`.

        Raises:
            UserError: the state in the checkpoint does not fit the stage. The parts of a stage
                raise errors of many types; here they become one line.
        """
        try:
            require_kind(saved["state"], stage.state_dict(), "state")
            stage.load_state_dict(saved["state"])
            for optimizer in optimizers_in(stage):
                require_fitting(optimizer)
            step, done = saved["step"], getattr(stage, "done", saved["step"])
            if step > stage.steps or step != done:
                raise ValueError(f"it is at step {step} of {stage.steps}, and has done {done}")
        except UserError:
            raise
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise UserError(
                f"checkpoint {self.path(stage.name)} does not fit ({type(error).__name__}: {said});"
                f" remove it to start the stage {stage.name} anew"
            ) from error

    def weights(self, stage: str, saved: dict[str, Any], *names: str) -> dict[str, torch.Tensor]:
        """The weights in a checkpoint of ``stage``: of the parts ``names`` of its state, the first
        that is there.

        Raises:
            UserError: there are none.
        """
        parts = (saved["state"].get(name) for name in names)
        found = next((part for part in parts if part), None)
        if not isinstance(found, dict) or not all(
            isinstance(name, str) and isinstance(value, torch.Tensor)
            for name, value in found.items()
        ):
            raise UserError(f"checkpoint {self.path(stage)} is damaged (no weights); restore it")
        return found


def optimizers_in(stage: Any) -> Iterator[torch.optim.Optimizer]:
    """Yields the optimisers of a stage and of its parts, such as its learner."""
    for part in (stage, *vars(stage).values()):
        values = vars(part).values() if hasattr(part, "__dict__") else ()
        yield from (value for value in values if isinstance(value, torch.optim.Optimizer))


def require_fitting(optimizer: torch.optim.Optimizer) -> None:
    """Raises a ValueError unless the state of each weight, such as its momentum, has its shape.
    Torch would only say so in the next step.
    """
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.ndim and value.shape != weight.shape:
                shapes = f"{list(value.shape)} for a weight of {list(weight.shape)}"
                raise ValueError(f"{name} of an optimiser has the shape {shapes}")


def require_kind(saved: Any, fresh: Any, where: str) -> None:
    """Raises a ValueError unless a ``saved`` state is made of the same kinds of values as a
    ``fresh`` one.

    A fresh state may lack what training adds: its empty values, and ``None``, say nothing. Shapes
    are left to the parts, because a supernet may have been replaced by a larger one.
    """
    if fresh is None:
        return
    kinds: Any = (int, float) if isinstance(fresh, float) else type(fresh)
    fits = isinstance(saved, kinds) and isinstance(saved, bool) == isinstance(fresh, bool)
    if not fits:
        raise ValueError(f"{where} is {type(saved).__name__}, not {type(fresh).__name__}")
    if isinstance(fresh, Mapping):
        for name in fresh.keys() & saved.keys():
            require_kind(saved[name], fresh[name], f"{where}.{name}")
    elif isinstance(fresh, torch.Tensor) and (saved.dtype, saved.ndim) != (fresh.dtype, fresh.ndim):
        raise ValueError(f"{where} is a tensor of another kind")
