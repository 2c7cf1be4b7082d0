"""Known-answer problems: supernets in which one option is planted as the right one, on real digits.

A digit is cut into its upper and its lower half, and a slot reads each; the head adds up what their options make of them.

``Planted``: every option but one reads another image of the batch, so that it has something to learn from, and learns nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from supernet.data import ImageData, Splits, split
from supernet.data.sources import Digits
from supernet.learners.learner import Learner
from supernet.mixture import Architecture, ChoiceGroup
from supernet.modifiers.modifier import Modifier
from supernet.samplers.sampler import Sampler
from supernet.spaces.space import Gene, Geometry, Space
from supernet.train.search import SearchSettings, SearchStage

OPTIONS = ("none", "skip_connect", "conv_a", "conv_b", "conv_c")


class PlantedNet(nn.Module):
    """Two slots, each with a convolution for each ``conv_*``; those that are not ``planted`` read the image next in the batch."""

    def __init__(self, planted: str, classes: int, channels: int = 4):
        super().__init__()
        self.planted = planted
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.slots = nn.ModuleList(
            nn.ModuleDict({name: self.convolution(channels) for name in OPTIONS if name.startswith("conv")}) for _ in range(2)
        )
        self.head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d((2, 4)), nn.Flatten(), nn.Linear(8 * channels, classes))

    @staticmethod
    def convolution(channels: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels, affine=False))

    def option(self, slot: int, name: str, x: Tensor) -> Tensor:
        own = x if name == self.planted else x.roll(1, dims=0)
        return own if name == "skip_connect" else self.slots[slot][name](own)

    def forward(self, images: Tensor, mixture) -> Tensor:
        choice, halves = mixture["halves"], self.stem(images).chunk(2, dim=2)
        total = torch.zeros_like(halves[0])
        for slot, x in enumerate(halves):
            for option in choice.active[slot]:
                if OPTIONS[option] != "none":
                    out = self.option(slot, OPTIONS[option], x)
                    total = total + (out if choice.weights is None else out * choice.weights[slot, option])
        return self.head(total)


@dataclass
class Planted(Space):
    """Two slots of five options, of which ``planted`` alone is of use."""

    search: Geometry = field(default_factory=lambda: Geometry(4, 1))
    evaluation: Geometry = field(default_factory=lambda: Geometry(4, 1))
    planted: str = "conv_b"

    name: ClassVar[str] = "planted"
    groups: ClassVar = (ChoiceGroup("halves", 2, OPTIONS),)

    @property
    def answer(self) -> Architecture:
        return Architecture.of(self.name, halves=[self.planted] * 2)

    def supernet(self, classes: int, in_channels: int, phase: str = "search") -> nn.Module:
        return PlantedNet(self.planted, classes)

    def standalone(self, architecture, classes, in_channels, phase="evaluation"):
        raise NotImplementedError

    @property
    def genes(self) -> tuple[Gene, ...]:
        return tuple(Gene(f"half {slot}", OPTIONS) for slot in range(2))

    def express(self, values: Sequence[Any]) -> Architecture:
        return Architecture.of(self.name, halves=values)

    def values(self, architecture: Architecture) -> list[Any]:
        return list(architecture["halves"])

    def sums(self, group: str) -> list[list[int]]:
        return [[0, 1]]

    def derive(self, scores) -> Architecture:
        return Architecture.of(self.name, halves=[OPTIONS[i] for i in scores["halves"].argmax(dim=-1).tolist()])

    def encode(self, architecture: Architecture) -> str:
        return "+".join(architecture["halves"])

    def decode(self, text: str) -> Architecture:
        return self.validate(Architecture.of(self.name, halves=text.split("+")))

    def graph(self, architecture: Architecture):
        return {}


@cache
def digits() -> tuple[ImageData, Splits]:
    data = Digits().load()
    return data, split(data.train.labels, 0.5, np.random.default_rng(0))


def searched(
    space: Space,
    sampler: Sampler,
    learner: Learner,
    modifiers: Sequence[Modifier] = (),
    seed: int = 0,
    epochs: int = 6,
    lr: float = 0.1,
) -> SearchStage:
    """The search stage of a known-answer problem when it has ended."""
    data, splits = digits()
    settings = SearchSettings(epochs=epochs, batch_size=64, lr=lr)
    stage = SearchStage(space, data, splits, sampler, learner, settings, modifiers=modifiers, seed=seed)
    for index in range(stage.steps):
        stage.step(index)
    return stage
