"""Compares a training step on one path of a supernet with the same step of the standalone network
of that architecture.

    python tools/path_step.py [--json] [--space nb201 darts] [--channels 8 16] [--architectures 5]
    [--rounds 15]

Both networks have the size of the supernet and the same weights. They get the same images and do
the same step: forward, backward, clipping, SGD with momentum. In each round both do one step, in
turn; the ratio of times is the ratio of the medians over the rounds. The memory of a step is the
peak of what it allocates beyond what was there before: activations, gradients and temporary tensors
of the optimiser. Weights and momenta stay between steps, and a supernet has those of all options.
Their ratio is given separately (``resident_ratio``).
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

# Otherwise torch's profiler prints a line each time it starts and stops.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from supernet.mixture import Architecture
from supernet.ops.fast.convolution import FastGradients
from supernet.spaces.cells import Geometry
from supernet.spaces.darts import Darts
from supernet.spaces.nb201 import NB201
from supernet.spaces.space import Space
from supernet.task import Classification

# name -> the space and its number of cells at size=small
SPACES = {"nb201": (NB201, 1), "darts": (partial(Darts, auxiliary=False), 3)}
WARM_UP = 3
CLASSES = 10


def pair(
    space: Space, architecture: Architecture, images: Tensor, labels: Tensor
) -> list[Callable[[], Tensor]]:
    """The step of the supernet on the path of the architecture, and the step of its standalone
    network, which starts from the weights of the supernet.
    """
    supernet = space.supernet(Classification(tuple(images.shape[1:]), CLASSES))
    standalone = space.inherit(supernet, architecture)
    path = space.path(architecture)
    return [stepper(supernet, images, labels, path), stepper(standalone, images, labels)]


def stepper(
    network: nn.Module, images: Tensor, labels: Tensor, *mixture: object
) -> Callable[[], Tensor]:
    """A function that does one training step as the search does, and returns the loss."""
    network.to(memory_format=torch.channels_last).train()
    fast_gradients = FastGradients(network)
    optimizer = optim.SGD(network.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)

    def step() -> Tensor:
        with fast_gradients:
            loss = F.cross_entropy(network(images, *mixture), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    step.resident = sum(weight.numel() * weight.element_size() for weight in network.parameters())
    return step


def seconds(step: Callable[[], Tensor]) -> float:
    """The time that a step takes."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def peak_bytes(step: Callable[[], Tensor]) -> int:
    """The peak of the memory that a step allocates beyond what was there before, in bytes, as
    torch's allocator reports it.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    events = [
        event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return int(max(np.cumsum(sizes), default=0))


def compared(
    space: Space, architecture: Architecture, images: Tensor, labels: Tensor, rounds: int
) -> dict[str, object]:
    """The time and the memory of both steps of one architecture, and their ratios: the supernet's
    divided by the standalone network's.
    """
    steps = pair(space, architecture, images, labels)
    losses = [[float(step()) for step in steps] for _ in range(WARM_UP)]
    # Both steps must compute the same function. Only the first losses are compared, because later
    # steps amplify the rounding errors.
    np.testing.assert_allclose(*losses[0], rtol=1e-4)
    times: list[list[float]] = [[], []]
    for turn in range(rounds):
        for which in (0, 1) if turn % 2 else (1, 0):
            times[which].append(seconds(steps[which]))
    path, alone = (statistics.median(one) for one in times)
    memory = [peak_bytes(step) for step in steps]
    return {
        "architecture": space.encode(architecture),
        "path_ms": 1000 * path,
        "standalone_ms": 1000 * alone,
        "time_ratio": path / alone,
        "path_bytes": memory[0],
        "standalone_bytes": memory[1],
        "memory_ratio": memory[0] / memory[1],
        "resident_ratio": steps[0].resident / steps[1].resident,
    }


def measured(
    name: str, channels: int, architectures: int, rounds: int, batch: int, size: int, seed: int = 0
) -> dict[str, object]:
    """All figures of one space and width: those of each architecture, and the medians of the
    ratios.
    """
    kind, cells = SPACES[name]
    space = kind(Geometry(channels, cells), Geometry(channels, cells))
    torch.manual_seed(seed)
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels, rng = torch.randint(CLASSES, (batch,)), np.random.default_rng(seed)
    each = [
        compared(space, space.random(rng), images, labels, rounds) for _ in range(architectures)
    ]
    medians = {
        ratio: statistics.median(one[ratio] for one in each)
        for ratio in ("time_ratio", "memory_ratio", "resident_ratio")
    }
    return (
        {"space": name, "channels": channels, "cells": cells, "batch": batch, "size": size}
        | medians
        | {"each": each}
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    parser.add_argument("--space", nargs="+", choices=SPACES, default=list(SPACES))
    parser.add_argument(
        "--channels",
        nargs="+",
        type=int,
        default=[8, 16],
        help="channels of the first cell; 8 is size=small",
    )
    parser.add_argument(
        "--architectures", type=int, default=5, help="random architectures per space and width"
    )
    parser.add_argument("--rounds", type=int, default=15, help="how often each step is timed")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=16, help="height and width of the images")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    cases = [
        measured(name, channels, given.architectures, given.rounds, given.batch, given.size)
        for name in given.space
        for channels in given.channels
    ]
    if given.json:
        print(json.dumps({"torch": torch.__version__, "threads": given.threads, "cases": cases}))
        return
    for case in cases:
        print(
            f"{case['space']}, {case['channels']} channels, {case['cells']} cells, batch "
            f"{case['batch']} of {case['size']} pixels"
        )
        for one in case["each"]:
            print(
                f"  {one['path_ms']:8.1f} ms / {one['standalone_ms']:8.1f} ms = "
                f"{one['time_ratio']:.3f}   "
                f"{one['path_bytes'] / 2**20:7.1f} MiB / {one['standalone_bytes'] / 2**20:7.1f} "
                f"MiB = {one['memory_ratio']:.3f}"
            )
        print(
            f"  medians: time {case['time_ratio']:.3f}, memory {case['memory_ratio']:.3f}; "
            f"weights {case['resident_ratio']:.1f}"
        )


if __name__ == "__main__":
    main()
