"""Exported networks as models of timm."""

import os
from pathlib import Path
from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import nn

from supernet.errors import UserError
from supernet.export.bundle import load_bundle
from supernet.shapes import ExportedArchitecture, read

# timm's register_model looks here for the configurations of this module's models.
default_cfgs: dict[str, Any] = {}


def register_timm(folder: str | os.PathLike[str], name: str, *, trust: bool = False) -> None:
    """Registers the network that was exported to ``folder``, so that ``timm.create_model(name)``
    returns it. It always has its trained weights.

    Its ``pretrained_cfg`` says how images must be prepared. ``timm.data.resolve_model_data_config``
    and the functions that build on it read it.

    ``network.py`` in the folder is a program, which is run each time. ``trust`` says that the
    folder is trusted.

    Raises:
        UserError: the folder is not trusted, or holds no valid export. ``create_model`` raises the
            same error if the export was damaged later, or if it is called with another number of
            classes or input channels than the network has.
    """
    folder = Path(folder).resolve()
    load_bundle(folder, trust=trust)
    about = read(folder / "architecture.json", ExportedArchitecture)
    if len(about["input_shape"]) != 3:
        raise UserError(f"{folder}: the network reads no images, so it is no model for timm")
    settings = {
        "file": str(folder / "model.safetensors"),
        "input_size": tuple(about["input_shape"]),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "mean": tuple(about["mean"]),
        "std": tuple(about["std"]),
        "num_classes": about["classes"],
    }

    def create(
        num_classes: int | None = None,
        in_chans: int | None = None,
        *,
        # timm passes these itself. They have no effect, because there is only one set of weights.
        pretrained: Any = None,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
    ) -> nn.Module:
        for what, wanted, has in (
            ("num_classes", num_classes, about["classes"]),
            ("in_chans", in_chans, about["input_shape"][0]),
        ):
            if wanted not in (None, has):
                raise UserError(
                    f"timm.create_model({name!r}, {what}={wanted}): the exported network has "
                    f"{what}={has}"
                )
        network = load_bundle(folder, trust=trust)
        own: Any = network  # torch's modules have no such attributes of their own
        own.pretrained_cfg = own.default_cfg = {"architecture": name} | settings
        own.num_classes = about["classes"]
        return network

    create.__name__ = name
    default_cfgs.update(generate_default_cfgs({name: settings}))
    register_model(create)
