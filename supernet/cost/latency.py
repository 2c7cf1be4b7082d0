"""Latency of architectures on one device: a table of measured operations, its error against whole
networks, its form as CSV.

A forward pass is taken to last as long as its operations one after the other, and a fixed part that
all networks of the space share. That is a model (Cai et al., ProxylessNAS, ICLR 2019, section 3.3):
:func:`latency_error` says how good it is.
"""

import csv
import io
import math
import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from supernet.cost.table import CostTable, everything
from supernet.device import synchronise
from supernet.errors import UserError, unknown
from supernet.files import write_text
from supernet.mixture import Architecture
from supernet.ops import Rectified
from supernet.randomness import Streams
from supernet.spaces.space import Space

ROUNDS = 15  # measurements of each thing, of which the median counts
WARM_UP = 2  # rounds before them that do not count: caches, clocks and the choice of kernels settle
# runs of an operation a measurement: it is too short for a clock, and a device is waited for once
REPEATS = 5
REFERENCES = 5  # whole networks that the fixed part is taken from
COLUMNS = ("group", "slot", "option", "ms")
FIXED = "fixed"  # the group, in a file, of the row that has no slot and no option


@dataclass(frozen=True)
class LatencyError:
    """How a table's latencies relate to those measured on whole networks: Kendall's tau, mean of
    ``|table / measured - 1|``.
    """

    rank_correlation: float
    mean_relative_error: float
    architectures: int  # random ones that were measured


# --- measuring


@dataclass(frozen=True)
class Bench:
    """What is timed, on what: forward passes of ``batch_size`` images of ``input_shape`` (channels,
    height, width) on ``device``.

    ``streams`` gives weights, images and random architectures; ``clock`` counts seconds.
    """

    space: Space
    classes: int
    input_shape: tuple[int, int, int]
    device: torch.device
    streams: Streams
    batch_size: int = 1
    rounds: int = ROUNDS
    clock: Callable[[], float] = time.perf_counter

    def timed(self, jobs: Mapping[Hashable, Callable[[], object]]) -> dict[Hashable, float]:
        """The median milliseconds of each job, over rounds in which every job has its turn: a slow
        moment meets all alike.
        """
        seconds: dict[Hashable, list[float]] = {name: [] for name in jobs}
        with torch.no_grad():
            for number in range(WARM_UP + self.rounds):
                for name, job in jobs.items():
                    synchronise(self.device)
                    started = self.clock()
                    job()
                    synchronise(self.device)
                    took = self.clock() - started
                    if number >= WARM_UP:
                        seconds[name].append(took)
        return {name: 1000 * statistics.median(values) for name, values in seconds.items()}

    def networks(
        self, architectures: Iterable[Architecture]
    ) -> dict[Architecture, Callable[[], Tensor]]:
        """A job for each distinct architecture: one pass through its standalone network."""
        with self.streams.initialising("latency"):
            images = torch.randn(self.batch_size, *self.input_shape).to(self.device)
            return {
                architecture: partial(
                    self.space.standalone(architecture, self.classes, self.input_shape[0])
                    .to(self.device)
                    .eval(),
                    images,
                )
                for architecture in architectures
            }


def measured(bench: Bench) -> CostTable:
    """The table of milliseconds, in the evaluation geometry.

    Every distinct candidate operation (kind, width, stride, image size) is timed alone, together
    with the sum that its output goes into. The fixed part (stem, reductions, preprocessing, head
    and all between) is what a few whole random networks take beyond their operations, their median.
    """
    space = bench.space
    with torch.device(
        "meta"
    ):  # nothing is computed here: only the shapes that each operation meets are wanted
        network = space.supernet(bench.classes, bench.input_shape[0], phase="evaluation").eval()
        shapes = _shapes(network, torch.empty(bench.batch_size, *bench.input_shape), space)
    places = space.candidates(network)
    kinds, jobs = (
        {},
        {},
    )  # name of a candidate -> all that makes it another one; one job for each of these
    with bench.streams.initialising("latency"):
        for name in places:
            operation = network.get_submodule(name)
            kinds[name] = (name.rpartition(".")[2], str(operation), *shapes[name])
            if kinds[name] not in jobs:
                source, target = (torch.randn(shape).to(bench.device) for shape in shapes[name])
                jobs[kinds[name]] = _repeated(
                    _materialised(operation, bench.device), source, target
                )
    rng = bench.streams.host("latency")
    references = bench.networks(space.random(rng) for _ in range(REFERENCES))
    times = bench.timed(jobs | references)
    options = {group.name: torch.zeros(group.shape, dtype=torch.float64) for group in space.groups}
    for name, (group, slot, option) in places.items():
        options[group][slot, option] += times[kinds[name]] / REPEATS
    alone = CostTable(space, 0.0, options)
    beyond = [times[reference] - alone.of(reference) for reference in references]
    return CostTable(
        space, max(0.0, statistics.median(beyond)), options
    )  # noise can make the parts seem slower than the whole


def latency_error(table: CostTable, bench: Bench, architectures: int = 20) -> LatencyError:
    """The error of a table against whole networks of random architectures, drawn anew."""
    from scipy.stats import kendalltau  # half a second to import

    rng = bench.streams.host("latency_error")
    times = bench.timed(bench.networks(bench.space.random(rng) for _ in range(architectures)))
    predicted, found = [table.of(architecture) for architecture in times], list(times.values())
    error = statistics.fmean(
        abs(guess / truth - 1) for guess, truth in zip(predicted, found, strict=True)
    )
    return LatencyError(float(kendalltau(predicted, found).statistic), error, len(times))


def _shapes(
    network: nn.Module, images: Tensor, space: Space
) -> dict[str, tuple[torch.Size, torch.Size]]:
    """The shapes of input and output of each candidate operation in a pass of ``images`` through
    all of a supernet.
    """
    shapes = {}

    def noting(name: str) -> Callable:
        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            shapes[name] = (inputs[0].shape, output.shape)

        return note

    handles = []
    for name in space.candidates(network):
        operation = network.get_submodule(name)
        inner = (
            operation.body if isinstance(operation, Rectified) else operation
        )  # a cell rectifies once for several
        handles.append(inner.register_forward_hook(noting(name)))
    network(images, everything(space))
    for handle in handles:
        handle.remove()
    return shapes


def _materialised(operation: nn.Module, device: torch.device) -> nn.Module:
    """The meta module with weights, drawn anew by torch's global generator, on ``device``."""
    real = operation.to_empty(device="cpu")
    for module in real.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return real.to(device)


def _repeated(operation: nn.Module, source: Tensor, total: Tensor) -> Callable[[], None]:
    def job() -> None:
        for _ in range(REPEATS):
            total + operation(source)

    return job


# --- as a file that can be edited, or measured elsewhere


def write_table(path: Path, table: CostTable) -> None:
    """Writes a table of milliseconds as CSV: columns group, slot, option, ms; the row ``fixed`` has
    no slot and no option.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerow([FIXED, "", "", repr(table.fixed)])
    for group in table.space.groups:
        for slot, row in enumerate(table.options[group.name].tolist()):
            writer.writerows(
                [group.name, slot, option, repr(ms)]
                for option, ms in zip(group.options, row, strict=True)
            )
    write_text(path, text.getvalue())


def read_table(path: Path, space: Space) -> CostTable:
    """The inverse of :func:`write_table`.

    Raises:
        UserError: the file is missing, or is not a whole table of this space; the line says where
        and what is expected.
    """
    try:
        rows = list(
            csv.reader(io.StringIO(Path(path).read_text(encoding="utf-8-sig")), strict=True)
        )
    except OSError as error:
        raise UserError(
            f"{path}: cannot read the latency table ({error.strerror}); supernet latency writes one"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path}: not CSV ({error}); expected the columns {','.join(COLUMNS)}"
        ) from error
    if not rows or tuple(word.strip() for word in rows[0]) != COLUMNS:
        raise UserError(
            f"{path}, line 1: {','.join(rows[0])[:80] if rows else ''!r}; expected the columns "
            f"{','.join(COLUMNS)}"
        )
    places = {(FIXED, "", ""): None}
    places |= {
        (g.name, str(s), o): (g.name, s, i)
        for g in space.groups
        for s in range(g.slots)
        for i, o in enumerate(g.options)
    }
    found: dict[tuple[str, ...], float] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        where = f"{path}, line {number}"
        if len(row) != len(COLUMNS):
            raise UserError(
                f"{where}: {len(row)} values; expected {len(COLUMNS)}: {','.join(COLUMNS)}"
            )
        *place, text = (word.strip() for word in row)
        place = tuple(place)
        if place not in places:
            raise UserError(f"{where}: {_misplaced(space, *place)}")
        if place in found:
            raise UserError(f"{where}: {','.join(place)} is there twice; keep one of them")
        try:
            found[place] = float(text)
        except ValueError:
            found[place] = math.nan
        if not 0 <= found[place] < math.inf:
            raise UserError(
                f"{where}: ms is {text!r}; expected milliseconds, a number of at least 0"
            )
    if missing := [place for place in places if place not in found]:
        raise UserError(
            f"{path}: no row {','.join(missing[0])} ({len(missing)} of {len(places)} missing); "
            f"expected all of {space.name}"
        )
    options = {group.name: torch.zeros(group.shape, dtype=torch.float64) for group in space.groups}
    for place, entry in places.items():
        if entry is not None:
            group, slot, option = entry
            options[group][slot, option] = found[place]
    return CostTable(space, found[FIXED, "", ""], options)


def _misplaced(space: Space, group: str, slot: str, option: str) -> str:
    """What is wrong with the name of a row."""
    if group == FIXED:
        return f"{FIXED} has no slot and no option; expected {FIXED},,,MS"
    known = {g.name: g for g in space.groups}
    if group not in known:
        return f"group: {unknown(group, [*known, FIXED])}"
    if slot not in map(str, range(known[group].slots)):
        return f"slot {slot!r}; expected 0 to {known[group].slots - 1} in {group}"
    return f"option: {unknown(option, known[group].options)}"
