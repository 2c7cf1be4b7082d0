"""How supernets and networks are trained and measured: the settings.

This module does not import torch, because the command line reads the settings before it knows
whether anything is trained.
"""

from dataclasses import dataclass, field
from typing import Any

from supernet.bounds import (
    Bounded,
    Count,
    CountOrZero,
    Few,
    FewOrZero,
    Images,
    NotNegative,
    Part,
    Positive,
    Probability,
    Share,
    TrainingBatchSize,
)
from supernet.errors import UserError
from supernet.files import PATH
from supernet.train.phases import (
    Phase,
    phases_of,
    require_depths,
    require_one_phase,
    require_widths,
)


@dataclass
class SGDSettings(Bounded):
    """SGD with momentum. The learning rate rises linearly during the warm-up, and then falls from
    ``lr`` to ``lr_min`` on half a cosine.
    """

    epochs: Count
    batch_size: TrainingBatchSize
    lr: Positive = 0.025
    lr_min: NotNegative = 0.0
    momentum: Probability = 0.9
    weight_decay: NotNegative = 3e-4
    warmup_epochs: NotNegative = 0.0
    clip: NotNegative = 5.0  # largest norm of the gradient of the weights; 0: no limit
    label_smoothing: Probability = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lr_min > self.lr:
            raise UserError(
                f"{self.where}.lr_min={self.lr_min}: must be at most {self.where}.lr={self.lr}"
            )


@dataclass
class SearchSettings(SGDSettings):
    """How a supernet is trained. The defaults are those of DARTS (section 3.1.1).

    An epoch is one pass over the weight split, the training images that the weights learn from.
    """

    where = "search"

    epochs: Count = 50
    batch_size: TrainingBatchSize = 64
    lr_min: NotNegative = 0.001
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
    # logits, or judged by the mean of their judgements if the method learns no logits. 0: no
    # supernet is trained, and the searcher judges an architecture by training it from scratch, by
    # the recipe of ``retrain``, on the images from which a supernet would learn its weights
    supernets: FewOrZero = 1
    ema_decay: Probability = 0.0  # as in RetrainSettings; the average of the weights judges

    def __post_init__(self) -> None:
        super().__post_init__()
        require_depths(self.depths)
        require_widths(self.widths)
        if self.freeze_weights:
            require_one_phase(self.phases, "search.freeze_weights")
        if self.ema_decay:
            require_one_phase(self.phases, f"search.ema_decay={self.ema_decay}")

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

    where = "retrain"

    epochs: Count = 600
    batch_size: TrainingBatchSize = 96
    drop_path: Probability = 0.2  # probability at the last step; it grows linearly from 0
    # of the auxiliary head's loss, if the network has such a head
    auxiliary_weight: NotNegative = 0.4
    ema_decay: Probability = 0.0  # of the average of the weights (timm's ModelEmaV3); 0: no average
    seeds: Count = 3
    init: str = "scratch"
    warm_start: str | None = field(default=None, metadata=PATH)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init not in ("scratch", "inherit"):
            raise UserError(f"retrain.init={self.init!r}: choose scratch or inherit")
        if self.warm_start is not None and self.init == "inherit":
            raise UserError(
                "retrain.warm_start and retrain.init=inherit are two starts; leave one of them out"
            )


@dataclass
class GrowthSettings(Bounded):
    """How networks grow (Petridish, Hu et al., NeurIPS 2019). The recipe of every training is that
    of ``search``, and ``search.epochs`` is how long candidates are trained beside their parent.

    Growth ends after ``models`` networks, or when none is left that can grow: one that has grown
    less than ``space.steps`` times, and has at most ``madds`` multiply-adds in the form "search".
    Parents are taken from the lower convex hull of multiply-adds and validation error, or from
    above it by at most a share ``margin`` of the error. ``parents`` of them grow at a time.
    """

    where = "growth"

    models: CountOrZero = 0  # with the seeds; 0: nothing grows
    parents: Few = 2
    madds: Images | None = None
    margin: NotNegative = 0.025
    seed_epochs: Count = 200
    epochs: Count = 80  # of a child
    drop_path: Probability = 0.0  # of the trainings of seeds and children, as in retrain.drop_path
    # whether a child begins with the weights of its parent and of the candidates that it keeps
    warm_start: bool = True
    # whether shortcuts are drawn by chance, for comparison: then no candidates are trained, and a
    # child is trained for as many more epochs
    by_chance: bool = False


@dataclass
class ShortlistSettings(Bounded):
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

    where = "shortlist"

    size: Count = 1  # 1 trains no candidate and takes the searcher's best architecture
    held_out: Part = 0.2
    first_look: Share = 0.4
    confidence: Part = 0.95


@dataclass
class MeasureSettings(Bounded):
    """When, and on how many images, a search is measured."""

    where = "measure"

    # The number of epochs between two readings of the expensive instruments (gap, eigenvalue), a
    # reading of which takes longer than a step. 0 leaves these instruments out.
    every: CountOrZero = 0
    # The number of images of the architecture split, always the same ones, on which the expensive
    # instruments and the guards measure. The eigenvalue uses only the first batch of them.
    images: Images = 512
