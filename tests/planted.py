"""Problems with a known answer: supernets in which one option is planted as the right one, trained
on real digits.

Each digit is cut into its upper and its lower half. Each half is the input of one slot, and the
head adds the outputs of both.

In :class:`Planted`, one convolution reads the right image. The other convolutions and the skip read
another image of the batch, from which they cannot learn anything about the label. In
:class:`Tempting`, the skip returns a blurred half, which helps from the first step on. A
convolution is better in the end, but must be trained first: networks of skips alone reach 78% after
eight epochs, networks of convolutions alone 88%.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from supernet.cost.budget import Budget
from supernet.data import ImageData, Splits, split
from supernet.data.sources import Digits
from supernet.learners.exponentiated import Exponentiated
from supernet.learners.gradient import Gradient
from supernet.learners.learner import Learner
from supernet.mixture import Architecture, ChoiceGroup, Logits, Mixture
from supernet.modifiers.auxiliary_skip import AuxiliarySkip
from supernet.modifiers.beta_decay import BetaDecay
from supernet.modifiers.edge_normalisation import EdgeNormalisation
from supernet.modifiers.modifier import Modifier
from supernet.modifiers.perturbation import WeightPerturbation
from supernet.modifiers.pruning import Pruning
from supernet.modifiers.skip_dropout import SkipDropout
from supernet.randomness import Streams
from supernet.samplers.drnas import DrNAS
from supernet.samplers.fairdarts import FairDARTS
from supernet.samplers.gdas import GDAS
from supernet.samplers.proxyless import Proxyless
from supernet.samplers.sampler import Sampler
from supernet.samplers.snas import SNAS
from supernet.samplers.softmax import Softmax
from supernet.searchers.perturbation import PerturbationSelection
from supernet.spaces.capabilities import Itemised
from supernet.spaces.space import Form, Space
from supernet.task import Task
from supernet.train.search import SearchStage, mean_scores, snapshot_of
from supernet.train.settings import SearchSettings
from supernet.train.tuning import TuningStage

CHANNELS = 4
CONVOLUTIONS = ("conv_a", "conv_b", "conv_c")


class HalvesNet(nn.Module):
    """A stem, two slots side by side, and a head. ``run(module, option, x)`` computes the output of
    an option on its half ``x``.
    """

    def __init__(
        self,
        options: Sequence[str],
        convolution: Callable[[], nn.Module],
        run: Callable[..., Tensor],
        classes: int,
    ):
        super().__init__()
        self.options, self.run = options, run
        self.stem = nn.Sequential(
            nn.Conv2d(1, CHANNELS, 3, padding=1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU()
        )
        convolutions = [name for name in options if name.startswith("conv")]
        self.slots = nn.ModuleList(
            nn.ModuleDict({name: convolution() for name in convolutions}) for _ in range(2)
        )
        self.head = nn.Sequential(
            nn.ReLU(), nn.AdaptiveAvgPool2d((2, 4)), nn.Flatten(), nn.Linear(8 * CHANNELS, classes)
        )

    def forward(self, images: Tensor, mixture: Mixture) -> Tensor:
        choice, halves = mixture["halves"], self.stem(images).chunk(2, dim=2)
        total = torch.zeros_like(halves[0])
        for slot, x in enumerate(halves):
            for option in choice.active[slot]:
                if (name := self.options[option]) != "none":
                    out = self.run(self.slots[slot], name, x)
                    total = total + (
                        out if choice.weights is None else out * choice.weights[slot, option]
                    )
        return self.head(total)


def halves(*options: str) -> ChoiceGroup:
    return ChoiceGroup("halves", 2, options, skip="skip_connect", nothing="none")


@dataclass
class Planted(Itemised):
    """Two slots of five options, of which only ``answer`` is useful."""

    answer: str = "conv_b"

    name = "planted"
    groups = (halves("none", "skip_connect", *CONVOLUTIONS),)

    def convolution(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
            nn.BatchNorm2d(CHANNELS, affine=False),
        )

    def run(self, convolutions: nn.ModuleDict, option: str, x: Tensor) -> Tensor:
        seen = x if option == self.answer else x.roll(1, dims=0)
        return seen if option == "skip_connect" else convolutions[option](seen)

    def supernet(self, task: Task, form: Form = "search") -> nn.Module:
        return HalvesNet(self.groups[0].options, self.convolution, self.run, task.outputs)

    def standalone(
        self, architecture: Architecture, task: Task, form: Form = "evaluation"
    ) -> nn.Module:
        raise NotImplementedError

    def inherit(self, supernet: nn.Module, architecture: Architecture) -> nn.Module:
        raise NotImplementedError

    def candidates(self, network: nn.Module) -> dict[str, tuple[str, int, int]]:
        options = self.groups[0].options
        return {
            f"slots.{slot}.{option}": ("halves", slot, options.index(option))
            for slot in range(2)
            for option in network.slots[slot]
        }

    def sums(self, group: str) -> list[list[int]]:
        return [[0, 1]]


@dataclass
class Tempting(Planted):
    """Two slots of three options: nothing, a skip that helps at once, and a convolution that is
    better after training.
    """

    answer: str = "conv_a"

    name = "tempting"
    groups = (halves("none", "skip_connect", "conv_a"),)

    def convolution(self) -> nn.Module:
        """Two layers, with weights of half the usual size at the start."""
        layers = [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False) for _ in range(2)]
        for layer in layers:
            layer.weight.data *= 0.5
        return nn.Sequential(layers[0], nn.ReLU(), layers[1])

    def run(self, convolutions: nn.ModuleDict, option: str, x: Tensor) -> Tensor:
        return (
            x.mean(dim=1, keepdim=True).expand_as(x)
            if option == "skip_connect"
            else convolutions[option](x)
        )


def gradient(**settings) -> Gradient:
    """A gradient learner whose steps are large enough for a search of six epochs."""
    return Gradient(**{"lr": 0.05} | settings)


# method -> sampler, learner, modifiers. They are those of conf/method, except for the learning rate
# of the logits, the weight of the beta decay (smaller, because that rate is larger), the number of
# options that are kept, and the channels, which are never partial. The mean of FairDARTS's zero-one
# loss is over 8 logits here, not over 196 as in its paper.
METHODS: dict[
    str, tuple[Callable[[], Sampler], Callable[[], Learner], Callable[[], list[Modifier]]]
] = {
    "darts": (Softmax, gradient, list),
    "darts_2nd": (Softmax, lambda: gradient(order="second"), list),
    "gdas": (GDAS, gradient, list),
    "snas": (SNAS, gradient, list),
    "drnas": (
        DrNAS,
        lambda: gradient(weight_decay=0.0, warmups=[[0, 0.1], [0.5, 0.6]]),
        lambda: [Pruning([[0.5, 3]])],
    ),
    "proxyless": (
        Proxyless,
        lambda: gradient(beta1=0.0, weight_decay=0.0, warmups=[[0, 0.25]]),
        list,
    ),
    "fairdarts": (lambda: FairDARTS(zero_one_weight=0.4), lambda: gradient(beta1=0.9), list),
    "sdarts": (Softmax, gradient, lambda: [WeightPerturbation()]),
    "sdarts_adversarial": (Softmax, gradient, lambda: [WeightPerturbation("adversarial", steps=3)]),
    "darts_minus": (Softmax, gradient, lambda: [AuxiliarySkip()]),
    "pc_darts": (Softmax, lambda: gradient(warmups=[[0, 0.3]]), lambda: [EdgeNormalisation()]),
    "pdarts": (
        Softmax,
        lambda: gradient(warmups=[[0, 0.133], [0.333, 0.467], [0.667, 0.8]]),
        lambda: [Pruning([[0.333, 4], [0.667, 2]]), SkipDropout()],
    ),
    "gaea": (Softmax, Exponentiated, list),
    "beta_darts": (Softmax, gradient, lambda: [BetaDecay(1.0)]),
    "steady_darts": (Softmax, gradient, lambda: [BetaDecay(1.0)]),
}
# Further settings of the default method: the number of supernets, and the limits of the derived
# architecture.
BESIDES = dict.fromkeys(("steady_darts", "default"), (4, {"skips": 0.25}))

GUARDED = {  # for Tempting
    "warm-up and perturbation": (Softmax, lambda: gradient(warmups=[[0, 0.7]]), list),
    "warm-up alone": (Softmax, lambda: gradient(warmups=[[0, 0.7]]), list),
    "plain": (Softmax, lambda: gradient(lr=0.02), list),
    # the weight of the beta decay is chosen for this problem
    "held": (Softmax, lambda: gradient(lr=0.02), lambda: [BetaDecay(10.0)]),
    "default": (Softmax, lambda: gradient(lr=0.02), lambda: [BetaDecay(1.0)]),
}


@cache
def digits() -> tuple[ImageData, Splits]:
    data = Digits().load()
    return data, split(data.train.labels, 0.5, np.random.default_rng(0))


def searched(
    space: Space, method: str, seed: int = 0, epochs: int = 6
) -> tuple[SearchStage, Logits]:
    """Runs the search of a method on a known-answer problem. Returns the finished stage and the
    scores. If the method has several supernets, these are the first stage and the mean scores.
    """
    data, splits = digits()
    supernets, limits = BESIDES.get(method, (1, {}))
    budget = Budget(space, data.task, limits)
    stages = []
    for number in range(supernets):
        sampler, learner, modifiers = (make() for make in (METHODS | GUARDED)[method])
        stage = SearchStage(
            space,
            data,
            splits,
            sampler,
            learner,
            SearchSettings(epochs=epochs, batch_size=64, lr=0.1),
            modifiers=modifiers,
            budget=budget,
            streams=Streams(seed, f"supernet/{number}" if number else ""),
        )
        for index in range(stage.steps):
            stage.step(index)
        stages.append(stage)
    return stages[0], mean_scores([stage.scores() for stage in stages])


def found(method: str, seed: int) -> tuple[str, ...]:
    """The options that a method derives from ``Planted``, slot by slot. The answer depends on the
    seed; an entry is 1 if the slot is right.
    """
    space = Planted(answer=CONVOLUTIONS[seed % 3])
    stage, scores = searched(space, method, seed)
    derived = stage.budget.best(scores)["halves"]
    return tuple("right" if option == space.answer else option for option in derived)


@cache
def resisted(method: str, seed: int, epochs: int = 30) -> tuple[str, ...]:
    """The options that a method derives from ``Tempting``, slot by slot. They are derived from the
    logits, unless the method uses the perturbation searcher.
    """
    stage, scores = searched(Tempting(), method, seed, epochs)
    if method.endswith("perturbation"):
        projection = PerturbationSelection().projection(
            stage.budget,
            lambda mixture, share: snapshot_of(stage).judged(mixture),
            lambda: stage.sampler.mean(stage.detached_logits, 1 - 1 / stage.planned),
            np.random.default_rng(seed),
        )
        tuning = TuningStage(stage, projection, epochs=1, lr=0.01)
        for index in range(tuning.steps):
            tuning.step(index)
        scores = projection.scores()
    return stage.budget.best(scores)["halves"]
