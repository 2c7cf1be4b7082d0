"""The sizes of a run, compared with those of the paper and of the data."""

from typing import Any

from supernet.runs.setup import Setup
from supernet.spaces.space import Form
from supernet.train.settings import RetrainSettings, SearchSettings

FULL = {"search": SearchSettings, "retrain": RetrainSettings}


def fidelity(setup: Setup, stage: str) -> dict[str, Any]:
    """The sizes of ``search`` or ``retrain``: name -> its setting, its value, and the full one."""
    form: Form = "search" if stage == "search" or setup.init == "inherit" else "evaluation"
    data: Any = setup.data
    full = FULL[stage]()
    epochs = getattr(setup.config, stage).epochs
    settings: list[Any] = [("epochs", f"{stage}.epochs", epochs, full.epochs)]
    settings += setup.space.sizes(form)
    settings += [("training images", "data.train_limit", len(setup.images), len(data.train))]
    if len(data.mean):  # a text has no mean, and no images
        size = list(data.size), list(data.source_size or data.size)
        settings += [("image size", "data.image_size", *size)]
    return {
        name: {"setting": setting, "value": value, "full": whole}
        for name, setting, value, whole in settings
    }
