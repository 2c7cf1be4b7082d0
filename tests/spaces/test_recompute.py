"""Activations that are computed again in the backward pass: the bits are the same as with kept
activations, and fewer are kept.
"""

import contextlib
import copy

import pytest
import torch
from torch.nn import functional as F

from supernet.mixture import softmax_mixture
from supernet.spaces.space import set_recompute
from tests.tasks import task_of
from tests.variants import cells_alone


def both(space):
    """A supernet that keeps its activations, and a copy that computes them again."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        keeps = space.supernet(task_of(3, 2))
    again = copy.deepcopy(keeps)
    set_recompute(again)
    return keeps, again


def step(supernet, space, precision="float32", create_graph=False):
    """The loss and its gradients in logits and weights; with ``create_graph``, also the gradients
    of the sum of their squares. And the bytes that are kept.
    """
    noise = torch.Generator().manual_seed(0)
    logits = {g.name: torch.randn(g.shape, generator=noise).requires_grad_() for g in space.groups}
    images, asked, kept = (
        torch.randn(4, 2, 8, 8, generator=noise),
        [*logits.values(), *supernet.parameters()],
        {},
    )

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    autocast = (
        torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    )
    with autocast:  # also around the backward pass, as learners do
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = F.cross_entropy(supernet(images, softmax_mixture(logits)), torch.arange(4) % 3)
        gradients = torch.autograd.grad(
            loss, asked, create_graph=create_graph, materialize_grads=True
        )
        if create_graph:
            squares = sum(gradient.square().sum() for gradient in gradients)
            gradients += torch.autograd.grad(squares, asked, materialize_grads=True)
    return [loss, *gradients], sum(kept.values())


@cells_alone
@pytest.mark.parametrize("create_graph", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("native", [True, False], ids=["C", "torch"])
def test_gradients_and_statistics_have_the_same_bits(
    space, native, precision, create_graph, monkeypatch
):
    if not native:
        monkeypatch.setattr("supernet.ops.fast.native.library", lambda: None)
    keeps, again = both(space)
    (expected, more), (actual, less) = (
        step(supernet, space, precision, create_graph) for supernet in (keeps, again)
    )
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    assert keeps.state_dict().keys() == again.state_dict().keys()
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.state_dict().values(), keeps.state_dict().values(), strict=True)
    )
    assert less < more


@cells_alone
def test_it_can_be_asked_for_between_two_steps(space):
    _, again = both(space)
    _, less = step(again, space)
    set_recompute(again, False)
    assert step(again, space)[1] > less
