"""Supernet: train one-shot weight-sharing supernets, derive the best architecture, retrain and
export it.

A *supernet* is one network that owns every candidate operation of a search space once. It decides
nothing: each forward pass is given a *mixture*, which says for every decision of the space how much
of each option to use (DARTS), or which single option to run (a path). So gradient search and
sampled training are the same call on the same weights:

    logits, table of choices, random numbers  ->  mixture  ->  supernet(x, mixture)  ->  loss

What papers call a method is a combination of small parts:

* a *sampler* says which mixtures the shared weights train on;
* a *learner* says how the logits learn, the table of numbers behind the mixtures. DARTS is the
  sampler softmax with a gradient learner; single path one-shot is the sampler uniform with none;
* *modifiers* change the mixtures of any sampler; *guards* act on a search that is about to
  collapse;
* a *searcher* chooses an architecture after the training. It is then trained from scratch, beside
  random ones, and exported.

The names in ``__all__`` are the public ones. Each is imported when it is first used, so that
``import supernet`` itself takes no time.

Where to begin reading: :mod:`supernet.mixture` (the values), :mod:`supernet.spaces.nb201` (a space,
as its paper defines it), :mod:`supernet.samplers.uniform` (a sampler), :mod:`supernet.train.loop`
and :mod:`supernet.train.search` (the training loop and its step), :mod:`supernet.run` (the stages
of a run). Imports point one way: mixture, ops <- spaces <- cost <- samplers <- learners, modifiers
<- instruments, guards <- train <- runs <- cli. Only :mod:`supernet.cli` knows Hydra, only
:mod:`supernet.track.wandb` knows Weights & Biases.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names as in MODULES below, for type checkers and editors
    from supernet.cost.budget import Budget
    from supernet.cost.count import Cost, count
    from supernet.data import (
        Augment,
        Batches,
        Digits,
        Folder,
        ImageData,
        Npz,
        Splits,
        TensorImages,
        Text,
        Torchvision,
        split,
    )
    from supernet.device import choose_device
    from supernet.errors import UserError
    from supernet.evaluate.accuracy import Judgement, inherited_accuracy
    from supernet.export import export_network, load_bundle, register_timm
    from supernet.guards.early_stop import EarlyStop
    from supernet.guards.guard import Guard
    from supernet.guards.oles import OLES
    from supernet.instruments.instrument import Instrument
    from supernet.learners.exponentiated import Exponentiated
    from supernet.learners.fixed import Fixed
    from supernet.learners.gradient import Gradient
    from supernet.learners.l1 import L1
    from supernet.learners.learner import Learner
    from supernet.learners.reinforce import ReinforceLearner
    from supernet.mixture import Architecture, Choice, ChoiceGroup, Logits, Mixture
    from supernet.modifiers.auxiliary_skip import AuxiliarySkip
    from supernet.modifiers.beta_decay import BetaDecay
    from supernet.modifiers.drop_path import OptionDropout
    from supernet.modifiers.edge_normalisation import EdgeNormalisation
    from supernet.modifiers.modifier import Modifier
    from supernet.modifiers.perturbation import WeightPerturbation
    from supernet.modifiers.pruning import Pruning
    from supernet.modifiers.skip_dropout import SkipDropout
    from supernet.randomness import Streams
    from supernet.samplers.attentive import Attentive
    from supernet.samplers.direct import Direct
    from supernet.samplers.drnas import DrNAS
    from supernet.samplers.fair import Fair
    from supernet.samplers.fairdarts import FairDARTS
    from supernet.samplers.gdas import GDAS
    from supernet.samplers.policy import Policy
    from supernet.samplers.progressive import Progressive
    from supernet.samplers.proxyless import Proxyless
    from supernet.samplers.sampler import Sampler
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
    from supernet.searchers.searcher import Searcher
    from supernet.searchers.successive_halving import SuccessiveHalving
    from supernet.searchers.tpe import TPE
    from supernet.spaces.cells import Geometry
    from supernet.spaces.converted import convert
    from supernet.spaces.converted.space import Converted
    from supernet.spaces.darts import Darts
    from supernet.spaces.declared import Choose, Depth, OneOf, declared, elastic
    from supernet.spaces.declared.space import Declared
    from supernet.spaces.gpt import GPT
    from supernet.spaces.growing.cells import GrowingCells
    from supernet.spaces.growing.module import GrowingModule
    from supernet.spaces.growing.text import GrowingText
    from supernet.spaces.mobilenet import MobileNet
    from supernet.spaces.nats_size import NATSSize
    from supernet.spaces.nb201 import NB201
    from supernet.spaces.nb_macro import NBMacro
    from supernet.spaces.resnet import ResNet
    from supernet.spaces.shufflenet import ShuffleNet
    from supernet.spaces.space import Space
    from supernet.spaces.vit import ViT
    from supernet.task import NextToken, Segmentation, Task
    from supernet.train.loop import run_stage
    from supernet.train.retrain import RetrainStage
    from supernet.train.search import SearchStage
    from supernet.train.settings import MeasureSettings, RetrainSettings, SearchSettings
    from supernet.train.watch import Watch

__all__ = [
    "GDAS",
    "GPT",
    "L1",
    "NB201",
    "NSGA2",
    "OLES",
    "SNAS",
    "TPE",
    "Architecture",
    "Attentive",
    "Augment",
    "AuxiliarySkip",
    "Batches",
    "BetaDecay",
    "Budget",
    "ByLogits",
    "Choice",
    "ChoiceGroup",
    "Choose",
    "Converted",
    "Cost",
    "Darts",
    "Declared",
    "Depth",
    "Digits",
    "Direct",
    "DrNAS",
    "EarlyStop",
    "EdgeNormalisation",
    "Evolution",
    "Exponentiated",
    "Fair",
    "FairDARTS",
    "Fixed",
    "Folder",
    "GaussianProcess",
    "Geometry",
    "Gradient",
    "GrowingCells",
    "GrowingModule",
    "GrowingText",
    "Guard",
    "ImageData",
    "Instrument",
    "Judgement",
    "Learner",
    "LocalSearch",
    "Logits",
    "MeasureSettings",
    "Mixture",
    "MobileNet",
    "Modifier",
    "NATSSize",
    "NBMacro",
    "NextToken",
    "Npz",
    "OneOf",
    "OptionDropout",
    "PerturbationSelection",
    "Policy",
    "Predictor",
    "Progressive",
    "Proxyless",
    "Pruning",
    "Random",
    "ReinforceLearner",
    "ReinforceSearcher",
    "ResNet",
    "RetrainSettings",
    "RetrainStage",
    "Sampled",
    "Sampler",
    "Sandwich",
    "Schedule",
    "SearchSettings",
    "SearchStage",
    "Searcher",
    "Segmentation",
    "ShuffleNet",
    "SkipDropout",
    "Softmax",
    "Space",
    "Splits",
    "Streams",
    "SuccessiveHalving",
    "Task",
    "TensorImages",
    "Text",
    "Torchvision",
    "Uniform",
    "UserError",
    "ViT",
    "Watch",
    "WeightPerturbation",
    "choose_device",
    "convert",
    "count",
    "declared",
    "elastic",
    "export_network",
    "inherited_accuracy",
    "load_bundle",
    "register_timm",
    "run_stage",
    "split",
]

MODULES = {  # where each public name is defined
    "Budget": "supernet.cost.budget",
    "Cost": "supernet.cost.count",
    "count": "supernet.cost.count",
    "Augment": "supernet.data",
    "Batches": "supernet.data",
    "Digits": "supernet.data",
    "Folder": "supernet.data",
    "ImageData": "supernet.data",
    "Npz": "supernet.data",
    "Splits": "supernet.data",
    "TensorImages": "supernet.data",
    "Text": "supernet.data",
    "Torchvision": "supernet.data",
    "split": "supernet.data",
    "choose_device": "supernet.device",
    "UserError": "supernet.errors",
    "Judgement": "supernet.evaluate.accuracy",
    "inherited_accuracy": "supernet.evaluate.accuracy",
    "export_network": "supernet.export",
    "load_bundle": "supernet.export",
    "register_timm": "supernet.export",
    "EarlyStop": "supernet.guards.early_stop",
    "Guard": "supernet.guards.guard",
    "OLES": "supernet.guards.oles",
    "Instrument": "supernet.instruments.instrument",
    "Exponentiated": "supernet.learners.exponentiated",
    "Fixed": "supernet.learners.fixed",
    "Gradient": "supernet.learners.gradient",
    "L1": "supernet.learners.l1",
    "Learner": "supernet.learners.learner",
    "ReinforceLearner": "supernet.learners.reinforce",
    "Architecture": "supernet.mixture",
    "Choice": "supernet.mixture",
    "ChoiceGroup": "supernet.mixture",
    "Logits": "supernet.mixture",
    "Mixture": "supernet.mixture",
    "AuxiliarySkip": "supernet.modifiers.auxiliary_skip",
    "BetaDecay": "supernet.modifiers.beta_decay",
    "OptionDropout": "supernet.modifiers.drop_path",
    "EdgeNormalisation": "supernet.modifiers.edge_normalisation",
    "Modifier": "supernet.modifiers.modifier",
    "WeightPerturbation": "supernet.modifiers.perturbation",
    "Pruning": "supernet.modifiers.pruning",
    "SkipDropout": "supernet.modifiers.skip_dropout",
    "Streams": "supernet.randomness",
    "Attentive": "supernet.samplers.attentive",
    "Direct": "supernet.samplers.direct",
    "DrNAS": "supernet.samplers.drnas",
    "Fair": "supernet.samplers.fair",
    "FairDARTS": "supernet.samplers.fairdarts",
    "GDAS": "supernet.samplers.gdas",
    "Policy": "supernet.samplers.policy",
    "Progressive": "supernet.samplers.progressive",
    "Proxyless": "supernet.samplers.proxyless",
    "Sampler": "supernet.samplers.sampler",
    "Sandwich": "supernet.samplers.sandwich",
    "Schedule": "supernet.samplers.schedule",
    "SNAS": "supernet.samplers.snas",
    "Softmax": "supernet.samplers.softmax",
    "Uniform": "supernet.samplers.uniform",
    "Evolution": "supernet.searchers.evolution",
    "GaussianProcess": "supernet.searchers.gp",
    "LocalSearch": "supernet.searchers.local_search",
    "ByLogits": "supernet.searchers.logits",
    "NSGA2": "supernet.searchers.nsga2",
    "PerturbationSelection": "supernet.searchers.perturbation",
    "Predictor": "supernet.searchers.predictor",
    "Random": "supernet.searchers.random",
    "ReinforceSearcher": "supernet.searchers.reinforce",
    "Sampled": "supernet.searchers.sampled",
    "Searcher": "supernet.searchers.searcher",
    "SuccessiveHalving": "supernet.searchers.successive_halving",
    "TPE": "supernet.searchers.tpe",
    "Darts": "supernet.spaces.darts",
    "Converted": "supernet.spaces.converted.space",
    "convert": "supernet.spaces.converted",
    "Choose": "supernet.spaces.declared",
    "Depth": "supernet.spaces.declared",
    "OneOf": "supernet.spaces.declared",
    "declared": "supernet.spaces.declared",
    "elastic": "supernet.spaces.declared",
    "Declared": "supernet.spaces.declared.space",
    "GrowingCells": "supernet.spaces.growing.cells",
    "GrowingModule": "supernet.spaces.growing.module",
    "GrowingText": "supernet.spaces.growing.text",
    "MobileNet": "supernet.spaces.mobilenet",
    "NB201": "supernet.spaces.nb201",
    "NATSSize": "supernet.spaces.nats_size",
    "NBMacro": "supernet.spaces.nb_macro",
    "ShuffleNet": "supernet.spaces.shufflenet",
    "ViT": "supernet.spaces.vit",
    "ResNet": "supernet.spaces.resnet",
    "GPT": "supernet.spaces.gpt",
    "NextToken": "supernet.task",
    "Segmentation": "supernet.task",
    "Task": "supernet.task",
    "Geometry": "supernet.spaces.cells",
    "Space": "supernet.spaces.space",
    "run_stage": "supernet.train.loop",
    "RetrainSettings": "supernet.train.settings",
    "RetrainStage": "supernet.train.retrain",
    "SearchSettings": "supernet.train.settings",
    "MeasureSettings": "supernet.train.settings",
    "Watch": "supernet.train.watch",
    "SearchStage": "supernet.train.search",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, and keeps it."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
