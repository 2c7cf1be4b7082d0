"""The one list of spaces, samplers, learners, modifiers, guards, instruments and searchers. Every
shared test runs over all of them.

To add a variant to the tests, add its line here.
"""

from pathlib import Path

import pytest

from supernet.guards.early_stop import EarlyStop
from supernet.guards.oles import OLES
from supernet.instruments.readings import Eigenvalue, Gap, GradientCosine, GradientNorms, Shares
from supernet.learners.exponentiated import Exponentiated
from supernet.learners.fixed import Fixed
from supernet.learners.gradient import Gradient
from supernet.learners.l1 import L1
from supernet.learners.reinforce import ReinforceLearner
from supernet.modifiers.auxiliary_skip import AuxiliarySkip
from supernet.modifiers.beta_decay import BetaDecay
from supernet.modifiers.drop_path import OptionDropout
from supernet.modifiers.edge_normalisation import EdgeNormalisation
from supernet.modifiers.perturbation import WeightPerturbation
from supernet.modifiers.pruning import Pruning
from supernet.modifiers.skip_dropout import SkipDropout
from supernet.samplers.attentive import Attentive
from supernet.samplers.direct import Direct
from supernet.samplers.drnas import DrNAS
from supernet.samplers.fair import Fair
from supernet.samplers.fairdarts import FairDARTS
from supernet.samplers.gdas import GDAS
from supernet.samplers.policy import Policy
from supernet.samplers.progressive import Progressive
from supernet.samplers.proxyless import Proxyless
from supernet.samplers.sandwich import Sandwich
from supernet.samplers.schedule import Schedule
from supernet.samplers.snas import SNAS
from supernet.samplers.softmax import Softmax
from supernet.samplers.uniform import Uniform
from supernet.searchers.evolution import Evolution
from supernet.searchers.gp import GaussianProcess
from supernet.searchers.local_search import LocalSearch
from supernet.searchers.logits import ByLogits
from supernet.searchers.nsga2 import NSGA2
from supernet.searchers.perturbation import PerturbationSelection
from supernet.searchers.predictor import Predictor
from supernet.searchers.random import Random
from supernet.searchers.reinforce import ReinforceSearcher
from supernet.searchers.sampled import Sampled
from supernet.searchers.successive_halving import SuccessiveHalving
from supernet.searchers.tpe import TPE
from supernet.spaces.cells import Geometry
from supernet.spaces.converted.space import Converted
from supernet.spaces.darts import Darts
from supernet.spaces.declared.space import Module
from supernet.spaces.gpt import GPT
from supernet.spaces.growing.cells import Geometry as Grown
from supernet.spaces.growing.cells import GrowingCells
from supernet.spaces.growing.module import GrowingModule
from supernet.spaces.growing.text import GrowingText
from supernet.spaces.mobilenet import MobileNet
from supernet.spaces.nats_size import NATSSize
from supernet.spaces.nb201 import NB201
from supernet.spaces.nb_macro import NBMacro
from supernet.spaces.resnet import ResNet
from supernet.spaces.shufflenet import ShuffleNet
from supernet.spaces.vit import ViT
from tests.spaces.elastic import Elastic

CELL_SPACES = {
    "nb201": lambda channels=4: NB201(Geometry(channels, 1), Geometry(channels, 1)),
    "darts": lambda channels=4: Darts(
        Geometry(channels, 3), Geometry(channels, 3), auxiliary=False
    ),
}
DECLARED_SPACES = {
    "nats_size": lambda: NATSSize([4, 8]),
    "nb_macro": lambda: NBMacro(stem=4, head=8, blocks=[1, 2]),
    # without the matrices between kernels, which a path multiplies and a standalone does not have
    "mobilenet": lambda **settings: MobileNet(
        *([3, 5], [1, 2], [1, 2], [1.0, 2.0]),
        widths=[8, 8, 8, 8, 8, 8, 16],
        strides=[1, 1, 2, 1, 1],
        transform=False,
        **settings,
    ),
    "shufflenet": lambda: ShuffleNet([1, 1], [4, 8, 12, 16], [1, 2, 1]),
    "vit": lambda: ViT("tiny", [8, 12], [1, 2], [1.0, 1.5], [1, 2], head_width=4, patch=4),
    "resnet": lambda: ResNet(
        [0, 1], [0.5, 1.0], [0.5, 1.0], 32, [16, 16], [1, 1], [1, 1, 2], pool=False
    ),
    "gpt": lambda: GPT([8, 12], [1, 2], [1.0, 1.5], [1, 2], head_width=4),
    "Net": lambda: Module(f"{Path(__file__).parent / 'spaces' / 'net.py'}:Net"),
    "resnet10t": lambda: Converted(
        "resnet10t",
        # a block that begins as zero sends no gradient to the widths inside it
        {"channels": [4, 4, 8, 8], "stem_width": 4, "zero_init_last": False},
        shape=[3, 32, 32],
    ),
}
SPACES = CELL_SPACES | DECLARED_SPACES
# The spaces on which the samplers, learners and searchers are tested.
TRAINED_SPACES = CELL_SPACES | {"Net": DECLARED_SPACES["Net"]}
# Marks a test that is about cells, their skip connections or modules of single options.
cells_alone = pytest.mark.parametrize("space", CELL_SPACES, indirect=True)
# Spaces that are not in the package, but must do what all spaces do.
OTHER_SPACES = {"elastic": Elastic}
ALL_SPACES = SPACES | OTHER_SPACES
# Spaces whose networks grow. Their architectures are no table of decisions, so that of the shared
# tests only those run that need none.
GROWING_SPACES = {
    "growing_cells": lambda: GrowingCells(Grown(4), Grown(4, 1), ["1x1x2"], steps=2),
    "growing_blocks": lambda: GrowingCells(Grown(4), Grown(4), ["1x1x2"], True, keep=2, steps=2),
    "growing_module": lambda: GrowingModule(
        "resnet10t", {"channels": [4, 4, 8, 8], "stem_width": 4}, shape=[3, 16, 16], steps=2
    ),
    "growing_text": lambda: GrowingText(16, 1, 1.0, 2, head_width=16, steps=2),
}
SAMPLERS = {
    "softmax": Softmax,
    "uniform": Uniform,
    "fair": Fair,
    "sandwich": Sandwich,
    "attentive": Attentive,
    "progressive": Progressive,
    "schedule": Schedule,
    "policy": lambda: Policy(hidden=8, scored=200),
    "gdas": GDAS,
    "snas": SNAS,
    "drnas": DrNAS,
    "proxyless": Proxyless,
    "fairdarts": FairDARTS,
    "direct": lambda: Direct(signed=True),
}
LEARNERS = {
    "fixed": Fixed,
    "gradient": Gradient,
    "gradient_2nd": lambda: Gradient(order="second"),
    "gradient_2nd_difference": lambda: Gradient(order="second_finite_difference"),
    "reinforce": lambda: ReinforceLearner(samples=2, lr=0.01),
    "exponentiated": Exponentiated,
    "l1": L1,
}
MODIFIERS = {
    "edge_normalisation": EdgeNormalisation,
    "auxiliary_skip": AuxiliarySkip,
    "beta_decay": BetaDecay,
    "perturbation": WeightPerturbation,
    "adversarial_perturbation": lambda: WeightPerturbation("adversarial", steps=2),
    "pruning": lambda: Pruning([[0.25, 4], [0.5, 3]]),
    "skip_dropout": lambda: SkipDropout([[0.0, 0.5]]),
    "drop_path": lambda: OptionDropout(0.6),
}
GUARDS = {
    "early_stop": lambda: EarlyStop(window=1, k=1),
    "oles": lambda: OLES(window=2, threshold=0.1),
}
INSTRUMENTS = {
    "shares": Shares,
    "gradient_cosine": GradientCosine,
    "gradient_norms": GradientNorms,
    "gap": Gap,
    "eigenvalue": Eigenvalue,
}
SEARCHERS = {
    "logits": ByLogits,
    "sampled": lambda: Sampled(candidates=5),
    "perturbation": lambda: PerturbationSelection(tune_epochs=0.0),
    "random": lambda: Random(candidates=5),
    "evolution": lambda: Evolution(candidates=10, population=4, sample=2),
    "local_search": lambda: LocalSearch(candidates=10),
    "successive_halving": lambda: SuccessiveHalving(candidates=9, eta=2, rounds=3),
    "reinforce": lambda: ReinforceSearcher(candidates=10),
    "nsga2": lambda: NSGA2(candidates=10, population=4),
    "tpe": lambda: TPE(candidates=10, random=3),
    "gp": lambda: GaussianProcess(candidates=5, random=3),
    "predictor": lambda: Predictor(candidates=8, random=3, batch=3, pool=10),
}
