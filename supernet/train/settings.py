"""How supernets and networks are trained and measured: the settings.

This module does not import torch, because the command line reads the settings before it knows
whether anything is trained.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from supernet.errors import UserError, require
from supernet.train.phases import (
    Phase,
    phases_of,
    require_depths,
    require_one_phase,
    require_widths,
)


@dataclass
class SGDSettings:
    """SGD with momentum. The learning rate rises linearly during the warm-up, and then falls from
    ``lr`` to ``lr_min`` on half a cosine.
    """

    epochs: int
    batch_size: int
    lr: float = 0.025
    lr_min: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 3e-4
    warmup_epochs: float = 0.0
    clip: float = 5.0  # largest norm of the gradient of the weights; 0: no limit
    label_smoothing: float = 0.0

    def check(self, where: str) -> None:
        """Raises a UserError if a setting is out of range.

        The message names the setting as ``where.NAME``.
        """
        require(f"{where}.epochs", self.epochs, least=1)
        # BatchNorm cannot normalise a batch of a single image
        require(f"{where}.batch_size", self.batch_size, least=2)
        require(f"{where}.lr", self.lr, above=0)
        for name in ("lr_min", "weight_decay", "warmup_epochs", "clip"):
            require(f"{where}.{name}", getattr(self, name), least=0)
        for name in ("momentum", "label_smoothing"):
            require(f"{where}.{name}", getattr(self, name), least=0, below=1)
        if self.lr_min > self.lr:
            raise UserError(f"{where}.lr_min={self.lr_min}: must be at most {where}.lr={self.lr}")


@dataclass
class SearchSettings(SGDSettings):
    """How a supernet is trained. The defaults are those of DARTS (section 3.1.1).

    An epoch is one pass over the weight split, the training images that the weights learn from.
    """

    epochs: int = 50
    batch_size: int = 64
    lr_min: float = 0.001
    # whether the weights stay as they are at the start of the search, so that only the logits learn
    freeze_weights: bool = False
    # pairs [share of the search, share of the cells]: at each of these points of the search the
    # training starts again, with a supernet of that share of the cells (P-DARTS, section 3.2)
    depths: list[Any] = field(default_factory=list)
    # pairs [share of the search, K]: from each of these points of the search on, operations read
    # 1/K of the channels (DrNAS, section 3.3)
    widths: list[Any] = field(default_factory=list)
    # whether the supernet stores fewer activations for the backward pass and computes them again
    # there; the results have the same bits
    recompute: bool = False
    # the number of searches, of ``epochs`` each; the architecture is derived from the mean of their
    # logits
    supernets: int = 1

    def __post_init__(self) -> None:
        self.check("search")
        require("search.supernets", self.supernets, least=1)
        require_depths(self.depths)
        require_widths(self.widths)
        if self.freeze_weights:
            require_one_phase(self.phases, "search.freeze_weights")

    @property
    def phases(self) -> list[Phase]:
        """The phases of the search, in order; the size of the supernet is constant in each."""
        return phases_of(self.depths, self.widths)


@dataclass
class RetrainSettings(SGDSettings):
    """How the network of a derived architecture is trained.

    The defaults are those of DARTS for CIFAR-10 (section 3.2). With ``init`` "scratch" the training
    starts from new random weights. With "inherit" it starts from the supernet's weights, and the
    network has the size of the supernet; this serves for comparison. ``warm_start`` is the folder
    of another run: the weights that its retrained network and the new one have in common are copied
    from there.
    """

    epochs: int = 600
    batch_size: int = 96
    drop_path: float = 0.2  # probability at the last step; it grows linearly from 0
    auxiliary_weight: float = 0.4  # of the auxiliary head's loss, if the network has such a head
    ema_decay: float = 0.0  # of the average of the weights (timm's ModelEmaV3); 0: no average
    seeds: int = 3
    init: str = "scratch"
    warm_start: str | None = None

    def __post_init__(self) -> None:
        self.check("retrain")
        require("retrain.drop_path", self.drop_path, least=0, below=1)
        require("retrain.auxiliary_weight", self.auxiliary_weight, least=0)
        require("retrain.ema_decay", self.ema_decay, least=0, below=1)
        require("retrain.seeds", self.seeds, least=1)
        if self.init not in ("scratch", "inherit"):
            raise UserError(f"retrain.init={self.init!r}: choose scratch or inherit")
        if self.warm_start is not None and self.init == "inherit":
            raise UserError(
                "retrain.warm_start and retrain.init=inherit are two starts; leave one of them out"
            )


@dataclass
class ShortlistSettings:
    """How many of the searcher's best architectures are trained, and when a training ends early.

    The trainings follow the recipe of ``retrain``. After each epoch a network is judged on a share
    ``held_out`` of the training images, on which it does not train. The test images are not used.

    A training may end early from ``first_look`` on, a share of the epochs. It ends when it can no
    longer become the best one: the upper end of the prediction interval of its final accuracy, at
    ``confidence``, is below the final accuracy of an earlier training of the shortlist.
    ``first_look`` 1 ends no training early.

    The final retraining of the chosen architecture (on all images, with other seeds) and the
    retraining of a random architecture never end early, because these are compared with each other.
    """

    size: int = 1  # 1 trains no candidate and takes the searcher's best architecture
    held_out: float = 0.2
    first_look: float = 0.4
    confidence: float = 0.95

    def __post_init__(self) -> None:
        require("shortlist.size", self.size, least=1)
        require("shortlist.held_out", self.held_out, above=0, below=1)
        require("shortlist.confidence", self.confidence, above=0, below=1)
        require("shortlist.first_look", self.first_look, above=0, below=math.nextafter(1, 2))


@dataclass
class MeasureSettings:
    """When, and on how many images, a search is measured."""

    # The number of epochs between two readings of the expensive instruments (gap, eigenvalue), a
    # reading of which takes longer than a step. 0 leaves these instruments out.
    every: int = 0
    # The number of images of the architecture split, always the same ones, on which the expensive
    # instruments and the guards measure. The eigenvalue uses only the first batch of them.
    images: int = 512

    def __post_init__(self) -> None:
        require("measure.every", self.every, least=0)
        require("measure.images", self.images, least=1)
