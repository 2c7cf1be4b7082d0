"""Exported networks as models of timm."""

import os
from pathlib import Path
from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import nn

from supernet.errors import UserError
from supernet.export.bundle import load_bundle
from supernet.files import read_json

default_cfgs: dict[
    str, Any
] = {}  # where timm's register_model looks for the configurations of this module's models


def register_timm(folder: str | os.PathLike, name: str) -> None:
    """Makes ``timm.create_model(name)`` give the network exported to ``folder``, always with its
    trained weights.

    Its ``pretrained_cfg`` says how to prepare images, for ``timm.data.resolve_model_data_config``
    and what builds on it.

    Raises:
        UserError: the folder holds no sound export (also later, from ``create_model``, if it was
            damaged since), or ``create_model`` is asked for another number of classes or input
            channels than the network has.
    """
    folder = Path(folder).resolve()
    load_bundle(folder)
    about = read_json(folder / "architecture.json")
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
        # These are what timm itself hands over; there is one set of weights, so that they choose
        # nothing.
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
        network = load_bundle(folder)
        network.pretrained_cfg = network.default_cfg = {"architecture": name} | settings
        network.num_classes = about["classes"]
        return network

    create.__name__ = name
    default_cfgs.update(generate_default_cfgs({name: settings}))
    register_model(create)
