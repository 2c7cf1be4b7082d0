"""Operations that begin to overfit stop learning, one by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from supernet.bounds import Cosine, Count
from supernet.errors import UserError
from supernet.guards.guard import Fired, Gradients, Guard
from supernet.instruments.instrument import Snapshot
from supernet.spaces.capabilities import Itemised, capable
from supernet.spaces.space import Space


@dataclass
class OLES(Guard):
    """Operation-level early stopping (Jiang et al., NeurIPS 2023, algorithm 1).

    Skip connections win because operations with weights overfit the images on which the weights
    train, while the logits learn from other images. For every operation of every cell, the guard
    computes the cosine between the gradients of its weights on training images and on validation
    images. Such a look takes place every ``every`` steps. If the mean of the cosine over ``window``
    looks is below ``threshold``, the operation is frozen: its weights never move again. The
    defaults are those of the authors' code.

    Departures: both gradients are of one step and the same weights, whereas the authors' code
    compares the validation gradient with the training gradient of the step before. The cosine is
    that of all weights of the operation as one vector, as in the paper, whereas the code averages
    over slices. The authors get the validation gradient at no extra cost from the step of the
    logits. Here the weights do not require grad in that step, so a look costs one more forward and
    backward pass.
    """

    title = "share of frozen operations"
    meaning = "frozen operations overfit and no longer learn (OLES)"
    prefixes = ("share/frozen",)

    window: Count = 20
    threshold: Cosine = 0.4
    every: Count = 1

    def begin(self, space: Space, supernet: nn.Module) -> None:
        super().begin(space, supernet)
        itemised = capable(space, Itemised, "guard=[oles]", "leave this guard out")
        modules = dict(supernet.named_modules())
        self.weights = {
            name: list(modules[name].parameters()) for name in itemised.candidates(supernet)
        }
        self.weights = {name: weights for name, weights in self.weights.items() if weights}
        if not self.weights:
            raise UserError(
                f"guard=[oles]: no option of the space {space.name} has weights; leave this guard "
                "out"
            )
        self.totals = {name: 0.0 for name in self.weights}
        self.looks = {name: 0 for name in self.weights}
        self.frozen: list[str] = []
        self.reported, self.steps = 0, 0

    def step(self, validation: Gradients | None) -> None:
        if validation is not None:
            if self.steps % self.every == 0:
                self.look(validation)
            self.steps += 1
        for name in self.frozen:
            for weight in self.weights[name]:
                weight.grad = None  # torch's SGD then applies neither momentum nor weight decay

    def look(self, validation: Gradients) -> None:
        """Computes the cosine of each operation that still learns, and freezes those that
        overfit.
        """
        learning = [
            name
            for name in self.weights
            if name not in self.frozen and self.weights[name][0].grad is not None
        ]
        if not learning:
            return
        found = iter(validation([weight for name in learning for weight in self.weights[name]]))
        cosines = []
        for name in learning:
            pairs = [(weight.grad, next(found)) for weight in self.weights[name]]
            cosines.append(cosine([(ours, theirs) for ours, theirs in pairs if theirs is not None]))
        for name, value in zip(learning, torch.stack(cosines).tolist(), strict=True):
            self.totals[name] += value
            self.looks[name] += 1
            if self.looks[name] == self.window:
                if self.totals[name] / self.window < self.threshold:
                    self.frozen.append(name)
                self.totals[name], self.looks[name] = 0.0, 0

    def end_of_epoch(self, snapshot: Snapshot) -> Fired | None:
        new, self.reported = self.frozen[self.reported :], len(self.frozen)
        self.figures = {"share/frozen": len(self.frozen) / len(self.weights)}
        if not new:
            return None
        names = ", ".join(new[:3]) + (f" and {len(new) - 3} more" if len(new) > 3 else "")
        return Fired(
            f"{names} overfit and no longer learn ({len(self.frozen)} of {len(self.weights)} "
            "operations in all)"
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "totals": dict(self.totals),
            "looks": dict(self.looks),
            "frozen": list(self.frozen),
            "reported": self.reported,
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.totals, self.looks = dict(state["totals"]), dict(state["looks"])
        self.frozen = list(state["frozen"])
        self.reported, self.steps = state["reported"], state["steps"]


def cosine(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The cosine between two vectors, which are given as ``pairs`` of their pieces; 0 if one of the
    vectors is 0.
    """
    if not pairs:
        return torch.zeros(())
    zero = pairs[0][0].new_zeros(())
    product = sum(((one * other).sum() for one, other in pairs), zero)
    squares = [
        sum((piece.square().sum() for piece in pieces), zero) for pieces in zip(*pairs, strict=True)
    ]
    return product / (squares[0] * squares[1]).sqrt().clamp_min(torch.finfo(product.dtype).tiny)
