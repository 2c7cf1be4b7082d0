"""Fixtures that run a check over every variant, and small data and stages for fast tests."""

import copy
import os
from pathlib import Path

# Must be set before torch is imported, and hold for the processes that tests start: tensors as
# small as these gain nothing from a second thread, and lose much where other work waits for the
# cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")

import pytest
import torch

from supernet.data import Augment, ImageData, Splits, TensorImages
from supernet.randomness import Streams
from supernet.train.retrain import RetrainStage
from supernet.train.search import SearchStage
from supernet.train.settings import RetrainSettings, SearchSettings
from supernet.train.watch import Watch
from tests.budgets import budget_of
from tests.variants import GUARDS, LEARNERS, MODIFIERS, SAMPLERS, SEARCHERS, TRAINED_SPACES

SHARED = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items):
    """Samplers and learners do not depend on each other. Each sampler is therefore tested with one
    learner, and each learner with one sampler.

    A learner of a policy needs the sampler that has a policy.
    """

    def wanted(item) -> bool:
        chosen = item.callspec.params if hasattr(item, "callspec") else {}
        if not {"sampler", "learner"} <= chosen.keys():
            return True
        if LEARNERS[chosen["learner"]]().moves == "policy":
            return chosen["sampler"] == "policy"
        return chosen["learner"] == "gradient" or chosen["sampler"] == "uniform"

    items[:] = filter(wanted, items)


@pytest.fixture(params=TRAINED_SPACES)
def space(request):
    return TRAINED_SPACES[request.param]()


@pytest.fixture(params=SAMPLERS)
def sampler(request):
    return SAMPLERS[request.param]()


@pytest.fixture(params=LEARNERS)
def learner(request):
    return LEARNERS[request.param]()


@pytest.fixture(params=MODIFIERS)
def modifier(request):
    return MODIFIERS[request.param]()


@pytest.fixture(params=GUARDS)
def guard(request):
    return {request.param: GUARDS[request.param]()}


@pytest.fixture(params=SEARCHERS)
def searcher(request):
    return SEARCHERS[request.param]()


@pytest.fixture
def shared() -> Path:
    """The folder of real data and published tables. Tests that need it are skipped if it is
    missing.
    """
    if not SHARED.is_dir():
        pytest.skip("no shared data here")
    return SHARED


@pytest.fixture
def noise() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def data() -> ImageData:
    """24 training and 6 test images of 8×8 pixels in three classes. Each image is noise around a
    level of its own.
    """
    noise = torch.Generator().manual_seed(0)
    levels = torch.arange(30, dtype=torch.uint8)[:, None, None, None] * 8
    pixels = levels + torch.randint(8, (30, 1, 8, 8), dtype=torch.uint8, generator=noise)
    labels = torch.arange(30) % 3
    return ImageData.of(
        "noise", TensorImages(pixels[:24], labels[:24]), TensorImages(pixels[24:], labels[24:])
    )


@pytest.fixture(scope="session")
def splits() -> Splits:
    return Splits(weights=torch.arange(0, 24, 2), architecture=torch.arange(1, 24, 2))


@pytest.fixture
def search_stage(data, splits):
    """A function that makes a new search stage: two epochs of three steps, unless ``settings`` say
    otherwise.
    """

    def make(
        space,
        sampler,
        learner,
        *,
        modifiers=(),
        instruments=None,
        guards=None,
        measure=None,
        say=lambda line: None,
        augment=None,
        seed=0,
        scope="",
        precision="float32",
        start=None,
        **settings,
    ) -> SearchStage:
        settings = SearchSettings(**{"epochs": 2, "batch_size": 4, "lr": 0.05} | settings)
        sampler, learner = copy.deepcopy(sampler), copy.deepcopy(learner)
        return SearchStage(
            space,
            data,
            splits,
            sampler,
            learner,
            settings,
            augment=augment,
            streams=Streams(seed, scope),
            precision=precision,
            budget=budget_of(space),
            modifiers=copy.deepcopy(modifiers),
            watch=Watch(copy.deepcopy(instruments), copy.deepcopy(guards), measure, say),
            start=start,
            key="k",
        )

    return make


@pytest.fixture
def retrain_stage(data):
    """A function that makes a new retrain stage of a random architecture: two epochs of three
    steps, unless ``settings`` say otherwise.
    """

    def make(space, *, augment=None, seed=0, precision="float32", **settings) -> RetrainStage:
        settings = RetrainSettings(
            **{"epochs": 2, "batch_size": 8, "lr": 0.05, "drop_path": 0.0} | settings
        )
        streams = Streams(seed)
        with streams.initialising("network"):
            network = space.standalone(space.random(streams.host("architecture")), data.task)
        return RetrainStage(
            "retrain/0",
            network,
            data,
            torch.arange(24),
            settings,
            augment=augment,
            streams=streams,
            precision=precision,
            key="k",
        )

    return make


@pytest.fixture
def everything_varied() -> Augment:
    return Augment(crop_padding=1, flip=True, cutout=2)
