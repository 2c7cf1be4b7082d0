"""Fixtures that run a check over every variant, and small data that costs nothing."""

import os
from pathlib import Path

# Two cores are shared by everything here; must be set before torch is imported.
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")

import pytest
import torch

from tests.variants import LEARNERS, SAMPLERS, SEARCHERS, SPACES

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(params=SPACES)
def space(request):
    return SPACES[request.param]()


@pytest.fixture(params=SAMPLERS)
def sampler(request):
    return SAMPLERS[request.param]()


@pytest.fixture(params=LEARNERS)
def learner(request):
    return LEARNERS[request.param]()


@pytest.fixture(params=SEARCHERS)
def searcher(request):
    return SEARCHERS[request.param]()


@pytest.fixture
def shared() -> Path:
    """The folder of real data and published tables; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no shared data here")
    return SHARED


@pytest.fixture
def noise() -> torch.Generator:
    return torch.Generator().manual_seed(0)
