"""Compares a training step of a dense mixture of sizes with the same step of the largest network.

    python tools/dense_step.py [--space nats_size vit] [--rounds 15] [--threads 1]

A layer whose size is chosen runs once for all sizes, with the sum of its parts; so a mixture of all
sizes should cost about what the largest network costs. Weights and logits require grad. The steps
take turns, as in ``path_step.py``. It prints one JSON object: for each space the milliseconds and
bytes of both steps, and their ratios.
"""

import argparse
import json
import statistics

import torch

from supernet.mixture import softmax_mixture
from supernet.spaces.mobilenet import MobileNet
from supernet.spaces.nats_size import NATSSize
from supernet.spaces.space import Space
from supernet.spaces.vit import ViT
from supernet.task import Classification
from tools.path_step import CLASSES, WARM_UP, peak_bytes, seconds, stepper

SPACES = {
    "nats_size": NATSSize,
    "mobilenet": lambda: MobileNet(
        widths=[8, 8, 16, 16, 24, 64, 96], strides=[1, 1, 2, 1, 2], depths=[2, 3], transform=False
    ),
    "vit": lambda: ViT("tiny", [96, 144, 192], [3, 4], [3.0, 4.0], [4, 6], head_width=48, patch=2),
}


def compared(space: Space, batch: int, pixels: int, rounds: int) -> dict[str, float]:
    """Both steps of one space, and the ratios of their times and of their memory."""
    torch.manual_seed(0)
    task = Classification((3, pixels, pixels), CLASSES)
    images = torch.randn(batch, 3, pixels, pixels).to(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (batch,))
    supernet = space.supernet(task)
    logits = {g.name: torch.zeros(g.shape, requires_grad=True) for g in space.groups}
    largest = space.express([max(gene.values, key=float) for gene in space.genes])

    class Dense(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.supernet = supernet

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.supernet(x, softmax_mixture(logits))

    steps = {
        "dense": stepper(Dense(), images, labels),
        "largest": stepper(space.standalone(largest, task), images, labels),
    }
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(seconds(step))
    found = {}
    for name, step in steps.items():
        found[f"{name}_ms"] = 1000 * statistics.median(times[name])
        found[f"{name}_bytes"] = peak_bytes(step)
    return found | {
        "time_ratio": found["dense_ms"] / found["largest_ms"],
        "memory_ratio": found["dense_bytes"] / found["largest_bytes"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--space", nargs="+", choices=SPACES, default=list(SPACES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=16, help="height and width of the images")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    figures = {
        name: compared(SPACES[name](), given.batch, given.size, given.rounds)
        for name in given.space
    }
    print(json.dumps({"torch": torch.__version__, "threads": given.threads} | figures, indent=1))


if __name__ == "__main__":
    main()
