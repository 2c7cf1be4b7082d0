"""What is wrong with a module, in one line each. It is found by a few forward passes."""

from collections.abc import Iterator
from textwrap import shorten
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from supernet.errors import UserError
from supernet.mixture import Architecture
from supernet.spaces.declared.costs import Shapes
from supernet.task import Task

if TYPE_CHECKING:
    from supernet.spaces.declared.space import Declared


def faults(space: "Declared", task: Task, batch: int) -> Iterator[str]:
    """Yields what is wrong, if networks are trained on ``batch`` inputs of a task at once.

    The architectures that are tried have, together, every option of every decision: once with the
    first options of the other decisions, and once with the last.
    """
    tried = list(dict.fromkeys(around(space)))
    read: set[str] = set()
    for architecture in tried:
        if wrong := misfit(space, architecture, task, read):
            yield wrong
            return
    for name in space.decisions:
        if name not in read:
            yield f"the choice {name!r} is never read: call it in a forward, or leave it out"
    yield from untrained(space, tried, task, batch)
    yield from random_evaluation(space, tried[:1] + tried[-1:], task)


def around(space: "Declared") -> Iterator[Architecture]:
    """Architectures with the first (the last) option everywhere, except in one decision."""
    for end in (0, -1):
        anchor = space.express([gene.values[end] for gene in space.genes])
        yield anchor
        yield from space.neighbours(anchor)


def misfit(space: "Declared", architecture: Architecture, task: Task, read: set[str]) -> str | None:
    """What is wrong with the shapes of an architecture. Adds the decisions that it reads to
    ``read``.
    """
    network, inside = space.shell(task), [""]
    handles = []
    for name, module in network.named_modules():
        handles += [
            module.register_forward_pre_hook(lambda *_, name=name: inside.append(name)),
            module.register_forward_hook(lambda *_: (inside.pop(), None)[1]),
        ]
    text = shorten(space.encode(architecture), 120, placeholder=" ...")
    try:
        with torch.no_grad(), space.on(architecture) as binding, Shapes():
            outputs = network(task.example(2, "meta"))
        read |= binding.decided
    except UserError:
        raise
    except Exception as error:  # any code of anyone
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"shapes do not meet in {inside[-1] or 'forward'} of {text}: {reason}"
    finally:
        for handle in handles:
            handle.remove()
    wanted = task.output_shape
    if wanted is not None and tuple(outputs.shape) != (2, *wanted):
        return (
            f"{text} returns outputs of shape {tuple(outputs.shape)} for two inputs, but the task "
            f"needs {(2, *wanted)}"
        )
    return None


def untrained(
    space: "Declared", architectures: list[Architecture], task: Task, batch: int
) -> Iterator[str]:
    """Yields which BatchNorm sees one value a channel, and else which weights get no gradient."""
    with torch.device("meta"):
        network = space.build(task).train()
    lone: set[str] = set()
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(
                lambda norm, given, name=name: single(norm, given[0], name, lone)
            )
    for architecture in architectures:
        with space.on(architecture):
            try:
                outputs = network(task.example(batch, "meta"))
            except ValueError:
                if not lone:
                    raise
                break
        outputs.float().square().mean().backward()
    for name in sorted(lone):
        yield (
            f"the BatchNorm {name} sees one value a channel in a batch of {batch}: train on larger "
            "batches, or leave it out where images have one pixel"
        )
    if not lone:
        gone = [name for name, weight in network.named_parameters() if weight.grad is None]
        for place in places(network, gone):
            yield f"the weights of {place} never get a gradient: no forward uses them"


def random_evaluation(
    space: "Declared", architectures: list[Architecture], task: Task
) -> Iterator[str]:
    """Yields an architecture whose outputs differ between two calls in evaluation mode."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = space.supernet(task).eval()
        inputs = task.example(2, noise=torch.Generator().manual_seed(0))
        for architecture in architectures:
            path = space.path(architecture)
            if not torch.equal(network(inputs, path), network(inputs, path)):
                yield (
                    f"{space.encode(architecture)} returns other outputs each time in evaluation "
                    "mode: draw random numbers in training mode only"
                )
                return


def single(norm: nn.Module, given: torch.Tensor, name: str, lone: set[str]) -> None:
    if norm.training and given.numel() == given.shape[1]:
        lone.add(name)


def places(network: nn.Module, names: list[str]) -> list[str]:
    """The modules that the parameters belong to, without those inside another one of them."""
    own = [name.rpartition(".")[0] for name in names]
    found = []
    for name in dict.fromkeys(own):
        while name:
            parent = name.rpartition(".")[0]
            inner = [n for n, _ in network.get_submodule(parent).named_parameters(parent)]
            if not parent or not all(one in names for one in inner):
                break
            name = parent
        found.append(name or "the module itself")
    return list(dict.fromkeys(found))
