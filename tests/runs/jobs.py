"""Jobs that cost nothing, for the tests of executors. A worker must be able to import them."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from supernet.errors import UserError
from supernet.runs.job import Job


@dataclass(frozen=True)
class Squared(Job):
    """The square of its number. It reports what it does, as a training would."""

    number: int

    @property
    def name(self):
        return f"squared/{self.number}"

    def inputs(self, work):
        return {"number": self.number}

    def compute(self, work):
        with work.progress.stage(self.name, 2) as update, work.rows(self.name) as rows:
            for step in (1, 2):
                rows.log(self.name, step, {"loss": float(self.number)})
                update(step, {"loss": float(self.number)})
        work.progress.message(f"{self.name} is done")
        return {"square": self.number**2, "threads": torch.get_num_threads(), "pid": os.getpid()}


@dataclass(frozen=True)
class Dies(Squared):
    """Its process is killed in the middle, as by an operating system without free memory."""

    @property
    def name(self):
        return f"dies/{self.number}"

    def compute(self, work):
        with work.progress.stage(self.name, 2) as update:
            update(1, {})
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Wrong(Squared):
    """Fails in a way that the user can correct."""

    @property
    def name(self):
        return f"wrong/{self.number}"

    def compute(self, work):
        Path(work.folder / "failed").touch()
        raise UserError(f"{self.name}: lower the learning rate")


@dataclass(frozen=True)
class Later(Squared):
    """Ends some time after another job has failed."""

    @property
    def name(self):
        return f"later/{self.number}"

    def compute(self, work):
        while not (work.folder / "failed").exists():
            time.sleep(0.01)
        time.sleep(1)  # the failure is on its way to the main process
        return super().compute(work)


@dataclass(frozen=True)
class Patient(Squared):
    """Works until it is asked to stop. A file says that it has begun."""

    @property
    def name(self):
        return f"patient/{self.number}"

    def compute(self, work):
        Path(work.folder / f"begun-{self.number}").write_text(str(os.getpid()))
        for _ in range(3000):
            work.stop.check()
            time.sleep(0.01)
        raise AssertionError("nobody asked it to stop")
