"""Executors run jobs that do not need each other, in this process or in several processes of this
machine.

An executor is small: :meth:`Executor.run` takes jobs and calls ``finished`` with each result. Every
executor computes the same bits. Each job draws from generators of its own and uses as many threads
as the configuration says, independently of how many jobs run at once.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol, Self

from supernet.config import Config, typed
from supernet.device import reproducible
from supernet.errors import UserError, enough_memory, one_line
from supernet.processes import worker_context
from supernet.runs.folder import State
from supernet.runs.job import Job
from supernet.runs.setup import Contents, Setup
from supernet.runs.work import Work
from supernet.track.console import Progress, Update
from supernet.train.loop import STOPPING, Stopped, StopRequest

Finished = Callable[[Job, Any], None]
Failed = Callable[[Job, str], None]
POLL = 0.1  # seconds between two looks at the workers' messages


class Executor(Protocol):
    """Runs jobs. It is a context manager: it may keep processes between two calls of ``run``."""

    workers: int  # how many jobs can run at once

    def run(
        self, work: Work, jobs: Sequence[Job], finished: Finished, failed: Failed | None = None
    ) -> None:
        """Runs ``jobs``, which do not need each other; ``finished`` gets each job and its result.

        If ``failed`` is given, it gets each job that failed and one line that says why, and the
        other jobs go on.

        Raises:
            UserError: a job failed. Others that were running have ended first.
            Stopped: the run was asked to stop, and every running job has written a checkpoint.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: Any) -> None: ...


class Here:
    """Runs one job after the other, in this process."""

    workers = 1

    def run(
        self, work: Work, jobs: Sequence[Job], finished: Finished, failed: Failed | None = None
    ) -> None:
        for job in jobs:
            try:
                result = result_of(job, work)
            except Stopped:
                raise
            except Exception as error:
                if failed is None:
                    raise
                failed(job, reported(error))
            else:
                finished(job, result)
            work.stop.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        """Nothing is kept."""


def result_of(job: Job, work: Work) -> Any:
    """Computes a job in this process.

    Raises:
        UserError: it failed, or there is not enough memory for it.
        Stopped: the run was asked to stop.
    """
    with reproducible(work.config.threads), enough_memory(job.name, job.smaller):
        return job.compute(work)


def reported(error: Exception) -> str:
    """The error of a failed job in one line. The traceback is printed if it is not the user's."""
    if not isinstance(error, UserError | OSError):
        traceback.print_exception(error)
    return one_line(error)


def executor_of(setup: Setup) -> "Here | Processes":
    """The executor that the setting ``jobs`` asks for."""
    return Here() if setup.workers == 1 else Processes(setup.workers)


# --- several processes


class Processes:
    """Runs up to ``workers`` jobs at once, each in a process of its own. A process is kept for the
    next job.

    Each process has a pool of its own. If a process dies, only its own pool breaks.
    """

    def __init__(self, workers: int):
        self.workers = workers
        self.slots: list[Slot] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        for slot in self.slots:
            slot.close()
        self.slots = []

    def run(
        self, work: Work, jobs: Sequence[Job], finished: Finished, failed: Failed | None = None
    ) -> None:
        if len(jobs) == 1:  # another process would only cost time
            Here().run(work, jobs, finished, failed)
            return
        failures: list[Failure] = []
        waiting = deque(jobs)
        while len(self.slots) < min(self.workers, len(jobs)):
            self.slots.append(Slot())
        with Display(work.progress) as display:
            while waiting or any(slot.busy for slot in self.slots):
                if work.stop.signum is not None or any(f.ends for f in failures):
                    waiting.clear()
                if work.stop.signum is not None:
                    for slot in self.slots:
                        slot.tell_to_stop()
                for slot in self.slots:
                    if not slot.busy and waiting:
                        slot.start(work, waiting.popleft())
                wait([slot.reader for slot in self.slots], POLL)
                for slot in self.slots:
                    done = slot.future is not None and slot.future.done()
                    display.show(slot)
                    work.on_row()
                    if done:
                        job, outcome = slot.take()
                        if isinstance(outcome, Failure):
                            display.end(slot)
                            if failed is None:
                                failures.append(outcome)
                            else:
                                failed(job, outcome.line)
                        elif not isinstance(outcome, Interrupted):
                            finished(job, outcome)
        work.stop.check()
        if failures:
            raise UserError("; ".join(failure.line for failure in failures))


@dataclass(frozen=True)
class Failure:
    """Why a job failed, and whether jobs that have not begun are then left out (``ends``)."""

    line: str
    ends: bool


@dataclass(frozen=True)
class Interrupted:
    """A job stopped, because it was asked to stop."""

    signum: int


@dataclass
class Slot:
    """One worker: a pool of one process, and the pipe through which it reports what it does."""

    pool: ProcessPoolExecutor | None = None
    reader: Connection = field(init=False)
    future: Future[Any] | None = None
    job: Job | None = None
    pid: int | None = None  # known when the process is ready to be stopped
    told_to_stop: bool = False

    def __post_init__(self) -> None:
        context = worker_context()
        self.reader, writer = context.Pipe(duplex=False)
        self.pool = ProcessPoolExecutor(1, context, initializer=begin, initargs=(writer,))

    @property
    def busy(self) -> bool:
        return self.future is not None

    def start(self, work: Work, job: Job) -> None:
        if self.dead:  # the process has died while it had nothing to do
            self.close()
            self.__post_init__()
        assert self.pool is not None
        self.job, self.told_to_stop = job, False
        task = (work.setup.settings, vars(work.setup).get("contents"), str(work.folder), job)
        self.future = self.pool.submit(compute, *task)

    @property
    def dead(self) -> bool:
        """Whether the process has ended. The pool itself notices it a moment later."""
        alive = {child.pid for child in multiprocessing.active_children()}
        return self.pid is not None and self.pid not in alive

    def messages(self) -> Iterator[tuple[Any, ...]]:
        """The messages of the worker since the last call."""
        while self.reader.poll():
            message = self.reader.recv()
            if message[0] == "pid":
                self.pid = message[1]
            else:
                yield message

    def tell_to_stop(self) -> None:
        """Asks the job to stop, once. A process that is still starting is asked later."""
        if self.busy and self.pid is not None and not self.told_to_stop:
            self.told_to_stop = True
            self.send(signal.SIGTERM)

    def send(self, number: int) -> None:
        assert self.pid is not None
        with suppress(ProcessLookupError):  # it has died; its future says so
            os.kill(self.pid, number)

    def take(self) -> tuple[Job, Any]:
        """The job that has ended, and its outcome. A process that died is replaced."""
        assert self.job is not None and self.future is not None
        job, future = self.job, self.future
        self.job = self.future = None
        try:
            return job, future.result()
        except BrokenProcessPool:
            self.close()
            self.__post_init__()
            return job, Failure(
                f"{job.name}: its process was killed, perhaps because memory ran out; what the "
                "others have done is kept, and the same command goes on with what is missing; "
                "fewer jobs at once (jobs=1) take less memory",
                ends=False,
            )
        except Exception as error:
            return job, Failure(reported(error), ends=True)

    def close(self) -> None:
        assert self.pool is not None
        if self.busy:  # in the middle of a job: its checkpoint is kept
            while self.pid is None and not (self.future is not None and self.future.done()):
                wait([self.reader], POLL)
                list(self.messages())
            if self.pid is not None:
                self.send(signal.SIGKILL)
        self.pool.shutdown(wait=True, cancel_futures=True)
        self.pid = self.future = None


class Display:
    """Shows what the workers report: the stages of several jobs side by side."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.stages: dict[tuple[int, str], tuple[ExitStack, Update]] = {}  # by slot and name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        for stack, _ in self.stages.values():
            stack.close()
        self.stages = {}

    def show(self, slot: "Slot") -> None:
        for kind, *rest in slot.messages():
            place = id(slot), str(rest[0])
            if kind == "message":
                self.progress.message(*rest)
            elif kind == "stage":
                stack = ExitStack()
                self.stages[place] = stack, stack.enter_context(self.progress.stage(*rest))
            elif kind == "update":
                self.stages[place][1](*rest[1:])
            elif kind == "end":
                self.stages.pop(place)[0].close()

    def end(self, slot: "Slot") -> None:
        """Ends the stages of a worker that cannot report any more."""
        for place in [place for place in self.stages if place[0] == id(slot)]:
            self.stages.pop(place)[0].close()


# --- in a worker


class RemoteProgress(Progress):
    """Sends the main process what a worker does. Messages are short, so that each is one write."""

    def __init__(self, writer: Connection):
        super().__init__(quiet=True)
        self.writer = writer

    def message(self, content: Any) -> None:
        self.writer.send(("message", str(content)))

    @contextmanager
    def stage(self, name: str, total: int, start: int = 0) -> Iterator[Update]:
        self.writer.send(("stage", name, total, start))
        try:
            yield lambda step, metrics: self.writer.send(("update", name, step, shown(metrics)))
        finally:
            self.writer.send(("end", name))


def shown(metrics: Any) -> dict[str, float]:
    """The few figures that are shown while a job runs."""
    return {k: metrics[k] for k in ("loss", "accuracy", "peak_memory_bytes") if k in metrics}


@dataclass
class Worker:
    """The objects that a worker process keeps between jobs."""

    progress: Progress
    stop: StopRequest
    settings: tuple[dict[str, Any], Contents | None] | None = None
    setup: Setup | None = None


WORKER: Worker | None = None  # set in a worker process; each process has its own


def begin(writer: Connection) -> None:
    """Prepares a worker process: how it reports, how it stops, and that it ends with its parent."""
    global WORKER
    WORKER = Worker(RemoteProgress(writer), StopRequest())
    for number in STOPPING:  # Ctrl-C and the end of a terminal reach the workers as well
        signal.signal(number, lambda signum, frame: setattr(WORKER.stop, "signum", signum))
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=end_with, args=(parent.sentinel,), daemon=True).start()
    writer.send(("pid", os.getpid()))


def end_with(sentinel: int) -> None:
    """Ends this process at once if the main process ends, for any reason."""
    wait([sentinel])
    os._exit(1)


def compute(settings: dict[str, Any], contents: Contents | None, folder: str, job: Job) -> Any:
    """Computes a job in a worker process. Returns its result, or that it was interrupted."""
    assert WORKER is not None
    if WORKER.settings != (settings, contents):
        WORKER.settings = settings, contents
        WORKER.setup = Setup(typed(Config, settings, ""), contents)
    assert WORKER.setup is not None
    work = Work(WORKER.setup, State.read(Path(folder)), WORKER.progress, WORKER.stop)
    try:
        return result_of(job, work)
    except Stopped as stopped:
        return Interrupted(stopped.signum)
