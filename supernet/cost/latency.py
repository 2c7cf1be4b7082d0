"""The latency of architectures on one device: a table of measured operations, its error against
whole networks, and its form as CSV.

The model is that a forward pass takes as long as its operations, one after the other, plus a fixed
part that all networks of the space share (Cai et al., ProxylessNAS, ICLR 2019, section 3.3).
:func:`latency_error` measures how good this model is.
"""

import csv
import io
import itertools
import math
import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from supernet.cost.table import CostTable, Term, compared, decomposed, everything, nothing
from supernet.device import synchronise
from supernet.errors import UserError, unknown
from supernet.files import write_text
from supernet.mixture import Architecture
from supernet.ops import Rectified
from supernet.randomness import Streams
from supernet.spaces.capabilities import Costed, Itemised, Slot, capable
from supernet.spaces.space import Space
from supernet.task import Task

ROUNDS = 15  # measurements of each thing; the result is their median
# rounds before these that are not counted: caches and clocks settle, kernels are chosen
WARM_UP = 2
# runs of an operation in one measurement: one run is too short for a clock,
# and so the device is waited for only once
REPEATS = 5
REFERENCES = 5  # whole networks from which the fixed part is measured
COLUMNS = ("group", "slot", "option", "ms")
FIXED = "fixed"  # the group, in a file, of the row without slot and option


Key = TypeVar("Key", bound=Hashable)
Place = tuple[str, str, str]  # group, slot and option as a file writes them


@dataclass(frozen=True)
class LatencyError:
    """How the latencies of a table compare with those measured on whole networks: Kendall's tau,
    and the mean of ``|table / measured - 1|``.
    """

    rank_correlation: float
    mean_relative_error: float
    architectures: int  # how many random architectures were measured


# --- measuring


@dataclass(frozen=True)
class Bench:
    """What is timed, and on which device: forward passes of ``batch_size`` inputs of ``task``.

    ``streams`` give weights, inputs and random architectures. ``clock`` returns seconds.
    """

    space: Space
    task: Task
    device: torch.device
    streams: Streams
    batch_size: int = 1
    rounds: int = ROUNDS
    clock: Callable[[], float] = time.perf_counter

    def timed(self, jobs: Mapping[Key, Callable[[], object]]) -> dict[Key, float]:
        """The median milliseconds of each job. In every round each job runs once, so that a slow
        moment affects all jobs alike.
        """
        seconds: dict[Key, list[float]] = {name: [] for name in jobs}
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
        """One job for each different architecture: a pass through its standalone network."""
        with self.streams.initialising("latency"):
            inputs = self.task.example(self.batch_size).to(self.device)
            return {
                architecture: partial(
                    self.space.standalone(architecture, self.task).to(self.device).eval(), inputs
                )
                for architecture in architectures
            }


def measured(bench: Bench) -> CostTable:
    """The table of milliseconds, for networks in the evaluation form.

    Raises:
        UserError: the space has no costs that add up.
    """
    instead = "leave out budget.latency_ms"
    space = capable(bench.space, Costed, "latency", instead)
    if isinstance(space, Itemised):
        return measured_by_modules(bench, space)
    return measured_by_differences(bench, space)


def measured_by_differences(bench: Bench, space: Costed) -> CostTable:
    """The table from the times of whole networks, which differ in the options of one term."""
    return decomposed(space, bench.timed(bench.networks(compared(space))))


def measured_by_modules(bench: Bench, space: Itemised) -> CostTable:
    """The table from the times of single operations.

    Every different candidate operation (kind, width, stride, image size) is timed alone, together
    with the sum that its output is added to. The fixed part (stem, reductions, preprocessing, head
    and everything between) is the time that whole networks take beyond their operations: the median
    over a few random networks.
    """
    with torch.device("meta"):  # computes no values: only the shapes of the operations are needed
        network = space.supernet(bench.task, "evaluation").eval()
        shapes = _shapes(network, bench.task.example(bench.batch_size, "meta"), space)
    places = space.candidates(network)
    kinds: dict[str, Hashable] = {}  # name of a candidate -> everything that its time depends on
    jobs: dict[Hashable, Callable[[], object]] = {}  # one for each of these
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
    times = bench.timed({**jobs, **references})
    options = nothing(space)
    for name, (group, slot, option) in places.items():
        options[group][slot, option] += times[kinds[name]] / REPEATS
    alone = CostTable(space, 0.0, options)
    beyond = [times[reference] - alone.of(reference) for reference in references]
    # noise can make the sum of the parts larger than the whole
    return CostTable(space, max(0.0, statistics.median(beyond)), options)


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
    network: nn.Module, inputs: Tensor, space: Itemised
) -> dict[str, tuple[torch.Size, torch.Size]]:
    """The shapes of the input and the output of each candidate operation, when a supernet runs all
    of them on ``inputs``.
    """
    shapes = {}

    def noting(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            shapes[name] = (given[0].shape, output.shape)

        return note

    handles = []
    for name in space.candidates(network):
        operation = network.get_submodule(name)
        # A cell rectifies once for several operations, so that only the body is called.
        inner = operation.body if isinstance(operation, Rectified) else operation
        handles.append(inner.register_forward_hook(noting(name)))
    network(inputs, everything(space))
    for handle in handles:
        handle.remove()
    return shapes


def _materialised(operation: nn.Module, device: torch.device) -> nn.Module:
    """The meta module on ``device``, with new weights from torch's global generator."""
    real = operation.to_empty(device="cpu")
    for module in real.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
    return real.to(device)


def _repeated(operation: nn.Module, source: Tensor, total: Tensor) -> Callable[[], None]:
    def job() -> None:
        for _ in range(REPEATS):
            total + operation(source)

    return job


# --- as a file, which can be edited, or measured on another machine


def write_table(path: Path, table: CostTable) -> None:
    """Writes a table of milliseconds as CSV, with the columns group, slot, option, ms. The row
    ``fixed`` has no slot and no option. A row of several slots has their groups, slots and options,
    with a plus sign between them.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerow([FIXED, "", "", repr(table.fixed)])
    joint = {term.slots: term.costs for term in table.joint}
    for place, (slots, options) in _places(table.space).items():
        if len(slots) == 1:
            ((group, slot),) = slots
            ms = table.options[group][slot, options[0]]
        else:
            ms = joint[slots][options]
        writer.writerow([*place, repr(float(ms))])
    write_text(path, text.getvalue())


def _places(space: Space) -> dict[Place, tuple[tuple[Slot, ...], tuple[int, ...]]]:
    """The rows of a file: group, slot and option as the file writes them -> the slots and options
    (indices) that the row is about.
    """
    groups = {group.name: group for group in space.groups}
    places: dict[Place, tuple[tuple[Slot, ...], tuple[int, ...]]] = {}
    terms = capable(space, Costed, "latency", "leave out budget.latency_table").terms()
    for slots in terms:
        numbers = [range(len(groups[group].options)) for group, _ in slots]
        for options in itertools.product(*numbers):
            names = [groups[g].options[o] for (g, _), o in zip(slots, options, strict=True)]
            where = "+".join(g for g, _ in slots), "+".join(str(slot) for _, slot in slots)
            places[*where, "+".join(names)] = slots, options
    return places


def read_table(path: Path, space: Space) -> CostTable:
    """The inverse of :func:`write_table`.

    Raises:
        UserError: the file is missing, or is not a complete table of this space. The message says
            where it is wrong and what is expected.
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
    about = _places(space)
    places = [(FIXED, "", ""), *about]
    # The difference between two whole networks can be negative.
    least = 0 if isinstance(space, Itemised) else -math.inf
    found: dict[Place, float] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        where = f"{path}, line {number}"
        if len(row) != len(COLUMNS):
            raise UserError(
                f"{where}: {len(row)} values; expected {len(COLUMNS)}: {','.join(COLUMNS)}"
            )
        group, slot, option, text = (word.strip() for word in row)
        place = group, slot, option
        if place not in places:
            raise UserError(f"{where}: {_misplaced(space, *place)}")
        if place in found:
            raise UserError(f"{where}: {','.join(place)} is there twice; keep one of them")
        try:
            found[place] = float(text)
        except ValueError:
            found[place] = math.nan
        if not (math.isfinite(found[place]) and found[place] >= least):
            raise UserError(
                f"{where}: ms is {text!r}; expected milliseconds, a number of at least {least}"
            )
    if missing := [place for place in places if place not in found]:
        raise UserError(
            f"{path}: no row {','.join(missing[0])} ({len(missing)} of {len(places)} missing); "
            f"expected all of {space.name}"
        )
    options = nothing(space)
    joint: dict[tuple[Slot, ...], list[float]] = {}
    for place, (slots, chosen) in about.items():
        if len(slots) == 1:
            ((name, index),) = slots
            options[name][index, chosen[0]] = found[place]
        else:
            joint.setdefault(slots, []).append(found[place])
    width = {group.name: len(group.options) for group in space.groups}
    terms = [
        Term(slots, torch.tensor(ms, dtype=torch.float64).reshape([width[g] for g, _ in slots]))
        for slots, ms in joint.items()
    ]
    return CostTable(space, found[FIXED, "", ""], options, tuple(terms))


def _misplaced(space: Space, group: str, slot: str, option: str) -> str:
    """The reason why there is no row with this name."""
    if group == FIXED:
        return f"{FIXED} has no slot and no option; expected {FIXED},,,MS"
    known = {g.name: g for g in space.groups}
    if "+" in group:
        return f"no such term: {group},{slot},{option}"
    if group not in known:
        return f"group: {unknown(group, [*known, FIXED])}"
    if slot not in map(str, range(known[group].slots)):
        return f"slot {slot!r}; expected 0 to {known[group].slots - 1} in {group}"
    return f"option: {unknown(option, known[group].options)}"
