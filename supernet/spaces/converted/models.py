"""Models by their names, of timm and torchvision."""

import difflib
from collections.abc import Mapping
from typing import Any

from torch import nn

from supernet.errors import UserError, unknown
from supernet.task import Task

IMAGE = (3, 224, 224)  # the images that most models are made for


def is_timm(name: str) -> bool:
    import timm

    return timm.is_model(name.partition(".")[0])


def made(name: str, task: Task, settings: Mapping[str, Any], pretrained: bool) -> nn.Module:
    """A model for a task.

    Raises:
        UserError: there is no such model, or it cannot be made with these settings.
    """
    import timm
    import torchvision

    try:
        if is_timm(name):
            own = {"num_classes": task.outputs, "in_chans": task.input_shape[0]}
            return timm.create_model(name, pretrained=pretrained, **own | dict(settings))
        known = torchvision.models.list_models()
        if name in known:
            own = {"num_classes": task.outputs} if not pretrained else {}
            weights = "DEFAULT" if pretrained else None
            return torchvision.models.get_model(name, weights=weights, **own | dict(settings))
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise UserError(
            f"space.model={name}: cannot be made ({str(error).splitlines()[0]}); change "
            "space.settings, which are its arguments"
        ) from error
    near = difflib.get_close_matches(name, [*timm.list_models(), *known], 5)
    raise UserError(f"space.model={name}: {unknown(name, near or ['resnet18'])}")


def shape_of(model: str, settings: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of the images that a model is made for."""
    import timm

    size = settings.get("img_size", settings.get("image_size"))
    if size is not None:
        return (3, *(size if isinstance(size, tuple | list) else (size, size)))
    found = timm.get_pretrained_cfg(model) if is_timm(model) else None
    return IMAGE if found is None else tuple(found.input_size)
