"""The architectures of spaces whose networks grow (Petridish, Hu et al., NeurIPS 2019).

An architecture says from which seed a network began, and what each step of growth has added at each
of its *places*. A place is where shortcuts can end: in a space of cells, the end of all cells of a
kind; in a network of blocks, the end of one block. The notation of a place lists its additions,
with the shortcuts OPERATION@SOURCE that each of them keeps:

    seed=3x2x1 normal=sep_conv_3x3@last+skip_connect@before,dil_conv_5x5@added0 reduce=
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Self

import numpy as np
from torch import Tensor

from supernet.bounds import Bounds
from supernet.errors import UserError, unknown
from supernet.mixture import Architecture, Choice, ChoiceGroup
from supernet.ops import PARAMETER_FREE
from supernet.spaces.capabilities import Drawable
from supernet.spaces.growing.shortcuts import operation_of
from supernet.spaces.space import Gene

Kept = Annotated[int, Bounds(least=1, most=64)]
Steps = Annotated[int, Bounds(least=1, most=64)]


@dataclass(kw_only=True)
class GrowingArchitectures(Drawable):
    """A growing space as a set of architectures. A step keeps ``keep`` shortcuts (I in the paper)
    at each place, or only at the ``places_a_step`` places whose candidates have the highest scores
    together. ``steps`` limits how often a network grows.

    ``parent`` is the architecture whose candidates the supernet has, in the notation of the space;
    ``None`` is the first seed.
    """

    keep: Kept = 3
    steps: Steps = 8
    places_a_step: Kept | None = None
    parent: str | None = None

    limited = True

    # --- what a subclass says

    @property
    @abstractmethod
    def seed_names(self) -> list[str]:
        """The names of the networks from which growth begins."""

    @abstractmethod
    def found(self, seed: str) -> dict[str, list[str]]:
        """The candidates of each place of a seed that no addition is needed for."""

    # --- architectures

    def of_parent(self, parent: Architecture) -> Self:
        """The same space, whose supernet has the candidates of ``parent``."""
        return dataclasses.replace(self, parent=self.encode(parent))

    def seed(self, name: str) -> Architecture:
        """A seed as an architecture."""
        places = {place: () for place in self.candidates(name)}
        return Architecture.of(self.name, seed=[name], **places)

    @cached_property
    def grows_from(self) -> Architecture:
        """The architecture whose candidates the supernet has."""
        if self.parent is None:
            return self.seed(self.seed_names[0])
        return self.decode(self.parent)

    def candidates(self, seed: str) -> dict[str, list[str]]:
        """The candidates of each place of a seed that no addition is needed for."""
        if seed not in self.known:
            self.known[seed] = self.found(seed)
        return self.known[seed]

    @cached_property
    def known(self) -> dict[str, dict[str, list[str]]]:
        return {}

    def options(self, seed: str, place: str, step: int) -> list[str]:
        """The candidates of a place that has grown in ``step`` steps."""
        names = self.candidates(seed)[place]
        operations = list(dict.fromkeys(operation_of(name) for name in names))
        return names + [f"{one}@added{number}" for number in range(step) for one in operations]

    @cached_property
    def groups(self) -> tuple[ChoiceGroup, ...]:  # type: ignore[override]
        (seed,), parent = self.grows_from["seed"], self.grows_from
        found = []
        for place in self.candidates(seed):
            options = tuple(self.options(seed, place, len(parent[place])))
            free = tuple(name for name in options if operation_of(name) in PARAMETER_FREE)
            found.append(ChoiceGroup(place, 1, options, parameter_free=free))
        return tuple(found)

    def validate(self, architecture: Architecture) -> Architecture:
        if architecture.space != self.name:
            raise UserError(
                f"an architecture of the space {architecture.space!r} does not fit the space "
                f"{self.name!r}"
            )
        given = dict(architecture.choices)
        seed = given.get("seed", ())
        if len(seed) != 1 or seed[0] not in self.seed_names:
            raise UserError(
                f"{self.name}: seed={','.join(seed)}: must be one of {', '.join(self.seed_names)}"
            )
        places = ["seed", *self.candidates(seed[0])]
        if list(given) != places:
            raise UserError(f"{self.name}: has {places}, not {list(given)}")
        for place, steps in given.items():
            for step, text in enumerate(steps if place != "seed" else ()):
                known, kept = self.options(seed[0], place, step), text.split("+")
                for name in kept:
                    if name not in known:
                        raise UserError(f"{self.name}: {place}[{step}]: {unknown(name, known)}")
                if len(set(kept)) < len(kept):
                    raise UserError(f"{self.name}: {place}[{step}]: {text} has a shortcut twice")
        return architecture

    def canonical(self, architecture: Architecture) -> Architecture:
        """The shortcuts of each addition in the order of the candidates."""
        (seed,) = architecture["seed"]
        rows: dict[str, Sequence[str]] = {"seed": [seed]}
        for place in self.candidates(seed):
            rows[place] = [
                "+".join(sorted(text.split("+"), key=self.options(seed, place, step).index))
                for step, text in enumerate(architecture[place])
            ]
        return Architecture.of(self.name, **rows)

    def decode(self, text: str) -> Architecture:
        pairs = [word.partition("=") for word in text.split()]
        if not pairs or pairs[0][0] != "seed":
            raise UserError(
                f"not an architecture of the space {self.name}: {text[:120]!r}; expected the form "
                f"of {self.encode(self.seed(self.seed_names[0]))}"
            )
        rows = {name: options.split(",") if options else [] for name, _, options in pairs}
        return self.validate(Architecture.of(self.name, **rows))

    def grown(self, architecture: Architecture, kept: Mapping[str, Sequence[str]]) -> Architecture:
        """The architecture after one more step, which keeps these shortcuts at each place."""
        rows = dict(architecture.choices)
        for place, names in kept.items():
            rows[place] = (*rows[place], "+".join(names))
        return Architecture.of(self.name, **rows)

    def steps_of(self, architecture: Architecture) -> int:
        """How often a network has grown."""
        return max(len(steps) for name, steps in architecture.choices if name != "seed")

    def derive(self, scores: Mapping[str, Tensor]) -> Architecture:
        """The parent after a step that keeps the candidates with the highest scores."""
        return self.child(scores)

    def child(self, scores: Mapping[str, Tensor], others: Collection[str] = ()) -> Architecture:
        """The same, but none of ``others`` (in the notation of the space). While it is one of them,
        the weakest shortcut that is kept at each place gives way to the next best.
        """
        for passed in range(max(len(group.options) for group in self.groups)):
            kept, total = {}, {}
            for group in self.groups:
                row = scores[group.name][0].tolist()
                order = sorted(range(len(row)), key=lambda i: -row[i])
                last = min(self.keep - 1 + passed, len(row) - 1)
                best = sorted({*order[: self.keep - 1], order[last]})
                kept[group.name] = [group.options[i] for i in best]
                total[group.name] = sum(row[i] for i in best)
            places = sorted(kept, key=lambda place: -total[place])[: self.places_a_step]
            found = self.grown(self.grows_from, {p: kept[p] for p in kept if p in places})
            if self.encode(found) not in others:
                return found
        raise UserError(f"{self.name}: {self.encode(self.grows_from)} has no further child")

    # --- the space as a set

    @property
    def genes(self) -> tuple[Gene, ...]:
        raise UserError(
            f"the space {self.name} grows: its architectures have no fixed number of decisions; "
            "choose method=petridish"
        )

    def step_by_chance(self, parent: Architecture, rng: np.random.Generator) -> Architecture:
        """A network after one more step, which keeps shortcuts that are drawn uniformly."""
        (seed,) = parent["seed"]
        places = list(self.candidates(seed))
        if self.places_a_step is not None:
            few = rng.permutation(len(places))[: self.places_a_step]
            places = [places[number] for number in sorted(few.tolist())]
        kept = {}
        for place in places:
            options = self.options(seed, place, len(parent[place]))
            drawn = rng.permutation(len(options))[: self.keep]
            kept[place] = [options[number] for number in sorted(drawn.tolist())]
        return self.grown(parent, kept)

    def random(self, rng: np.random.Generator) -> Architecture:
        """A seed that has grown by chance, in one step or more. The seed and the number of steps
        are drawn uniformly.
        """
        found = self.seed(self.seed_names[rng.integers(len(self.seed_names))])
        for _ in range(1 + rng.integers(self.steps)):
            found = self.step_by_chance(found, rng)
        return found

    def path(self, architecture: Architecture) -> dict[str, Choice]:
        """The mixture in which no candidate runs, so that the parent is what is computed. A child
        computes the same before it is trained.
        """
        return {group.name: Choice(((),)) for group in self.groups}

    def graph(self, architecture: Architecture) -> dict[str, list[tuple[str, str, str]]]:
        """For each place that has grown: what each addition reads, and that it is added to the
        output.
        """
        (seed,) = architecture["seed"]
        found = {}
        for place in self.candidates(seed):
            edges = []
            for step, text in enumerate(architecture[place]):
                for name in text.split("+"):
                    operation, _, role = name.partition("@")
                    edges.append((role, f"added{step}", operation))
                edges.append((f"added{step}", "output", "add"))
            if edges:
                found[place] = edges
        return found
