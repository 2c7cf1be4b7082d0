"""Shows a person how far a stage has got: as a progress bar in a terminal, otherwise as lines."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column

from supernet.track.output import Output

Update = Callable[[int, Mapping[str, float]], None]


class Progress:
    """Shows the stages that run, each with its rate, the time left, loss, accuracy and peak memory.

    In a terminal there is a progress bar, and messages are printed above it. If ``file`` (default:
    standard output) is not a terminal, or under ``TERM=dumb`` or ``CI``, there are plain lines: one
    at the end of a stage, and before that at most one in ``every`` seconds.
    """

    def __init__(self, *, quiet: bool = False, file: TextIO | None = None, every: float = 5.0):
        self.quiet, self.every = quiet, every
        self.bar: Bar | None = None  # shared by all stages that run now
        self.running = 0  # how many stages have a line in the bar
        output = cast(TextIO, Output(file or sys.stdout))
        self.console = Console(file=output, highlight=False, emoji=False)
        self.live = (
            self.console.is_terminal
            and not self.console.is_dumb_terminal
            and not os.environ.get("CI")
        )
        if not self.live:  # there is no window that says how wide a line may be
            self.console = Console(
                file=self.console.file,
                highlight=False,
                emoji=False,
                force_terminal=False,
                width=132,
            )

    def message(self, content: Any) -> None:
        """Prints a message. Text is printed unchanged, in one line of any length. Anything else,
        such as a table, is rendered by rich.
        """
        if self.quiet:
            return
        if isinstance(content, str):
            self.console.print(content, markup=False, soft_wrap=True)
        else:
            self.console.print(content)

    @contextmanager
    def stage(self, name: str, total: int, start: int = 0) -> Iterator[Update]:
        """Shows a stage of ``total`` steps, of which ``start`` are done already.

        Yields a function; call it with the number of steps done and the metrics.
        """
        if self.quiet:
            yield lambda step, metrics: None
        elif self.live:
            with self._bar(name, total, start) as update:
                yield update
        else:
            with self._lines(name, total, start) as update:
                yield update

    @contextmanager
    def _bar(self, name: str, total: int, start: int) -> Iterator[Update]:
        """Shows a progress bar. The bars of stages that run at once stand below each other until
        all these stages have ended.
        """
        rate, bar = Rate(start), self.bar or self._new_bar()
        if self.bar is None:
            self.bar = bar
            bar.start()
        task = bar.add_task(name, total=total, completed=start, figures="")
        self.running += 1

        def update(step: int, metrics: Mapping[str, float]) -> None:
            figures = "  ".join([*rate.text(step, total), *short_texts(metrics)])
            bar.update(task, completed=step, figures=figures)

        try:
            yield update
        finally:
            self.running -= 1
            if not self.running:
                bar.stop()
                self.bar = None

    def _new_bar(self) -> Bar:
        columns = (
            TextColumn("{task.description:<10}", markup=False),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn(
                "{task.fields[figures]}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis"),
            ),
        )
        return Bar(*columns, console=self.console, refresh_per_second=4)

    @contextmanager
    def _lines(self, name: str, total: int, start: int) -> Iterator[Update]:
        """Prints plain lines."""
        rate = Rate(start)
        printed = time.monotonic()
        if start:
            self.message(f"{name}: goes on after step {start} of {total}")

        def update(step: int, metrics: Mapping[str, float]) -> None:
            nonlocal printed
            now = time.monotonic()
            if step < total and now - printed < self.every:
                return
            printed = now
            speed = rate(step)
            left = [] if step >= total or not speed else [f"{clock((total - step) / speed)} left"]
            self.message(
                "  ".join(
                    [
                        f"{name}: step {step}/{total}",
                        *rate.text(step, total),
                        *left,
                        *short_texts(metrics),
                    ]
                )
            )

        yield update


class Labelled(Progress):
    """Shows on another :class:`Progress`; every stage and message there begins with ``label``."""

    def __init__(self, progress: Progress, label: str):
        super().__init__(quiet=True)
        self.progress, self.label = progress, label

    def message(self, content: Any) -> None:
        labelled = f"{self.label}: {content}" if isinstance(content, str) else content
        self.progress.message(labelled)

    @contextmanager
    def stage(self, name: str, total: int, start: int = 0) -> Iterator[Update]:
        with self.progress.stage(f"{self.label} {name}", total, start) as update:
            yield update


class Rate:
    """Steps per second since the stage began in this session."""

    def __init__(self, start: int):
        self.start, self.began = start, time.monotonic()

    def text(self, step: int, total: int) -> list[str]:
        """The rate in words; nothing for a stage of one step, of which it would say nothing."""
        return [f"{self(step):.1f} steps/s"] if total > 1 else []

    def __call__(self, step: int) -> float:
        return (step - self.start) / max(time.monotonic() - self.began, 1e-9)


def short_texts(metrics: Mapping[str, float]) -> list[str]:
    """Loss, accuracy and peak memory as short texts, if the metrics have them."""
    texts = []
    if "loss" in metrics:
        texts.append(f"loss {metrics['loss']:.4f}")
    if "accuracy" in metrics:
        texts.append(f"accuracy {100 * metrics['accuracy']:.2f}%")
    if metrics.get("peak_memory_bytes"):
        texts.append(f"peak {metrics['peak_memory_bytes'] / 2**20:,.0f} MiB")
    return texts


def clock(seconds: float) -> str:
    """A time as text, such as ``0:05`` or ``1:02:03``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
