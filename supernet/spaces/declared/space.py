"""A space of a module in which choices are declared."""

import copy
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from supernet.errors import UserError
from supernet.files import PATH
from supernet.mixture import Architecture, ChoiceGroup, Mixture
from supernet.spaces.capabilities import Slot, Termed
from supernet.spaces.declared.blocks import OneOf
from supernet.spaces.declared.choices import Binding, Choose, bound
from supernet.spaces.declared.costs import Shapes, dependence, figures, largest
from supernet.spaces.declared.faults import faults
from supernet.spaces.declared.plain import active_in, declared_in, plain, read_by
from supernet.spaces.declared.program import EXPECTED, called, class_of
from supernet.spaces.space import Form
from supernet.spaces.space import Size as Part
from supernet.task import Classification, Task

# The decisions of a module must not depend on the task. They are looked up in a network for this
# task, before the data are known.
ANY_TASK = Classification((3, 32, 32), 10)


class DeclaredSupernet(nn.Module):
    """A module with choices, which comes to what a mixture says for the time of one call."""

    def __init__(self, module: nn.Module, task: Task, slots: Mapping[str, Slot]):
        super().__init__()
        self.module, self.task, self.slots = module, task, slots

    def forward(self, inputs: Tensor, mixture: Mixture) -> Any:
        with bound(bindings(self.slots, mixture)):
            return self.module(inputs)


def bindings(slots: Mapping[str, Slot], mixture: Mixture) -> Binding:
    """What a mixture says of each decision."""
    return Binding({name: (mixture[group], slot) for name, (group, slot) in slots.items()})


class Declared(Termed):
    """The base of spaces whose networks are modules with declared choices. A subclass says how to
    build the module.

    The search form and the evaluation form of a network are the same.
    """

    # name of a size -> the setting that changes it, its value in a space, its value in the paper
    paper: ClassVar[dict[str, tuple[str, Callable[[Any], float], float]]] = {}

    any_task: Task = ANY_TASK  # a task that its networks can be built for

    _shell: tuple[Any, nn.Module] | None = None  # the last one, and its task

    @abstractmethod
    def build(self, task: Task) -> nn.Module:
        """The module, with all its choices."""

    # --- the decisions

    def shell(self, task: Task) -> nn.Module:
        """The module without values, in evaluation mode. The last one is kept."""
        known = type(task), dict(vars(task))
        if self._shell is None or self._shell[0] != known:
            with torch.device("meta"):
                self._shell = known, self.build(task).eval()
        return self._shell[1]

    @cached_property
    def pattern(self) -> nn.Module:
        """A module without values, in which the decisions are looked up."""
        return self.shell(self.any_task)

    @cached_property
    def decisions(self) -> dict[str, Choose]:
        """Every decision, by its name.

        Raises:
            UserError: there is none, or two of the same name have different values.
        """
        found: dict[str, Choose] = {}
        for decision in declared_in(self.pattern):
            other = found.setdefault(decision.name, decision)
            if other.values != decision.values:
                raise UserError(
                    f"the space {self.name}: two choices are called {decision.name!r}, between "
                    f"{list(other.values)} and between {list(decision.values)}; rename one"
                )
        if not found:
            raise UserError(
                f"the space {self.name}: the module declares no choice; keep a Choose, OneOf, "
                "Depth or elastic layer as an attribute of a module in it"
            )
        return found

    @cached_property
    def tables(self) -> dict[str, list[str]]:
        """Name of each group -> the names of its decisions, slot by slot.

        Decisions with the same options, whose names differ only in a number at the end, are one
        group.
        """
        alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for name, decision in self.decisions.items():
            base = re.sub(r"[_.-]?\d+$", "", name) or name
            alike.setdefault((base, decision.options), []).append(name)
        bases = [base for (base, _), names in alike.items() if len(names) > 1]
        found: dict[str, list[str]] = {}
        for (base, _), names in alike.items():
            alone = len(names) == 1 or bases.count(base) > 1 or base in self.decisions
            found |= {name: [name] for name in names} if alone else {base: names}
        return found

    @cached_property
    def groups(self) -> tuple[ChoiceGroup, ...]:  # type: ignore[override]
        return tuple(
            ChoiceGroup(
                group, len(names), self.decisions[names[0]].options, *self.kinds(set(names))
            )
            for group, names in self.tables.items()
        )

    def kinds(self, names: set[str]) -> tuple[str | None, None, tuple[str, ...]]:
        """The option of these decisions that returns its input unchanged (in one of them), the one
        that returns zeros (there is none), and those without parameters.
        """
        places = [m for m in self.pattern.modules() if isinstance(m, OneOf)]
        places = [p for p in places if isinstance(p.choice, Choose) and p.choice.name in names]
        if not places:
            return None, None, ()
        decision = self.decisions[min(names)]
        skip, free = None, []
        for value, option in zip(decision.values, decision.options, strict=True):
            modules = [place.options[value] for place in places]
            if skip is None and any(type(module) is nn.Identity for module in modules):
                skip = option
            if not any(True for module in modules for _ in module.parameters()):
                free.append(option)
        return skip, None, tuple(free)

    @cached_property
    def slots(self) -> dict[str, Slot]:
        """Name of each decision -> its group and its slot."""
        return {
            name: (group, slot)
            for group, names in self.tables.items()
            for slot, name in enumerate(names)
        }

    @contextmanager
    def on(self, architecture: Architecture) -> Iterator[Binding]:
        """A context in which every choice comes to what the architecture says."""
        with bound(bindings(self.slots, self.path(architecture))) as binding:
            yield binding

    # --- networks

    def supernet(self, task: Task, form: Form = "search") -> nn.Module:
        _ = self.groups
        return DeclaredSupernet(self.build(task), task, self.slots)

    def plain(
        self, module: nn.Module, architecture: Architecture, task: Task, fresh: bool
    ) -> nn.Module:
        """The plain network that a module of the space comes to; the module is changed.

        A forward pass without values says how many channels each elastic layer reads.
        """
        shell = self.shell(task)
        with self.on(self.validate(architecture)) as binding:
            with torch.no_grad(), Shapes():
                shell(task.example(1, "meta"))
            names = {one: name for name, one in shell.named_modules()}
            reads = {names[layer]: width for layer, width in binding.read.items()}
            return plain(module, reads, fresh)

    def standalone(
        self, architecture: Architecture, task: Task, form: Form = "evaluation"
    ) -> nn.Module:
        return self.plain(self.build(task), architecture, task, fresh=True)

    def inherit(self, supernet: nn.Module, architecture: Architecture) -> nn.Module:
        """Each layer takes the part of the weights that it uses in the supernet."""
        whole: Any = supernet
        module = copy.deepcopy(whole.module).cpu().to(memory_format=torch.contiguous_format)
        return self.plain(module, architecture, whole.task, fresh=False).train()

    def changed(
        self,
        state: Mapping[str, Tensor],
        of: Architecture,
        network: nn.Module,
        architecture: Architecture,
    ) -> tuple[str, ...]:
        """Each OneOf that comes to another option: another module may have tensors of the same
        shape, but for other features.
        """
        chosen = []
        for one in (of, architecture):
            with self.on(one):
                chosen.append(
                    {
                        name: module.chosen()
                        for name, module in self.pattern.named_modules()
                        if isinstance(module, OneOf)
                    }
                )
        before, after = chosen
        return tuple(
            re.sub(r"\.options\.[^.]+", "", name)
            for name in before
            if before[name] is not after[name]
        )

    # --- the space as a set

    def canonical(self, architecture: Architecture) -> Architecture:
        """Decisions that no active part reads get their first option."""
        with self.on(architecture):
            read = {d.name for module in active_in(self.pattern) for d in read_by(module)}
        rows = {}
        for group, options in architecture.choices:
            names = zip(self.tables[group], options, strict=True)
            rows[group] = [
                option if name in read else self.decisions[name].options[0]
                for name, option in names
            ]
        return Architecture.of(self.name, **rows)

    def sizes(self, form: Form) -> list[Part]:
        return [
            Part(name, setting, value(self), full)
            for name, (setting, value, full) in self.paper.items()
        ]

    # --- costs

    @cached_property
    def dependence(self) -> dict[str, frozenset[str]]:
        """The decisions that the cost of each module depends on, by its name."""
        return dependence(self, self.any_task)

    @cached_property
    def together(self) -> list[tuple[Slot, ...]]:
        order = list(self.decisions)
        places = [
            sorted(map(order.index, names)) for names in largest(set(self.dependence.values()))
        ]
        return [tuple(self.slots[order[place]] for place in term) for term in sorted(places)]

    def terms(self) -> list[tuple[Slot, ...]]:
        """One term for each set of decisions that a module depends on, without those that are part
        of another one.
        """
        return self.together

    def term_costs(
        self, architecture: Architecture, task: Task
    ) -> dict[tuple[Slot, ...], dict[str, int]]:
        found: dict[tuple[Slot, ...], dict[str, int]] = {}
        for name, cost in figures(self, architecture, task).items():
            slots = {self.slots[decision] for decision in self.dependence[name]}
            term = next(term for term in [*self.terms(), ()] if slots <= set(term)) if slots else ()
            total = found.setdefault(term, {"params": 0, "madds": 0})
            total["params"] += cost.params
            total["madds"] += cost.madds
        return found


@dataclass
class Module(Declared):
    """The space of a user's own module.

    ``model`` is FILE.py:NAME, the class (or function) NAME that the file FILE.py defines. In Python
    it can be the class itself. It is called with ``settings``. Arguments called ``classes``,
    ``channels`` or ``task`` that the settings do not give get their value from the task: the number
    of outputs, the number of channels of an input, the task itself.

    The file is a program, which is run.
    """

    model: Any = field(metadata=PATH)
    settings: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.made: Any = class_of(self.model) if isinstance(self.model, str) else self.model
        if not callable(self.made):
            raise UserError(f"space.model={self.made}: {EXPECTED}")
        self.name = self.made.__name__
        _ = self.groups

    def faults(self, task: Task, batch: int) -> Iterator[str]:
        """A module of the user's own can be wrong."""
        return faults(self, task, batch)

    def build(self, task: Task) -> nn.Module:
        return called(self.made, self.settings, task)


def declared(model: Callable[..., nn.Module], **settings: Any) -> Module:
    """The space of a module class in which choices are declared. ``settings`` are arguments of the
    class.

    Raises:
        UserError: the module declares no choice, or two choices contradict each other.
    """
    return Module(model, settings)
