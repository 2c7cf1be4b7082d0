"""How cheaply a run judges: each size beside that of the paper or of the data."""

import dataclasses
from typing import Any

from supernet.runs.setup import Setup
from supernet.train.retrain import RetrainSettings
from supernet.train.search import SearchSettings

FULL = {"search": SearchSettings, "retrain": RetrainSettings}


def fidelity(setup: Setup, stage: str) -> dict[str, Any]:
    """The sizes of ``search`` or ``retrain``: name -> its setting, its value, and the full one."""
    phase = "search" if stage == "search" or setup.init == "inherit" else "evaluation"
    data, full = setup.data, FULL[stage]()
    own, paper = dataclasses.asdict(getattr(setup.space, phase)), setup.space.paper.get(phase)
    settings = [("epochs", f"{stage}.epochs", getattr(setup.config, stage).epochs, full.epochs)]
    settings += [
        (name, f"space.{phase}.{name}", value, getattr(paper, name, None))
        for name, value in own.items()
    ]
    settings += [
        ("training images", "data.train_limit", len(setup.images), len(data.train)),
        ("image size", "data.image_size", list(data.size), list(data.source_size or data.size)),
    ]
    return {
        name: {"setting": setting, "value": value, "full": whole}
        for name, setting, value, whole in settings
    }
