"""The cases that ``tools/bench.py`` measures: training steps of networks, each as a function.

All of this runs in a process of its own for each case (:func:`serve`).
"""

import itertools
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from unittest import mock

NETWORKS = "ours", "second", "textbook", "rival", "difference", "path", "standalone"
OPTIMISATIONS = ("at_once", "native", "fixed_weights", "channels_last")
SIDE, PRODUCTS = 1024, 4  # side of the matrices that are multiplied, products in one step
# A processor's instructions -> the variables that make torch, oneDNN and the kernels of the package
# use these alone. They must be set before the first operation.
INSTRUCTIONS = {
    "native": {},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "SUPERNET_MARCH": "x86-64-v3",
    },
}


@dataclass(frozen=True)
class Case:
    """What one process measures: steps of a ``network``.

    "ours" is a first-order DARTS step of this package's supernet, and "textbook" the same step of
    the plain reference (``tests/textbook.py``). "rival" is what a careful user makes of the
    textbook: channels-last, and weights and logits require grad only where they learn. "second" is
    our step of second order with the exact gradient, and "difference" the textbook's, with the
    finite difference of the paper (eq. 8). "path" and "standalone" are steps of one architecture,
    as a path of the supernet and as a network of its own. "search" is the whole step of a search by
    ``method``, with its data pipeline. "matrices" is products of matrices. ``without`` names an
    optimisation that is switched off, ``instructions`` those of :data:`INSTRUCTIONS` that are used.
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
    instructions: str = "native"
    device: str = "cpu"


# --- what runs in the process of a case


def serve(case: Case, asker: Connection) -> None:
    """Answers requests until the pipe ends.

    "step" does a step and answers with its seconds. "memory" answers with the bytes by which the
    peak of this process has grown since just before the first step. Any other request is answered
    as soon as the process is ready for a step.
    """
    import torch

    from supernet.device import peak_memory_bytes, reset_peak_memory, synchronise

    os.environ.update(INSTRUCTIONS[case.instructions])
    use(case.threads)
    device, made = torch.device(case.device), PREPARE.get(case.network, prepare)
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
            if what == "step":
                step()
                synchronise(device)
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
    """A function that does one step of a case, but for "search" and "matrices"."""
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F

    from supernet.device import autocast
    from supernet.learners import gradient
    from supernet.learners.learner import Bilevel
    from supernet.mixture import Choice, detached, softmax_mixture
    from supernet.ops.fast import native
    from supernet.ops.fast.convolution import FastGradients
    from supernet.spaces.cells import MixedCell
    from supernet.spaces.space import set_recompute
    from tests import textbook

    space = space_of(case)
    torch.manual_seed(0)
    device = torch.device(case.device)
    supernet = space.supernet(task_of(case)).to(device)
    images = torch.randn(2, case.batch, 3, case.pixels, case.pixels).to(device)
    labels = torch.randint(10, (2, case.batch)).to(device)
    network, plain = supernet, case.network in ("textbook", "rival", "difference")
    if plain:
        network = textbook.textbook(space).to(device)
        textbook.copy_weights(supernet, network)
    elif case.network in ("path", "standalone"):
        architecture = space.random(np.random.default_rng(0))
        if case.network == "standalone":
            network = space.standalone(architecture, task_of(case), "search").to(device)
    if case.network == "rival" or (not plain and case.without != "channels_last"):
        network.to(memory_format=torch.channels_last)
    if not plain:
        patches.enter_context(FastGradients(network))
        set_recompute(network, case.recompute)
    if case.without == "at_once":
        patches.enter_context(mock.patch.object(MixedCell, "_at_once", MixedCell._one_by_one))
    elif case.without == "native":
        patches.enter_context(mock.patch.object(native, "library", lambda: None))
    elif case.without == "fixed_weights":
        patches.enter_context(mock.patch.object(gradient, "fixed", lambda network: ExitStack()))
    parameters = list(network.parameters())
    weights = torch.optim.SGD(parameters, lr=0.025, momentum=0.9, weight_decay=3e-4)
    logits = {
        g.name: (1e-3 * torch.randn(g.shape)).to(device).requires_grad_() for g in space.groups
    }
    learner = gradient.Gradient(order="second" if case.network == "second" else "first")
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
            if plain:
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

    def by_the_book() -> None:
        network.requires_grad_(case.network != "rival")
        forward(1, relax(logits)).backward()
        learner.optimizer.step()
        learner.optimizer.zero_grad()
        weights.zero_grad()
        network.requires_grad_()
        update(forward(0, detached(relax(logits))))

    def gradients_at(index: int, tensors):
        return torch.autograd.grad(forward(index, relax(logits)), tensors)

    def difference() -> None:
        tables = list(logits.values())
        begun = [one.detach().clone() for one in parameters]

        def move(origin, direction, step) -> None:
            with torch.no_grad():
                for one, start, towards in zip(parameters, origin, direction, strict=True):
                    one.copy_(start + step * towards)

        move(begun, gradients_at(0, parameters), -0.025)
        found = gradients_at(1, [*tables, *parameters])
        direct, vector = found[: len(tables)], found[len(tables) :]
        step = 0.01 / torch.cat([one.flatten() for one in vector]).norm()
        sides = []
        for sign in (1, -1):
            move(begun, vector, sign * step)
            sides.append(gradients_at(0, tables))
        move(begun, vector, 0.0)
        for table, own, plus, minus in zip(tables, direct, *sides, strict=True):
            table.grad = own - 0.025 * (plus - minus) / (2 * step)
        learner.optimizer.step()
        update(forward(0, detached(relax(logits))))

    return {
        "ours": ours,
        "second": ours,
        "textbook": by_the_book,
        "rival": by_the_book,
        "difference": difference,
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
        "device": case.device,
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

    dtype = {"float32": torch.float32, "bf16": torch.bfloat16}[case.precision]
    matrix = torch.randn(SIDE, SIDE, dtype=dtype, device=case.device)
    return lambda: [matrix @ matrix for _ in range(PRODUCTS)]


PREPARE = {"search": search, "matrices": matrices}
