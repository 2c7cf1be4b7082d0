"""The retrain stage: a standalone network, from scratch, by the recipe that its data set is used
to.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn, optim

from supernet.data import Augment, Batches, ImageData
from supernet.device import autocast
from supernet.errors import UserError, require
from supernet.ops import DropPath
from supernet.randomness import Streams
from supernet.train.schedule import SGDSettings, cosine


@dataclass
class RetrainSettings(SGDSettings):
    """How a derived network is trained; the defaults are DARTS's for CIFAR-10 (section 3.2).

    ``init`` "scratch" draws new weights; "inherit" starts from the supernet's, in the supernet's
    geometry, for comparison. ``warm_start`` names the folder of a run: whatever its retrained
    network shares with the new one is taken over from there.
    """

    epochs: int = 600
    batch_size: int = 96
    drop_path: float = 0.2  # probability at the end, growing linearly from 0
    auxiliary_weight: float = 0.4  # of the auxiliary head's loss, where the network has such a head
    ema_decay: float = 0.0  # of an average of the weights (timm's ModelEmaV3); 0 keeps none
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


class RetrainStage:
    """SGD with cosine schedule on all images of ``indices``; :meth:`trained` is the network that
    counts, EMA if there is one.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        data: ImageData,
        indices: Tensor,
        settings: RetrainSettings,
        *,
        augment: Augment | None = None,
        streams: Streams,
        device: torch.device | str = "cpu",
        precision: str = "float32",
        key: str = "",
    ):
        self.name, self.settings, self.streams, self.key = name, settings, streams, key
        self.data, self.task = data, data.task
        self.device, self.precision = torch.device(device), precision
        self.network = network.to(self.device, memory_format=torch.channels_last)
        self.drop_paths = [module for module in network.modules() if isinstance(module, DropPath)]
        for drop_path in self.drop_paths:
            drop_path.generator = streams.tensor("drop_path", self.device)
        self.average = average_of(network, settings.ema_decay) if settings.ema_decay else None
        self.batches = Batches(
            data.train,
            indices,
            settings.batch_size,
            mean=data.mean,
            std=data.std,
            augment=augment,
            order=streams.host("order"),
            noise=streams.tensor("augment", self.device),
            device=self.device,
        )
        self.steps_per_epoch = self.batches.steps_per_epoch
        self.steps = settings.epochs * self.steps_per_epoch
        self.optimizer = optim.SGD(
            network.parameters(),
            settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self.schedule = cosine(
            self.optimizer,
            self.steps,
            settings.lr_min,
            round(settings.warmup_epochs * self.steps_per_epoch),
        )

    def step(self, index: int) -> dict[str, Tensor]:
        settings = self.settings
        self.network.train()
        for drop_path in self.drop_paths:
            drop_path.probability = settings.drop_path * index / self.steps
        images, labels = next(self.batches)
        with autocast(self.device, self.precision):
            outputs, second = forward(self.network, images)
            loss = self.task.loss(outputs, labels, settings.label_smoothing)
            total = loss
            if second is not None:
                auxiliary = self.task.loss(second, labels, settings.label_smoothing)
                total = loss + settings.auxiliary_weight * auxiliary
        total.backward()
        if settings.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        if self.average is not None:
            self.average.update(self.network, step=index)
        return {
            "loss": loss.detach(),
            self.task.metric_name: self.task.metric(outputs.detach(), labels),
        }

    def end_of_epoch(self) -> dict[str, float]:
        return {}

    def trained(self) -> nn.Module:
        return self.network if self.average is None else self.average.module

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "batches": self.batches.state_dict(),
            "streams": self.streams.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("network", "optimizer", "schedule", "batches", "streams"):
            getattr(self, name).load_state_dict(state[name])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])


def average_of(network: nn.Module, decay: float) -> nn.Module:
    """timm's exponential moving average of the network's weights; timm takes seconds to import, so
    only who averages does.
    """
    from timm.utils import ModelEmaV3

    return ModelEmaV3(network, decay=decay, use_warmup=True, foreach=False)


def forward(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """The network's logits, and those of its auxiliary head if it has one."""
    if getattr(network, "auxiliary", None) is not None:
        return network.forward_with_auxiliary(images)
    return network(images), None
