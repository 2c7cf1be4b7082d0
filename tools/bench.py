"""Compares the training step of a supernet with a plain reference that is written like the papers
(``tests/textbook.py``).

    uv run python tools/bench.py [--quick] [--json] [--plot FILE] [--threads N] [--rounds N]

Each *case* (a network and its size) runs in a process of its own. The processes take turns: in each
*round* every process does one step. Other load on the machine therefore affects all cases alike.
The first rounds warm up and do not count. A time is the median over the rounds. A ratio of two
cases is the median of the ratios of each round. The memory of a case is the growth of the peak of
its process from just before the first step. ``--quick`` uses a small supernet and measures only the
ratios.

The tool also measures the speed limit of the machine, as the rate of multiply-adds in products of
large matrices, with the precision and the threads of the case. The *arithmetic fraction* of a step
is the rate at which it does its necessary multiply-adds (:func:`multiply_adds`), divided by that
rate.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
OPTIMISATIONS = ("at_once", "native", "fixed_weights", "channels_last")
# Every process starts with torch imported: to import it takes longer than many steps.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch", "torch._dynamo"])
SIDE, PRODUCTS = 1024, 4  # side of the matrices that are multiplied, products in one step


@dataclass(frozen=True)
class Case:
    """What one process measures: steps of a ``network``.

    "ours" is a first-order DARTS step of this package's supernet, and "textbook" the same step of
    the plain reference. "path" and "standalone" are steps of one architecture, as a path of the
    supernet and as a network of its own. "search" is the whole step of a search by ``method``, with
    its data pipeline. "matrices" is products of matrices. ``without`` names an optimisation that is
    switched off.
    """

    network: str
    method: str = ""
    space: str = "darts"
    channels: int = 16
    cells: int = 8
    nodes: int = 4  # nodes of a cell of the DARTS space
    batch: int = 16
    pixels: int = 32
    precision: str = "float32"
    options: int = 0  # how many options of every slot run, the first ones; 0: all
    without: str = ""
    recompute: bool = False
    threads: int = 0


# --- what runs in the process of a case


def serve(case: Case, asker: Connection) -> None:
    """Answers requests until the pipe ends.

    "step" does a step and answers with its seconds. "memory" answers with the bytes by which the
    peak of this process has grown since just before the first step.
    """
    import torch

    from supernet.device import peak_memory_bytes, reset_peak_memory

    use(case.threads)
    device, made = torch.device("cpu"), PREPARE.get(case.network, prepare)
    with ExitStack() as patches:
        # A small step first: it loads the code into memory, which must not count.
        made(replace(case, cells=2, batch=2, pixels=8), patches)()
    with ExitStack() as patches, suppress(EOFError):
        step = made(case, patches)
        reset_peak_memory(device)
        before = peak_memory_bytes(device)
        while what := asker.recv():
            if what == "memory":
                asker.send(peak_memory_bytes(device) - before)
                continue
            start = time.perf_counter()
            step()
            asker.send(time.perf_counter() - start)


def use(threads: int) -> None:
    """Sets the number of threads of torch; 0 leaves it unchanged."""
    import torch

    if threads:
        torch.set_num_threads(threads)


def space_of(case: Case):
    """The search space of a case."""
    from supernet.spaces import darts, nb201
    from supernet.spaces.cells import Geometry

    geometry = Geometry(case.channels, case.cells)
    space = {"darts": darts.Darts, "nb201": nb201.NB201}[case.space](geometry, geometry)
    if case.space == "darts":
        slots = len(darts.edges_of(case.nodes))
        space.nodes, space.groups = (
            case.nodes,
            tuple(replace(group, slots=slots) for group in space.groups),
        )
    return space


def task_of(case: Case):
    """The task of a case: ten classes of colour images."""
    from supernet.task import Classification

    return Classification((3, case.pixels, case.pixels), 10)


def prepare(case: Case, patches: ExitStack) -> Callable[[], object]:
    """A function that does one step of a case: "ours", "textbook", "path" or "standalone"."""
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F

    from supernet.device import autocast
    from supernet.learners import gradient
    from supernet.learners.learner import Bilevel
    from supernet.mixture import Choice, detached, softmax_mixture
    from supernet.ops.fast import native
    from supernet.ops.fast.convolution import with_fast_gradients
    from supernet.spaces.cells import MixedCell
    from supernet.spaces.space import set_recompute
    from tests import textbook

    space = space_of(case)
    torch.manual_seed(0)
    supernet = space.supernet(task_of(case))
    images = torch.randn(2, case.batch, 3, case.pixels, case.pixels)
    labels = torch.randint(10, (2, case.batch))
    device = torch.device("cpu")
    network = supernet
    if case.network == "textbook":
        network = textbook.textbook(space)
        textbook.copy_weights(supernet, network)
    elif case.network in ("path", "standalone"):
        architecture = space.random(np.random.default_rng(0))
        if case.network == "standalone":
            network = space.standalone(architecture, task_of(case), "search")
    if case.network != "textbook" and case.without != "channels_last":
        network.to(memory_format=torch.channels_last)
        with_fast_gradients(network)
    set_recompute(network, case.recompute)
    if case.without == "at_once":
        patches.enter_context(mock.patch.object(MixedCell, "_at_once", MixedCell._one_by_one))
    elif case.without == "native":
        patches.enter_context(mock.patch.object(native, "library", lambda: None))
    elif case.without == "fixed_weights":
        patches.enter_context(mock.patch.object(gradient, "fixed", lambda network: ExitStack()))
    parameters = list(network.parameters())
    weights = torch.optim.SGD(parameters, lr=0.025, momentum=0.9, weight_decay=3e-4)
    logits = {g.name: (1e-3 * torch.randn(g.shape)).requires_grad_() for g in space.groups}
    learner = gradient.Gradient()
    learner.begin(logits, None)

    def relax(logits):
        mixture = softmax_mixture(logits)
        if not case.options:
            return mixture
        return {
            n: Choice((tuple(range(case.options)),) * len(c.active), c.weights)
            for n, c in mixture.items()
        }

    def update(loss) -> None:
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        weights.step()
        weights.zero_grad()

    def forward(index: int, mixture=None):
        with autocast(device, case.precision):
            if case.network == "textbook":
                out = textbook.run(network, images[index], mixture)
            else:
                out = network(images[index]) if mixture is None else network(images[index], mixture)
            return F.cross_entropy(out, labels[index])

    def ours() -> None:
        batches = [(images[index], labels[index]) for index in (0, 1)]
        problem = Bilevel(
            supernet, logits, relax, F.cross_entropy, weights, *batches, lambda logits: 0.0
        )
        with autocast(device, case.precision):
            learner.step(problem)
        update(forward(0, detached(relax(logits))))

    def plain() -> None:
        forward(1, relax(logits)).backward()
        learner.optimizer.step()
        learner.optimizer.zero_grad()
        weights.zero_grad()
        update(forward(0, detached(relax(logits))))

    return {
        "ours": ours,
        "textbook": plain,
        "path": lambda: update(forward(0, space.path(architecture))),
        "standalone": lambda: update(forward(0)),
    }[case.network]


def search(case: Case, patches: ExitStack) -> Callable[[], object]:
    """A function that does one step of a search as the command line does it, on images of noise."""
    import torch

    from supernet.cli.composition import composed
    from supernet.data import ImageData, TensorImages
    from supernet.runs.search import search_stage
    from supernet.runs.setup import Setup
    from supernet.runs.work import budget_of

    settings = {
        "method": case.method,
        "space": case.space,
        "data": "cifar10",
        "size": "full",
        "space.search.channels": case.channels,
        "space.search.cells": case.cells,
        "search.batch_size": case.batch,
        "precision": case.precision,
        "device": "cpu",
        "tracker": "none",
    }
    setup = Setup(composed([f"{name}={value}" for name, value in settings.items()]))
    images = torch.randint(256, (40 * case.batch, 3, case.pixels, case.pixels), dtype=torch.uint8)
    images = TensorImages(images, torch.arange(len(images)) % 10)
    setup.data = ImageData.of("noise", images, images)
    stage = search_stage(setup, budget_of(setup, {}))
    # In the first steps of some methods the weights learn alone; half way through, all learn.
    indices = itertools.count(stage.planned // 2)
    return lambda: stage.step(next(indices))


def matrices(case: Case, patches: ExitStack) -> Callable[[], object]:
    """A function that only multiplies matrices: it shows how fast torch does multiply-adds on this
    machine.
    """
    import torch

    matrix = torch.randn(
        SIDE, SIDE, dtype={"float32": torch.float32, "bf16": torch.bfloat16}[case.precision]
    )
    return lambda: [matrix @ matrix for _ in range(PRODUCTS)]


PREPARE = {"search": search, "matrices": matrices}


# --- what runs in the main process


class Worker:
    """A process that runs a case. It does a step on each request."""

    def __init__(self, case: Case):
        self.pipe, other = PROCESSES.Pipe()
        self.process = PROCESSES.Process(target=serve, args=(case, other))
        self.process.start()
        other.close()  # so that the pipe ends when the process ends

    def ask(self, what: str) -> float:
        """Sends a request of :func:`serve` and returns the answer."""
        try:
            self.pipe.send(what)
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            self.process.join()
            raise SystemExit(
                f"bench: a case ended with exit code {self.process.exitcode}; see above"
            ) from error

    def close(self) -> None:
        self.pipe.close()
        self.process.join()


def alone(threads: int, function: Callable, *arguments):
    """Runs ``function`` in a process of its own and returns its result."""
    with ProcessPoolExecutor(1, PROCESSES, use, (threads,)) as pool:
        return pool.submit(function, *arguments).result()


def measure(cases: dict[str, Case], rounds: int, warmup: int = 1) -> dict[str, dict]:
    """Measures several cases, whose processes take turns.

    Returns, for each name, ``seconds`` (the median), ``rounds`` (the seconds of each round) and
    ``bytes`` (of memory).
    """
    workers = {name: Worker(case) for name, case in cases.items()}
    try:
        times = {name: [] for name in cases}
        for index in range(warmup + rounds):
            for name, worker in workers.items():
                seconds = worker.ask("step")
                if index >= warmup:
                    times[name].append(seconds)
        return {
            name: {
                "seconds": statistics.median(times[name]),
                "rounds": times[name],
                "bytes": workers[name].ask("memory"),
            }
            for name in cases
        }
    finally:
        for worker in workers.values():
            worker.close()


def ratio(found: dict[str, dict], over: str, under: str) -> float:
    """The median, over the rounds, of the time of ``over`` divided by the time of ``under``."""
    return statistics.median(
        a / b for a, b in zip(found[over]["rounds"], found[under]["rounds"], strict=True)
    )


def multiply_adds(case: Case) -> int:
    """The number of multiply-adds that a first-order step must do, whatever the program.

    As in papers, only convolutions and linear layers count, of every option of every edge. Let F be
    the multiply-adds of one forward pass, by the table of costs of the space. The backward pass of
    a layer takes as many for the gradient of its weights, and as many for the gradient of its
    inputs.

    The step of the weights takes 3 F, minus the multiply-adds of the stem once, because the images
    do not require grad.

    In the step of the logits the weights do not require grad. The backward pass ends where nothing
    depends on a logit: it does not reach the stem, the operations that read the inputs of the first
    cell, or the layers that compute these inputs. The step therefore takes 2 F minus those parts of
    the backward pass. torch's counter counts this step. (The counter is exact for gradients of
    inputs. It is not exact for gradients of depthwise weights, which do not occur here.)

    Everything else that a program computes does not count, such as the second moments in ours.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from supernet.cost.table import counted
    from supernet.mixture import softmax_mixture

    space, shape = space_of(case), (3, case.pixels, case.pixels)
    table = counted(space, task_of(case))["madds"]
    forward = round(table.fixed + sum(float(options.sum()) for options in table.options.values()))
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = space.supernet(task_of(case)).eval().requires_grad_(False)
        logits = {
            group.name: torch.zeros(group.shape, requires_grad=True) for group in space.groups
        }
        network(torch.empty(1, *shape), softmax_mixture(logits)).sum().backward()
    stem = network.stem[0].weight.numel() * case.pixels**2
    # a multiply-add is two floating-point operations
    return case.batch * (counter.get_total_flops() // 2 + 3 * forward - stem)


def headline(base: Case, rounds: int) -> dict[str, float]:
    """The main figures: the ratios of the textbook to ours (a higher one is better) and of a path
    to its standalone network (1 is best).

    The arithmetic fractions say how close a step comes to the speed limit of the machine.
    """
    figures = {"step_multiply_adds": alone(base.threads, multiply_adds, base)}
    for precision, short in (("float32", "fp32"), ("bf16", "bf16")):
        case = replace(base, precision=precision)
        found = measure(
            {name: replace(case, network=name) for name in ("textbook", "ours", "matrices")}, rounds
        )
        figures[f"step_ratio_{short}"] = ratio(found, "textbook", "ours")
        figures[f"textbook_seconds_{short}"] = found["textbook"]["seconds"]
        figures[f"ours_seconds_{short}"] = found["ours"]["seconds"]
        share = figures["step_multiply_adds"] / (PRODUCTS * SIDE**3)
        figures[f"arithmetic_fraction_{short}"] = share * ratio(found, "matrices", "ours")
        figures[f"textbook_arithmetic_fraction_{short}"] = share * ratio(
            found, "matrices", "textbook"
        )
        figures[f"multiply_adds_per_second_{short}"] = (
            PRODUCTS * SIDE**3 / found["matrices"]["seconds"]
        )
        if precision == "float32":
            figures["memory_ratio"] = found["textbook"]["bytes"] / found["ours"]["bytes"]
            figures["textbook_bytes"], figures["ours_bytes"] = (
                found["textbook"]["bytes"],
                found["ours"]["bytes"],
            )
    found = measure(
        {name: replace(base, network=name) for name in ("path", "standalone")},
        2 * rounds + 3,
        warmup=2,
    )
    figures["path_ratio"] = ratio(found, "path", "standalone")
    return figures


def ablations(base: Case, rounds: int) -> dict[str, dict[str, float]]:
    """The time and the memory of a step without one optimisation, relative to the step with all."""
    cases = {"ours": base} | {name: replace(base, without=name) for name in OPTIMISATIONS}
    found = measure(cases, rounds)
    return {
        "times_without": {name: ratio(found, name, "ours") for name in OPTIMISATIONS},
        "memory_without": {
            name: found[name]["bytes"] / found["ours"]["bytes"] for name in OPTIMISATIONS
        },
    }


def recomputation(base: Case, rounds: int) -> dict[str, float]:
    """The time and the memory of a step that computes cheap activations again in the backward pass,
    relative to the usual step.
    """
    found = measure({"kept": base, "again": replace(base, recompute=True)}, rounds)
    return {
        "time": ratio(found, "again", "kept"),
        "memory": found["again"]["bytes"] / found["kept"]["bytes"],
    }


GROWTH = {
    "channels": (8, 16, 32),
    "cells": (4, 8, 12),
    "nodes": (2, 4, 6),
    "options": (4, 6, 8),
    "batch": (8, 16, 32),
    "pixels": (16, 32),
}


def growth(base: Case, rounds: int) -> dict[str, dict]:
    """Seconds and bytes of a step for several values of each measure of size.

    The exponents are those of the power laws through the figures; 1 means that twice the size takes
    twice as much.
    """
    result = {}
    for name, values in GROWTH.items():
        found = measure({str(value): replace(base, **{name: value}) for value in values}, rounds)
        result[name] = {}
        for what in ("seconds", "bytes"):
            result[name][what] = {value: one[what] for value, one in found.items()}
            points = [(math.log(value), math.log(found[str(value)][what])) for value in values]
            result[name][f"{what}_exponent"] = statistics.linear_regression(
                *zip(*points, strict=True)
            ).slope
    return result


def draw(found: dict[str, dict], file: Path) -> None:
    """Draws the result of :func:`growth` on logarithmic axes, on which power laws are lines."""
    from matplotlib.figure import Figure

    from supernet.report.figures import framed
    from supernet.report.style import FOUND, OTHERS

    figure = Figure(figsize=(2.4 * len(found), 5), layout="constrained")
    for column, (name, measured) in zip(
        figure.subplots(2, len(found), squeeze=False).T, found.items(), strict=True
    ):
        for axes, what in zip(column, ("seconds", "bytes"), strict=True):
            sizes, values, exponent = (
                [int(size) for size in measured[what]],
                measured[what].values(),
                measured[f"{what}_exponent"],
            )
            middle = (
                statistics.geometric_mean(values) / statistics.geometric_mean(sizes) ** exponent
            )
            axes.set_title(f"{what}: exponent {exponent:.2f}", fontsize=9, loc="left")
            framed(axes, 9)
            axes.loglog(
                sizes, [middle * size**exponent for size in sizes], color=OTHERS, linewidth=1
            )
            axes.loglog(sizes, list(values), "o", color=FOUND, markersize=4)
            axes.set_xticks(sizes, sizes)
            axes.set_xticks([], minor=True)
            axes.tick_params(which="both", labelsize=7)
            axes.set_xlabel(name, fontsize=8)
    figure.savefig(file)


def methods(base: Case, rounds: int) -> dict[str, dict[str, float]]:
    """Measures steps of whole searches, with their data pipeline.

    Returns, for each method, seconds, bytes, and how many images per second the weights train on.
    Methods whose steps run a random path get more rounds, because their steps differ.
    """
    found = {}
    for names, count in (
        (("darts", "darts_2nd", "pc_darts"), rounds),
        (("gdas", "spos"), 4 * rounds),
    ):
        found |= measure(
            {name: replace(base, network="search", method=name) for name in names}, count
        )
    return {
        name: {
            "seconds": one["seconds"],
            "bytes": one["bytes"],
            "images_per_second": base.batch / one["seconds"],
        }
        for name, one in found.items()
    }


def pipeline(batch: int = 64, steps: int = 50) -> float:
    """Images per second of the data pipeline alone, on 32×32 images with crop, flip and cutout."""
    import numpy as np
    import torch

    from supernet.data import Augment, Batches, TensorImages

    images = TensorImages(
        torch.zeros(5000, 3, 32, 32, dtype=torch.uint8), torch.zeros(5000, dtype=torch.long)
    )
    batches = Batches(
        images,
        torch.arange(5000),
        batch,
        mean=torch.full((3,), 0.5),
        std=torch.full((3,), 0.25),
        augment=Augment(crop_padding=4, flip=True, cutout=16),
        order=np.random.default_rng(0),
        noise=torch.Generator(),
        device=torch.device("cpu"),
    )
    next(batches)
    start = time.perf_counter()
    for _ in range(steps):
        next(batches)
    return steps * batch / (time.perf_counter() - start)


def evaluations(base: Case, count: int = 10) -> float:
    """How many architectures per second are judged with the supernet's weights, on one batch of 256
    images.
    """
    import numpy as np
    import torch

    from supernet.evaluate.accuracy import inherited_accuracy

    space, rng = space_of(base), np.random.default_rng(0)
    task = task_of(base)
    supernet = space.supernet(task).to(memory_format=torch.channels_last)
    batch = [(torch.randn(256, 3, base.pixels, base.pixels), torch.randint(10, (256,)))]
    inherited_accuracy(supernet, space.path(space.random(rng)), batch, task)
    start = time.perf_counter()
    for _ in range(count):
        inherited_accuracy(supernet, space.path(space.random(rng)), batch, task)
    return count / (time.perf_counter() - start)


def startup(rounds: int = 3) -> float:
    """Seconds until the command line has printed its configuration."""

    def once() -> float:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "supernet.cli", "--cfg", "job"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        return time.perf_counter() - start

    return statistics.median(once() for _ in range(rounds))


def machine() -> dict[str, str | int | bool]:
    """The hardware and the versions on which the figures depend. ``native`` says whether the
    package's C kernels are in use.
    """
    import torch

    from supernet.ops.fast import native

    cpu = Path("/proc/cpuinfo")
    names = (
        [
            line.partition(":")[2].strip()
            for line in cpu.read_text().splitlines()
            if line.startswith("model name")
        ]
        if cpu.exists()
        else []
    )
    return {
        "processor": names[0] if names else platform.processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "native": native.library() is not None,
    }


def lines(figures: dict, prefix: str = "") -> Iterator[str]:
    """One line for each figure. The name of a nested figure is its path, such as ``a/b``."""
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from lines(value, f"{prefix}{name}/")
        else:
            yield f"{prefix + name:34} {f'{value:.3g}' if isinstance(value, float) else value}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="use a small supernet and measure only the ratios: about a minute on two cores",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object with every figure"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the growth into an SVG, PDF or PNG"
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="threads of each process; 0: as many as torch takes"
    )
    parser.add_argument("--rounds", type=int, default=0)
    options = parser.parse_args()
    if options.plot and options.quick:
        parser.error(
            "--plot draws the growth, which --quick does not measure; leave out one of them"
        )
    sys.path.insert(0, str(ROOT))  # the processes of the cases inherit it
    base = Case("ours", threads=options.threads)
    if options.quick:
        figures = headline(replace(base, cells=2, batch=4), options.rounds or 3)
    else:
        rounds = options.rounds or 5
        figures = headline(base, rounds)
        figures |= ablations(base, rounds) | {"recompute": recomputation(base, rounds)}
        figures |= {
            "growth": growth(replace(base, cells=4), rounds),
            "methods": methods(base, rounds),
        }
        figures["images_per_second"] = alone(options.threads, pipeline)
        figures["evaluations_per_second"] = alone(options.threads, evaluations, base)
        figures["startup_seconds"] = startup()
        if options.plot:
            draw(figures["growth"], options.plot)
    figures["machine"] = alone(options.threads, machine)
    print(json.dumps(figures) if options.json else "\n".join(lines(figures)))


if __name__ == "__main__":
    main()
