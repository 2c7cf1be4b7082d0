"""What each part of a network costs, and which decisions this depends on."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.hooks import RemovableHandle

from supernet.mixture import Architecture
from supernet.spaces.declared.adapted import Adapted
from supernet.spaces.declared.blocks import Depth, OneOf
from supernet.spaces.declared.choices import Binding, binding, decisions_of
from supernet.spaces.declared.layer import Elastic
from supernet.spaces.declared.plain import active_in, read_by, told
from supernet.task import Task

if TYPE_CHECKING:
    from supernet.spaces.declared.space import Declared

ATEN = torch.ops.aten
NORMS = {ATEN.native_batch_norm.default, ATEN.cudnn_batch_norm.default}
SAME_SHAPE = {op.default for op in (ATEN.relu, ATEN.hardtanh, ATEN.silu, ATEN.gelu)}
WALKS = 3  # between two random architectures, one decision after the other
Names = frozenset[str]  # of decisions


class Figures(NamedTuple):
    """The parameters and multiply-adds of one module, without those of its children."""

    params: int
    madds: int


# --- what a network costs


def figures(space: "Declared", architecture: Architecture, task: Task) -> dict[str, Figures]:
    """What each module costs in a network of the architecture, by its name in the module of the
    space. One forward pass without values is counted.
    """
    network = space.shell(task)
    with torch.no_grad(), space.on(architecture) as now:
        with Madds(network) as madds:
            network(task.example(1, "meta"))
        params = parameters(network, now)
    return {
        name: Figures(params.get(name, 0), madds.found.get(name, 0))
        for name in params.keys() | madds.found.keys()
    }


class Shapes(TorchDispatchMode):
    """Makes forward passes on the meta device fast, where torch takes long for operations that keep
    the shape of their input.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in SAME_SHAPE:
            return torch.empty_like(args[0])
        if func in NORMS:
            return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)
        return func(*args, **(kwargs or {}))


class Madds(Shapes):
    """Counts the multiply-adds of each module of a network on the meta device, without those of its
    children: ``found`` is name -> number.

    torch's own counter does the same, but takes ten times as long, because it also follows how
    other operations are composed. A space needs hundreds of counts. Its tables are compared with
    counts by torch's own counter.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.found: dict[str, int] = {}
        self.network, self.inside = network, [""]
        self.handles: list[RemovableHandle] = []

    def __enter__(self) -> "Madds":
        for name, module in self.network.named_modules():
            self.handles += [
                module.register_forward_pre_hook(lambda *_, name=name: self.inside.append(name)),
                module.register_forward_hook(lambda *_: (self.inside.pop(), None)[1]),
            ]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        for handle in self.handles:
            handle.remove()
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        counted = flop_registry.get(func._overloadpacket)
        if counted is not None and not binding().preparing:
            flops = counted(*args, **(kwargs or {}), out_val=out)
            name = self.inside[-1]
            self.found[name] = self.found.get(name, 0) + flops // 2
        return out


def parameters(network: nn.Module, now: Binding) -> dict[str, int]:
    """The number of parameters of each active module. One that several modules share is counted for
    the first of them.
    """
    active = {id(module) for module in active_in(network)}
    found: dict[str, int] = {}
    counted: set[int] = set()
    for name, module in network.named_modules():
        if id(module) not in active:
            continue
        own: dict[str, Tensor] = dict(module._parameters)
        if isinstance(module, Elastic):
            parts = module.parts(now.read.get(module, told(module)))
            own = {key: part for key, part in parts.items() if isinstance(part, Tensor)}
        elif isinstance(module, Adapted):
            own = module.own_parts()  # type: ignore[assignment]
        for key, part in own.items():
            parameter = None if part is None else parameter_of(module, key)
            if parameter is not None and id(parameter) not in counted:
                counted.add(id(parameter))
                found[name] = found.get(name, 0) + part.numel()
    return found


def parameter_of(module: nn.Module, name: str) -> nn.Parameter | None:
    if name in module._parameters:
        return module._parameters[name]
    try:
        return module.get_parameter(name)
    except AttributeError:  # running statistics, which are no parameters
        return None


# --- what the costs depend on


def dependence(space: "Declared", task: Task) -> dict[str, Names]:
    """The decisions that the cost of each module depends on, by its name.

    A module's own sizes, the choices that are its attributes, and the OneOf and Depth in which it
    stands, are known from the module. The rest is what reaches it with its input: how many channels
    it reads, and how large the images are. This is measured: on a walk from one random architecture
    to another, one decision changes at a time, and each module that runs before and after, and
    whose cost changes, depends on it. Modules that cannot run on inputs of ``task`` are not
    measured.
    """
    found = {}
    for name, module, gates in placed(space.pattern):
        own = () if isinstance(module, OneOf | Depth) else read_by(module)
        if isinstance(module, Adapted):
            own = (*own, *decisions_of(*module.rules.sizes))
        found[name] = gates | {decision.name for decision in own}
    try:
        for name, decision in measured(space, task):
            found[name] |= {decision}
    except (RuntimeError, TypeError, IndexError, ValueError, NotImplementedError):
        pass  # its inputs are not images: what the module says is all that is known
    return found


def placed(
    module: nn.Module, name: str = "", gates: Names = frozenset()
) -> Iterator[tuple[str, nn.Module, Names]]:
    """Every module with its name, and the decisions on which it depends whether it runs."""
    if isinstance(module, Adapted) and module.rules.gate is not None:
        gates |= {module.rules.gate[0].name}
    yield name, module, gates
    if isinstance(module, OneOf):
        gates |= {decision.name for decision in module.choice.decisions}
    for child_name, child in module.named_children():
        own = gates
        if isinstance(module, Depth) and int(child_name) >= min(module.choice.values):
            own = gates | {module.choice.name}
        yield from placed(child, f"{name}.{child_name}".lstrip("."), own)


def measured(space: "Declared", task: Task) -> Iterator[tuple[str, str]]:
    """Yields pairs: the name of a module, and a decision that its cost depends on."""
    rng = np.random.default_rng(0)
    for _ in range(WALKS):
        now, goal = space.random(rng), space.random(rng)
        before = figures(space, now, task)
        for decision in rng.permutation(list(space.decisions)):
            group, slot = space.slots[decision]
            rows = {g: list(options) for g, options in now.choices}
            if rows[group][slot] == goal[group][slot]:
                continue
            rows[group][slot] = goal[group][slot]
            now = Architecture.of(space.name, **rows)
            after = figures(space, now, task)
            for name in before.keys() & after.keys():
                if before[name] != after[name]:
                    yield name, str(decision)
            before = after


def largest(sets: set[Names]) -> list[Names]:
    """The sets that are not part of another one, without the empty one."""
    return [names for names in sets if names and not any(names < other for other in sets)]
