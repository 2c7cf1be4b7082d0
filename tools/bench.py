"""Measures the step of a supernet against a plain reference written like the papers (``tests/textbook.py``).

    uv run python tools/bench.py [--quick] [--json] [--threads N]

Each case runs in a process of its own, and the processes take turns: one step of this, one of that, so that what else the machine
does befalls all alike. The first steps warm up; a time is the median of the rounds, a ratio the median of the rounds' ratios.
Memory is what the process's peak grows by from just before its first step. ``--quick`` takes a small geometry and the ratios alone.
"""

import argparse
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
OPTIMISATIONS = ("at_once", "native", "fixed_weights", "channels_last")


@dataclass(frozen=True)
class Case:
    """What one process does: steps of ``network`` "ours", "textbook", "path" or "standalone", ``without`` an optimisation."""

    network: str
    space: str = "darts"
    channels: int = 16
    cells: int = 8
    batch: int = 16
    pixels: int = 32
    precision: str = "float32"
    options: int = 0  # only the first so many options of every slot; 0 is all
    without: str = ""
    recompute: bool = False
    threads: int = 0


# --- in a process of its own


def serve(case: Case) -> None:
    """Answers each line on standard input: ``step`` with its seconds, ``memory`` with the bytes that the peak has grown by."""
    import torch

    if case.threads:
        torch.set_num_threads(case.threads)
    with ExitStack() as patches:
        step = prepare(case, patches)
        before = resident(peak=False)
        reset_peak()
        for line in sys.stdin:
            if line.strip() == "memory":
                print(resident(peak=True) - before, flush=True)
                continue
            start = time.perf_counter()
            step()
            print(time.perf_counter() - start, flush=True)


def prepare(case: Case, patches: ExitStack):
    """The step of a case, as a function."""
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F

    from supernet.device import autocast
    from supernet.learners import gradient
    from supernet.learners.learner import Bilevel
    from supernet.mixture import Choice, detached, softmax_mixture
    from supernet.ops import native
    from supernet.spaces.cell import MixedCell, set_recompute
    from supernet.spaces.darts import Darts
    from supernet.spaces.nb201 import NB201
    from supernet.spaces.space import Geometry
    from tests import textbook

    geometry = Geometry(case.channels, case.cells)
    space = {"darts": Darts, "nb201": NB201}[case.space](geometry, geometry)
    torch.manual_seed(0)
    supernet = space.supernet(10, 3)
    images = torch.randn(2, case.batch, 3, case.pixels, case.pixels)
    labels = torch.randint(10, (2, case.batch))
    device = torch.device("cpu")
    architecture = space.random(np.random.default_rng(0))
    network = supernet
    if case.network == "textbook":
        network = textbook.textbook(space)
        textbook.copy_weights(supernet, network)
    elif case.network == "standalone":
        network = space.standalone(architecture, 10, 3, phase="search")
    if case.network != "textbook" and case.without != "channels_last":
        network.to(memory_format=torch.channels_last)
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
        return {n: Choice((tuple(range(case.options)),) * len(c.active), c.weights) for n, c in mixture.items()}

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
        problem = Bilevel(supernet, logits, relax, F.cross_entropy, weights, *batches, lambda logits: 0.0)
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


def resident(peak: bool) -> int:
    """Bytes of memory that this process holds, or held at most."""
    status = Path("/proc/self/status")
    if status.exists():
        name = "VmHWM:" if peak else "VmRSS:"
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith(name))
    import torch

    from supernet.device import peak_memory_bytes

    return peak_memory_bytes(torch.device("cpu"))


def reset_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


# --- the process that asks


class Worker:
    """A process that runs a case, one step when told."""

    def __init__(self, case: Case):
        command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, what: str) -> float:
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"bench: a case ended with exit code {self.process.wait()}; see above")
        return float(answer)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure(cases: dict[str, Case], rounds: int, warmup: int = 1) -> dict[str, dict]:
    """Name -> ``seconds`` (median), ``rounds`` (all of them) and ``memory`` (bytes) of each case, taking turns."""
    workers = {name: Worker(case) for name, case in cases.items()}
    try:
        times = {name: [] for name in cases}
        for index in range(warmup + rounds):
            for name, worker in workers.items():
                seconds = worker.ask("step")
                if index >= warmup:
                    times[name].append(seconds)
        return {
            name: {"seconds": statistics.median(times[name]), "rounds": times[name], "memory": workers[name].ask("memory")}
            for name in cases
        }
    finally:
        for worker in workers.values():
            worker.close()


def ratio(found: dict[str, dict], over: str, under: str) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(found[over]["rounds"], found[under]["rounds"], strict=True))


def headline(base: Case, rounds: int) -> dict[str, float]:
    """The ratios that count, textbook to ours (more is better), and path to standalone network (1 is best)."""
    figures = {}
    for precision, short in (("float32", "fp32"), ("bf16", "bf16")):
        case = replace(base, precision=precision)
        found = measure({name: replace(case, network=name) for name in ("textbook", "ours")}, rounds)
        figures[f"step_ratio_{short}"] = ratio(found, "textbook", "ours")
        figures[f"textbook_seconds_{short}"] = found["textbook"]["seconds"]
        figures[f"ours_seconds_{short}"] = found["ours"]["seconds"]
        if precision == "float32":
            figures["memory_ratio"] = found["textbook"]["memory"] / found["ours"]["memory"]
            figures["textbook_bytes"], figures["ours_bytes"] = found["textbook"]["memory"], found["ours"]["memory"]
    found = measure({name: replace(base, network=name) for name in ("path", "standalone")}, 2 * rounds + 3, warmup=2)
    figures["path_ratio"] = ratio(found, "path", "standalone")
    return figures


def ablations(base: Case, rounds: int) -> dict[str, float]:
    """How many times as long the step takes without each optimisation alone."""
    cases = {"ours": base} | {name: replace(base, without=name) for name in OPTIMISATIONS}
    found = measure(cases, rounds)
    return {name: ratio(found, name, "ours") for name in OPTIMISATIONS}


def recomputation(base: Case, rounds: int) -> dict[str, float]:
    """How many times as long a step takes, and how many times the memory, where cheap activations are made again in backward."""
    found = measure({"kept": base, "again": replace(base, recompute=True)}, rounds)
    return {"time": ratio(found, "again", "kept"), "memory": found["again"]["memory"] / found["kept"]["memory"]}


GROWTH = {"channels": (8, 16, 32), "cells": (4, 8, 12), "batch": (8, 16, 32), "options": (4, 6, 8), "pixels": (16, 32)}


def growth(base: Case, rounds: int) -> dict[str, dict]:
    """Seconds by each measure of size, and the exponent of the power law through them (1: twice the size, twice the time)."""
    result = {}
    for name, values in GROWTH.items():
        found = measure({str(value): replace(base, **{name: value}) for value in values}, rounds)
        points = [(math.log(value), math.log(found[str(value)]["seconds"])) for value in values]
        slope = statistics.linear_regression(*zip(*points, strict=True)).slope
        result[name] = {"seconds": {str(value): found[str(value)]["seconds"] for value in values}, "exponent": slope}
    return result


def pipeline(batch: int = 64, steps: int = 50) -> float:
    """Images a second of the data pipeline alone: 32×32 images, cropped, flipped and cut out."""
    import numpy as np
    import torch

    from supernet.data import Augment, Batches, TensorImages

    images = TensorImages(torch.zeros(5000, 3, 32, 32, dtype=torch.uint8), torch.zeros(5000, dtype=torch.long))
    batches = Batches(
        images,
        torch.arange(5000),
        batch,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
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
    """Architectures a second that a searcher judges with inherited weights on one batch of 256 images."""
    import numpy as np
    import torch

    from supernet.evaluate.accuracy import inherited_accuracy
    from supernet.spaces.darts import Darts
    from supernet.spaces.space import Geometry

    geometry = Geometry(base.channels, base.cells)
    space, rng = Darts(geometry, geometry), np.random.default_rng(0)
    supernet = space.supernet(10, 3).to(memory_format=torch.channels_last)
    batch = [(torch.randn(256, 3, base.pixels, base.pixels), torch.randint(10, (256,)))]
    inherited_accuracy(supernet, space.path(space.random(rng)), batch)
    start = time.perf_counter()
    for _ in range(count):
        inherited_accuracy(supernet, space.path(space.random(rng)), batch)
    return count / (time.perf_counter() - start)


def startup(rounds: int = 3) -> float:
    """Seconds until the command line has said its version of the configuration."""

    def once() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "supernet.cli", "--cfg", "job"], cwd=ROOT, capture_output=True, check=True)
        return time.perf_counter() - start

    return statistics.median(once() for _ in range(rounds))


def machine(threads: int) -> dict[str, str | int]:
    import torch

    cpu = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
        if cpu.exists()
        else []
    )
    return {
        "processor": names[0] if names else platform.processor(),
        "threads": threads or torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small geometry, and the ratios alone: within a minute on two cores")
    parser.add_argument("--json", action="store_true", help="print one JSON object with every figure")
    parser.add_argument("--threads", type=int, default=0, help="of each process; 0 is torch's own number")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.case:
        return serve(Case(**json.loads(options.case)))
    base = Case("ours", threads=options.threads)
    if options.quick:
        figures = headline(replace(base, cells=2, batch=4), options.rounds or 1)
    else:
        rounds = options.rounds or 5
        figures = headline(base, rounds)
        figures |= {"times_without": ablations(base, rounds), "recompute": recomputation(base, rounds)}
        figures |= {"growth": growth(replace(base, cells=4), rounds)}
        figures |= {"images_per_second": pipeline(), "evaluations_per_second": evaluations(base), "startup_seconds": startup()}
    figures["machine"] = machine(options.threads)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:24}", f"{value:.3g}" if isinstance(value, float) else value)


if __name__ == "__main__":
    main()
