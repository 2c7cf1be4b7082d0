"""A whole run in this process, on very small data."""

import dataclasses
from contextlib import ExitStack

import pytest

from supernet.config import Config, typed
from supernet.run import Run
from supernet.runs.setup import Setup

PARTS = {
    "sampler": {"_target_": "supernet.samplers.uniform.Uniform"},
    "learner": {"_target_": "supernet.learners.fixed.Fixed"},
    "searcher": {"_target_": "supernet.searchers.random.Random", "candidates": 3},
    "tracker": {"_target_": "supernet.track.interface.NoTracker"},
}


@pytest.fixture
def make_run(data, tmp_path):
    """A function that makes and starts a run of SPOS. By default it runs in ``tmp_path`` on
    ``data``; other settings are given by group.
    """
    runs = ExitStack()

    def make(space, data=data, folder=tmp_path, parent=None, **settings) -> Run:
        kind = type(space)
        plain = {"_target_": "supernet.data.augment.Augment"}
        node = {"_target_": f"{kind.__module__}.{kind.__name__}"}
        setup = Setup(
            typed(
                Config,
                {
                    "name": "n",
                    "method": "m",
                    "device": "cpu",  # where the tests compute by themselves
                    "space": node | dataclasses.asdict(space),
                    **PARTS,
                    "data": {
                        "name": "noise",
                        "source": {"_target_": "supernet.data.sources.Digits"},
                        "augment": plain,
                        "search_augment": plain,
                    },
                    "search": {"epochs": 1, "batch_size": 4},
                    "retrain": {"epochs": 1, "batch_size": 8, "seeds": 1, "auxiliary_weight": 0.0},
                    "baseline": {"architectures": 0},
                }
                | settings,
                "",
            )
        )
        setup.data = data
        return runs.enter_context(Run(setup, folder, parent=parent))

    with runs:
        yield make
