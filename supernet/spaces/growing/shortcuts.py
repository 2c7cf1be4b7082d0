"""Networks to which shortcut connections are added, and candidates for such connections
(Petridish: Hu et al., Efficient Forward Architecture Search, NeurIPS 2019).

A *shortcut* runs one operation on the output of an earlier module, its source. An *addition* keeps
a few shortcuts: their outputs are concatenated, projected to the shape of its target, multiplied by
a gate, and added to the output of its target. The target and the sources are modules of the
network, and are known by their names. So any network can grow, without a change of its code.

*Candidates* are shortcuts that are trained beside a network before some of them are kept. They are
isolated from it: they see its gradient, and it does not see them.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from supernet.errors import UserError
from supernet.mixture import Mixture
from supernet.ops import OPERATIONS, DropPath, ReLUConvBN
from supernet.task import Task

Shape = tuple[int, ...]  # of one output, without the batch dimension

IMAGE_OPERATIONS = (
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
)
# The operations on features [B, length, features] or [B, features], behind a multiplicative gate.
ACTIVATIONS = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


class Gated(nn.Module):
    """``sigmoid(linear(x)) * activation(linear(x))``: the layer of recurrent cells in which
    Petridish grows on text, and in DARTS's before it.
    """

    def __init__(self, inputs: int, outputs: int, activation: nn.Module):
        super().__init__()
        self.gate, self.value = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.gate(x)) * self.activation(self.value(x))


def operations_for(shape: Shape) -> tuple[str, ...]:
    """The operations that a shortcut to a target of this shape can run."""
    return IMAGE_OPERATIONS if len(shape) == 3 else tuple(ACTIVATIONS)


def fits(source: Shape, target: Shape) -> bool:
    """Whether a shortcut can lead from an output of one shape to that of another: images must have
    sizes of which one divides the other, sequences the same length.
    """
    if len(source) != len(target):
        return False
    if len(source) != 3:
        return source[:-1] == target[:-1]
    return stride_between(source, target) is not None


def stride_between(source: Shape, target: Shape) -> int | None:
    """The stride that leads from images of one shape to those of another; ``None``: none does."""
    strides = {-(-s // t) for s, t in zip(source[1:], target[1:], strict=True)}
    (stride,) = strides if len(strides) == 1 else (0,)
    sizes = tuple(-(-s // stride) for s in source[1:]) if stride else ()
    return stride if sizes == target[1:] else None


class Shortcut(nn.Module):
    """One operation, from features of the shape ``source`` to those of the shape ``target``.

    Where the two differ, a 1×1 convolution comes first. The output of every shortcut is normalised,
    so that the weights of candidates can be compared; the paper leaves that to the operation.
    """

    def __init__(self, operation: str, source: Shape, target: Shape, affine: bool):
        super().__init__()
        self.identity = operation in ("skip_connect", "identity")
        if len(target) != 3:
            self.body: nn.Module = nn.Sequential(
                Gated(source[-1], target[-1], ACTIVATIONS[operation]()),
                nn.LayerNorm(target[-1], elementwise_affine=affine),
            )
            return
        channels, stride = target[0], stride_between(source, target)
        assert stride is not None
        before: list[nn.Module] = []
        if source != target:
            before = [ReLUConvBN(source[0], channels, stride=stride, affine=affine)]
        run = OPERATIONS[operation](channels, 1, affine, True)
        after = [nn.BatchNorm2d(channels, affine=affine)] if operation == "skip_connect" else []
        self.body = nn.Sequential(*before, run, *after)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def projection(kept: int, target: Shape, affine: bool) -> nn.Module:
    """From ``kept`` concatenated outputs to one."""
    size = target[0] if len(target) == 3 else target[-1]
    if len(target) == 3:
        return nn.Sequential(
            nn.Conv2d(kept * size, size, 1, bias=False), nn.BatchNorm2d(size, affine=affine)
        )
    return nn.Sequential(
        nn.Linear(kept * size, size, bias=False), nn.LayerNorm(size, elementwise_affine=affine)
    )


class Addition(nn.Module):
    """Kept shortcuts, concatenated and projected. ``sources`` holds the name of each shortcut, and
    that of the module whose output it reads.

    The gate begins at zero, so that a network at first computes what it computed without the
    addition.
    """

    def __init__(
        self,
        sources: Mapping[str, str],
        shapes: Mapping[str, Shape],
        target: Shape,
        affine: bool,
    ):
        super().__init__()
        self.sources = dict(sources)
        self.shortcuts = nn.ModuleDict(
            {
                name: Shortcut(operation_of(name), shapes[source], target, affine)
                for name, source in sources.items()
            }
        )
        self.axis = 1 if len(target) == 3 else -1
        self.projection = projection(len(sources), target, affine)
        self.gate = nn.Parameter(torch.zeros(()))
        self.drop_path = DropPath()

    def forward(self, seen: dict[str, Tensor]) -> Tensor:
        outputs = []
        for name, shortcut in self.shortcuts.items():
            out = shortcut(seen[self.sources[name]])
            outputs.append(out if shortcut.identity else self.drop_path(out))
        return self.projection(torch.cat(outputs, dim=self.axis))


class Grown(nn.Module):
    """``network`` with additions.

    ``additions`` holds those of each target, in the order in which they were made. A later addition
    can read an earlier one at the same target: it is called TARGET+0, TARGET+1, ...

    ``auxiliary`` is a second head for training only, which reads what the module ``aside`` returns.
    """

    def __init__(
        self,
        network: nn.Module,
        additions: Mapping[str, Sequence[nn.Module]],
        aside: str = "",
        auxiliary: nn.Module | None = None,
    ):
        super().__init__()
        self.network, self.targets = network, list(additions)
        self.aside, self.auxiliary = aside, auxiliary
        self.additions = nn.ModuleDict(
            {key(target): nn.ModuleList(found) for target, found in additions.items()}
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_with_auxiliary(x)[0]

    def forward_with_auxiliary(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The outputs, and those of the auxiliary head in training if there is one."""
        seen: dict[str, Tensor] = {}
        with self.watched(seen, self.grown):
            out = self.network(x)
        if not self.training or self.auxiliary is None:
            return out, None
        return out, self.auxiliary(seen[self.aside])

    def read(self) -> set[str]:
        """The names of all outputs that additions and the auxiliary head read."""
        made = [one for target in self.targets for one in self.at(target)]
        found = {source for addition in made for source in addition.sources.values()}
        return found if self.auxiliary is None else found | {self.aside}

    def at(self, target: str) -> list["Addition"]:
        """The additions at a target."""
        return list(cast(Any, self.additions[key(target)]))

    def grown(self, target: str, out: Tensor, seen: dict[str, Tensor]) -> Tensor:
        """The output of a target, with what is added to it."""
        for number, addition in enumerate(self.at(target)):
            added = addition(seen)
            seen[f"{target}+{number}"] = added
            out = out + addition.gate * added
        return out

    @contextmanager
    def watched(
        self,
        seen: dict[str, Tensor],
        end: Callable[[str, Tensor, dict[str, Tensor]], Tensor],
    ) -> Iterator[None]:
        """A context in which the network's modules put their outputs into ``seen``, and ``end``
        says what the targets return. It holds for calls of the present thread.
        """
        owner, handles = threading.get_ident(), []

        def hook(name: str) -> Callable[..., Tensor | None]:
            def look(module: nn.Module, inputs: Any, out: Tensor) -> Tensor | None:
                if threading.get_ident() != owner:
                    return None
                seen[name] = end(name, out, seen) if name in self.targets else out
                return seen[name]

            return look

        try:
            for name in sorted(self.read() | set(self.targets)):
                if "+" not in name:
                    module = self.network.get_submodule(name)
                    handles.append(module.register_forward_hook(hook(name)))
            yield
        finally:
            for handle in handles:
                handle.remove()


class Beside(torch.autograd.Function):
    """Returns the first tensor. In the backward pass, the second one gets the same gradient,
    multiplied by ``scale``.

    This is the paper's stop-forward: with sf(x) = x - sg(x), it is ``out + sf(x)``.
    Here the sum is not computed, so that the output keeps its bits.
    """

    @staticmethod
    def forward(out: Tensor, beside: Tensor, scale: float) -> Tensor:
        return out.view_as(out)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.scale = inputs[2]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        return gradient, gradient * ctx.scale, None


class Growing(Grown):
    """A network with candidates for its next addition: the supernet of a growing space.

    ``candidates`` holds, for each target, its place (the choice group that its candidates belong
    to), and the source of each candidate. A mixture says of each place which candidates run, and
    their weights omega. The sum over the candidates of ``omega * shortcut(sg(x))`` stands beside
    the output of the target (:class:`Beside`); sg(x) is the source without its gradient.
    """

    task: Task  # the task that it was built for

    def __init__(
        self,
        network: nn.Module,
        additions: Mapping[str, Sequence[nn.Module]],
        candidates: Mapping[str, tuple[str, Mapping[str, str]]],
        shapes: Mapping[str, Shape],
        affine: bool,
        scale: float,
    ):
        super().__init__(network, {name: additions.get(name, ()) for name in candidates})
        self.scale = scale
        self.places = {target: place for target, (place, _) in candidates.items()}
        self.sources = {target: dict(sources) for target, (_, sources) in candidates.items()}
        self.candidates = nn.ModuleDict(
            {
                key(target): nn.ModuleDict(
                    {
                        name: Shortcut(operation_of(name), shapes[source], shapes[target], affine)
                        for name, source in sources.items()
                    }
                )
                for target, (_, sources) in candidates.items()
            }
        )
        self.apart = list(self.candidates.parameters())  # their norm is clipped by itself

    def read(self) -> set[str]:
        candidates = [source for one in self.sources.values() for source in one.values()]
        return super().read() | set(candidates)

    def forward(self, x: Tensor, mixture: Mixture) -> Tensor:  # type: ignore[override]
        seen: dict[str, Tensor] = {}

        def end(target: str, out: Tensor, seen: dict[str, Tensor]) -> Tensor:
            out = self.grown(target, out, seen)
            if not (self.training or torch.is_grad_enabled()):
                return out  # candidates change nothing
            total = candidate_sum(self, target, seen, mixture)
            return out if total is None else Beside.apply(out, total, self.scale)

        with self.watched(seen, end):
            return self.network(x)


def candidate_sum(
    network: Growing, target: str, seen: Mapping[str, Tensor], mixture: Mixture
) -> Tensor | None:
    """The weighted sum of the active candidates at a target. ``seen`` are the outputs of their
    sources, which get no gradient.
    """
    choice, total = mixture[network.places[target]], None
    shortcuts = list(cast(nn.ModuleDict, network.candidates[key(target)]).items())
    for number in choice.active[0]:
        name, shortcut = shortcuts[number]
        candidate = shortcut(seen[network.sources[target][name]].detach())
        if choice.weights is not None:
            candidate = candidate * choice.weights[0, number]
        total = candidate if total is None else total + candidate
    return total


def key(target: str) -> str:
    """The name of a target in the names of tensors. It holds no dot."""
    return target.replace(".", "-")


def operation_of(name: str) -> str:
    """The operation of a shortcut called OPERATION@ROLE."""
    return name.partition("@")[0]


def shapes_of(network: nn.Module, example: Tensor) -> dict[str, Shape]:
    """The shape of the output of every module that returns one tensor, in the order of the calls.

    Raises:
        UserError: the network cannot be called with ``example``.
    """
    found: dict[str, Shape] = {}

    def hook(name: str) -> Callable[..., None]:
        def look(module: nn.Module, inputs: Any, out: Any) -> None:
            if isinstance(out, Tensor):
                found[name] = tuple(out.shape[1:])

        return look

    handles = [m.register_forward_hook(hook(name)) for name, m in network.named_modules() if name]
    try:
        with torch.no_grad():
            network(example)
    except Exception as error:
        raise UserError(
            f"the network that is to grow cannot be called with inputs {tuple(example.shape)}: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return found
