"""The base of spaces whose networks grow (Petridish, Hu et al., NeurIPS 2019).

Its architectures are described in :mod:`supernet.spaces.growing.architectures`. Here are their
networks, and the supernet: a network together with the candidates for its next step. It has a
choice group for each place, with one slot, whose options are the candidates.
"""

import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from supernet.bounds import Positive
from supernet.errors import UserError
from supernet.mixture import Architecture
from supernet.spaces.growing.architectures import GrowingArchitectures
from supernet.spaces.growing.shortcuts import (
    Addition,
    Growing,
    Grown,
    Shape,
    fits,
    key,
    operations_for,
    shapes_of,
)
from supernet.spaces.space import Form
from supernet.task import Classification, Task

ANY_TASK = Classification((3, 32, 32), 10)


@dataclass(frozen=True)
class Target:
    """A module at whose end shortcuts are added, and what they can read: role -> module."""

    module: str
    roles: Mapping[str, str]


@dataclass(kw_only=True)
class GrowingSpace(GrowingArchitectures):
    """A space whose networks grow.

    ``scale`` multiplies the gradient that candidates get. The paper has 1; its code has 1 /
    (steps * batch size).
    """

    scale: Positive = 1.0

    any_task = ANY_TASK  # a task that its networks can be built for

    # --- what a subclass says

    @abstractmethod
    def network(self, seed: str, task: Task, form: Form) -> nn.Module:
        """A seed, without any addition."""

    @abstractmethod
    def places(self, seed: str, form: Form) -> dict[str, list[Target]]:
        """The places of a seed: name -> its targets, which all have the same roles."""

    # --- candidates

    def found(self, seed: str) -> dict[str, list[str]]:
        shapes = self.shapes(seed, self.any_task, "search")
        found = {}
        for place, targets in self.places(seed, "search").items():
            end = shapes[targets[0].module]
            roles = [
                role
                for role in targets[0].roles
                if all(fits(shapes[one.roles[role]], shapes[one.module]) for one in targets)
            ]
            found[place] = [f"{name}@{role}" for role in roles for name in operations_for(end)]
            if not found[place]:
                raise UserError(f"{self.name}: nothing can be added at {targets[0].module}")
        return found

    def shapes(self, seed: str, task: Task, form: Form) -> dict[str, Shape]:
        """The shape of the output of every module of a seed."""
        with torch.device("meta"):
            network = self.network(seed, task, form).eval()
        return shapes_of(network, task.example(2, "meta"))

    # --- networks

    def parts(
        self, architecture: Architecture, task: Task, form: Form
    ) -> tuple[nn.Module, dict[str, list[Addition]], dict[str, Shape]]:
        """The seed of an architecture, its additions by target, and the shapes of all outputs."""
        (seed,), affine = self.validate(architecture)["seed"], form == "evaluation"
        shapes = self.shapes(seed, task, form)
        network = self.network(seed, task, form)
        additions: dict[str, list[Addition]] = {}
        for place, targets in self.places(seed, form).items():
            for target in targets:
                end, made = shapes[target.module], additions.setdefault(target.module, [])
                for step, text in enumerate(architecture[place]):
                    sources = {name: source_of(name, target) for name in text.split("+")}
                    made.append(Addition(sources, shapes, end, affine))
                    shapes[f"{target.module}+{step}"] = end
        return network, additions, shapes

    def standalone(
        self, architecture: Architecture, task: Task, form: Form = "evaluation"
    ) -> nn.Module:
        network, additions, shapes = self.parts(architecture, task, form)
        made = {name: found for name, found in additions.items() if found}
        return Grown(network, made, *self.auxiliary_head(network, task, form, shapes))

    def auxiliary_head(
        self, network: nn.Module, task: Task, form: Form, shapes: Mapping[str, Shape]
    ) -> tuple[str, nn.Module | None]:
        """The module whose output a second head reads, and this head, for training only. By default
        there is none.
        """
        return "", None

    def supernet(self, task: Task, form: Form = "search") -> nn.Module:
        parent = self.grows_from
        network, additions, shapes = self.parts(parent, task, form)
        groups = {group.name: group.options for group in self.groups}
        candidates = {
            target.module: (place, {name: source_of(name, target) for name in groups[place]})
            for place, targets in self.places(parent["seed"][0], form).items()
            for target in targets
        }
        made = Growing(network, additions, candidates, shapes, form == "evaluation", self.scale)
        made.task = task
        return made

    def inherit(self, supernet: nn.Module, architecture: Architecture) -> nn.Module:
        """The supernet's network, or a child of it: additions keep the weights of the candidates
        that they keep. The projection and the gate are new.
        """
        whole: Any = supernet
        network = self.standalone(architecture, whole.task, "search")
        state = whole.state_dict()
        network.load_state_dict(
            {
                name: state.get(name, state.get(candidate_of(name), fresh))
                for name, fresh in network.state_dict().items()
            }
        )
        return network

    def changed(
        self,
        state: Mapping[str, Tensor],
        of: Architecture,
        network: nn.Module,
        architecture: Architecture,
    ) -> tuple[str, ...]:
        """The additions that keep other shortcuts: their projections read other features."""
        whole: Any = network
        (seed,), prefixes = architecture["seed"], []
        for place, targets in self.places(seed, "search").items():
            before = dict(of.choices).get(place, ())
            for step, text in enumerate(architecture[place]):
                if before[step : step + 1] != (text,):
                    prefixes += [f"additions.{key(one.module)}.{step}." for one in targets]
        return tuple(prefixes) if of["seed"] == (seed,) else tuple(whole.state_dict())


def candidate_of(name: str) -> str:
    """The name that a tensor of an addition's shortcut had when the shortcut was a candidate."""
    return re.sub(r"^additions\.([^.]+)\.\d+\.shortcuts\.", r"candidates.\1.", name)


def source_of(name: str, target: Target) -> str:
    """The module whose output a shortcut to ``target`` reads, or the addition (TARGET+NUMBER)."""
    role = name.partition("@")[2]
    if role.startswith("added"):
        return f"{target.module}+{role.removeprefix('added')}"
    return target.roles[role]
