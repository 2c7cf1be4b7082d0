"""The retrain stage: trains the network of one architecture by the recipe of its data set."""

from typing import Any, cast

import torch
from torch import Tensor, nn, optim

from supernet.data import Augment, Batches, ImageData
from supernet.device import autocast
from supernet.ops import DropPath
from supernet.ops.fast.convolution import FastGradients
from supernet.randomness import Streams
from supernet.train.average import average_of
from supernet.train.schedule import cosine
from supernet.train.settings import RetrainSettings


class RetrainStage:
    """Trains ``network`` by SGD with a cosine schedule on the training images ``indices`` [N].

    :meth:`trained` gives the network that is judged and exported: the exponential moving average of
    the weights if ``settings.ema_decay`` is set, else ``network`` itself.
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
        network.to(self.device).to(memory_format=torch.channels_last)
        self.network, self.fast_gradients = network, FastGradients(network)
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
        with self.fast_gradients, autocast(self.device, self.precision):
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
        """The network that is judged and exported."""
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


def forward(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """The outputs of the network, and those of its auxiliary head (``None`` if it has no head)."""
    if getattr(network, "auxiliary", None) is not None:
        outputs, second = cast(Any, network).forward_with_auxiliary(images)
        return outputs, second
    return network(images), None
