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
import json
import math
import multiprocessing
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the processes of the cases inherit it
from tools.cases import (  # noqa: E402
    OPTIMISATIONS,
    PRODUCTS,
    SIDE,
    Case,
    prepare,
    serve,
    space_of,
    task_of,
    use,
)
from tools.launches import launches  # noqa: E402

# Every process starts with what it needs imported: that takes longer than many steps.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["torch._dynamo", "supernet.learners.gradient", "tests.textbook", "tools.cases"]
)


class Worker:
    """A process that runs a case. It does a step on each request."""

    def __init__(self, case: Case):
        self.pipe, other = PROCESSES.Pipe()
        self.process = PROCESSES.Process(target=serve, args=(case, other))
        self.process.start()
        other.close()  # so that the pipe ends when the process ends
        # Processes that prepare at the same time have more threads than there are cores, and
        # threads that wait for each other in turns take many times as long.
        self.ask("ready")

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


def headline(base: Case, rounds: int) -> dict[str, dict[str, float]]:
    """The main figures, for each set of instructions that this machine has: the ratios of the
    textbook's and the rival's step to ours (a higher one is better), and of a path to its
    standalone network (1 is best).

    All sets take turns in the same rounds. The arithmetic fractions say how close a step comes to
    the speed limit of the machine.
    """
    adds = alone(base.threads, multiply_adds, base)
    share = adds / (PRODUCTS * SIDE**3)
    figures: dict[str, dict[str, float]] = {
        name: {"step_multiply_adds": adds} for name in instructions(base)
    }
    for precision, short in (("float32", "fp32"), ("bf16", "bf16")):
        # Not the rival in bf16: where a processor has no arithmetic for it, a step takes minutes.
        rivals = ("textbook", "rival") if precision == "float32" else ("textbook",)
        networks = (*rivals, "ours", "matrices")
        for name, found in in_turns(replace(base, precision=precision), networks, rounds).items():
            own = figures[name]
            own[f"step_ratio_{short}"] = ratio(found, "textbook", "ours")
            for network in (*rivals, "ours"):
                own[f"{network}_seconds_{short}"] = found[network]["seconds"]
            if "matrices" in found:
                own[f"arithmetic_fraction_{short}"] = share * ratio(found, "matrices", "ours")
                own[f"textbook_arithmetic_fraction_{short}"] = share * ratio(
                    found, "matrices", "textbook"
                )
                own[f"multiply_adds_per_second_{short}"] = (
                    PRODUCTS * SIDE**3 / found["matrices"]["seconds"]
                )
            if precision == "float32":
                own["memory_ratio"] = found["textbook"]["bytes"] / found["ours"]["bytes"]
                own |= {f"{one}_bytes": found[one]["bytes"] for one in networks[:3]}
                own["rival_ratio"] = ratio(found, "rival", "ours")
    small = replace(base, space="nb201", pixels=base.pixels // 2)
    small = replace(small, batch=4 * base.batch, cells=min(base.cells, 5))
    for name, found in in_turns(small, ("textbook", "rival", "ours"), rounds).items():
        figures[name]["nb201_ratio"] = ratio(found, "textbook", "ours")
        figures[name]["nb201_rival_ratio"] = ratio(found, "rival", "ours")
        figures[name]["nb201_seconds"] = found["ours"]["seconds"]
    for name, found in in_turns(base, ("path", "standalone"), 2 * rounds + 3, 2).items():
        figures[name]["path_ratio"] = ratio(found, "path", "standalone")
    for name, found in in_turns(base, ("difference", "second"), rounds).items():
        figures[name]["second_order_ratio"] = ratio(found, "difference", "second")
        figures[name]["second_order_seconds"] = found["second"]["seconds"]
    return figures


def in_turns(
    base: Case, networks: Sequence[str], rounds: int, warmup: int = 1
) -> dict[str, dict[str, dict]]:
    """What :func:`measure` finds of the ``networks``, for each set of instructions."""
    cases = {
        (name, network): replace(base, network=network, instructions=name)
        for name in instructions(base)
        for network in networks
        # without arithmetic for bf16, products of matrices take seconds, and say nothing
        if network != "matrices" or base.precision == "float32" or has_bf16(name, base.device)
    }
    found = measure(cases, rounds, warmup)
    return {
        name: {network: one for (its, network), one in found.items() if its == name}
        for name in instructions(base)
    }


def has_bf16(name: str, device: str) -> bool:
    """Whether a set of instructions, or the device, has arithmetic for bf16."""
    import torch

    from supernet.device import computes_bf16

    return name == "native" and computes_bf16(torch.device(device))


def instructions(base: Case) -> list[str]:
    """The sets of instructions to measure: all that this processor has, and AVX2 alone where that
    is less. An accelerator has its own.
    """
    return ["native", "avx2"] if base.device == "cpu" and "avx512f" in features() else ["native"]


FEATURES = (
    *("sse4_2", "avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16"),
    *("asimd", "sve", "bf16"),
)


def features() -> list[str]:
    """Those instructions of this processor that the speed of a step depends on (on Linux)."""
    cpu = Path("/proc/cpuinfo")
    text = cpu.read_text() if cpu.exists() else ""
    found = next((x for x in text.splitlines() if x.startswith(("flags", "Features"))), "").split()
    return [name for name in FEATURES if name in found]


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
    images, by as many workers of one thread as torch takes threads.
    """
    import numpy as np
    import torch

    from supernet.evaluate.accuracy import inherited_accuracy

    space, rng = space_of(base), np.random.default_rng(0)
    task = task_of(base)
    supernet = space.supernet(task).to(memory_format=torch.channels_last)
    batch = [(torch.randn(256, 3, base.pixels, base.pixels), torch.randint(10, (256,)))]
    workers = torch.get_num_threads()
    torch.set_num_threads(1)
    inherited_accuracy(supernet, space.path(space.random(rng)), batch, task, workers=workers)
    start = time.perf_counter()
    for _ in range(count):
        inherited_accuracy(supernet, space.path(space.random(rng)), batch, task, workers=workers)
    return count / (time.perf_counter() - start)


def launches_of(case: Case) -> int:
    """How many operations of torch a step launches where the C++ kernels do not run, as on an
    accelerator.
    """
    with ExitStack() as patches:
        step = prepare(case, patches)
        step()  # the first one makes what later ones keep
        return launches(step)


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


def machine(device: str) -> dict[str, str | int | bool]:
    """The hardware and the versions on which the figures depend. ``native`` says whether the
    package's C++ kernels can be used; an accelerator does not use them.
    """
    import torch

    from supernet.device import describe
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
        "features": " ".join(features()),
        "device": describe(torch.device(device)),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "native": native.library() is not None,
    }


def the_rest(base: Case, rounds: int) -> dict[str, Callable[[], dict]]:
    """What is measured beside the main figures: name -> a function that measures it."""
    networks = ("ours", "textbook", "path", "standalone")

    def counts() -> dict[str, int]:
        cases = {name: replace(base, network=name, without="native") for name in networks}
        return {name: alone(base.threads, launches_of, case) for name, case in cases.items()}

    return {
        "headline": lambda: headline(base, rounds),
        "ablations": lambda: ablations(base, rounds),
        "recompute": lambda: {"recompute": recomputation(base, rounds)},
        "growth": lambda: {"growth": growth(replace(base, cells=4), rounds)},
        "methods": lambda: {"methods": methods(base, rounds)},
        "pipeline": lambda: {"images_per_second": alone(base.threads, pipeline)},
        "judging": lambda: {"evaluations_per_second": alone(base.threads, evaluations, base)},
        "startup": lambda: {"startup_seconds": startup()},
        "launches": lambda: {"launches": counts()},
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
    parser.add_argument("--device", default="cpu", help="the device of the steps, such as cuda")
    parser.add_argument("--batch", type=int, default=16, help="images of a batch")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(the_rest(Case("ours"), 1)),
        help="measure these parts alone",
    )
    options = parser.parse_args()
    if options.plot and (options.quick or "growth" not in (options.only or ["growth"])):
        parser.error("--plot draws the growth, which --quick and --only leave out")
    base = Case("ours", threads=options.threads, device=options.device, batch=options.batch)
    if options.quick:
        figures = headline(replace(base, cells=2, batch=4), options.rounds or 3)
    else:
        parts = the_rest(base, options.rounds or 5)
        figures = {}
        for name in options.only or parts:
            figures |= parts[name]()
        if options.plot:
            draw(figures["growth"], options.plot)
    figures["machine"] = alone(options.threads, machine, options.device)
    print(json.dumps(figures) if options.json else "\n".join(lines(figures)))


if __name__ == "__main__":
    main()
