"""The fast supernets take the same step as a plain reference, which is written like the papers
(``tests/textbook.py``).
"""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from supernet.mixture import Choice, softmax_mixture
from supernet.spaces.cells import Geometry
from supernet.spaces.darts import Darts
from tests.tasks import task_of
from tests.textbook import copy_weights, places, run, textbook
from tests.variants import SPACES, cells_alone

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


def pair(space, dtype=torch.float32, seed=0):
    """A supernet and its reference, with equal weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        supernet = space.supernet(task_of(3, 2)).to(dtype)
    reference = textbook(space, 3, 2).to(dtype)
    copy_weights(supernet, reference)
    return supernet, reference


def logits_of(space, noise, dtype=torch.float32):
    return {
        g.name: torch.randn(g.shape, generator=noise, dtype=dtype).requires_grad_()
        for g in space.groups
    }


def partly(table: torch.Tensor) -> Choice:
    """Two options of every slot, which differ from slot to slot."""
    slots, options = table.shape
    return Choice(
        tuple(tuple(sorted({slot % options, (2 * slot + 1) % options})) for slot in range(slots)),
        table,
    )


MIXTURES = {
    "dense": lambda space, logits: softmax_mixture(logits),
    "partly": lambda space, logits: {name: partly(table) for name, table in logits.items()},
    "path": lambda space, logits: space.path(space.random(np.random.default_rng(0))),
}


def assert_close(actual, expected, tolerance):
    """The norm of the difference is at most ``tolerance`` of the norm of all."""
    off = torch.stack(
        [(a.double() - e.double()).square().sum() for a, e in zip(actual, expected, strict=True)]
    ).sum()
    whole = torch.stack([e.double().square().sum() for e in expected]).sum()
    assert whole > 0
    assert (off / whole).sqrt() <= tolerance


# images of 12, 6 and 3 pixels a side: odd in the last cells
@cells_alone
@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 8), (torch.float64, 12)], ids=str)
@pytest.mark.parametrize("mixture", MIXTURES)
def test_loss_gradients_and_statistics_are_the_textbooks(space, mixture, size, dtype, noise):
    supernet, reference = pair(space, dtype)
    before = copy.deepcopy(supernet.state_dict())
    images, labels = (
        torch.randn(6, 2, size, size, generator=noise, dtype=dtype),
        torch.arange(6) % 3,
    )
    logits = logits_of(space, noise, dtype)
    chosen = MIXTURES[mixture](space, logits)
    asked = [table for name, table in logits.items() if chosen[name].weights is not None]
    ours = F.cross_entropy(supernet(images, chosen), labels)
    theirs = F.cross_entropy(run(reference, images, MIXTURES[mixture](space, logits)), labels)

    def gradients(loss, network):
        return torch.autograd.grad(
            loss, [*asked, *network.parameters()], allow_unused=True, materialize_grads=True
        )

    actual, expected = gradients(ours, supernet), gradients(theirs, reference)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=0)
    if asked:
        assert_close(actual[: len(asked)], expected[: len(asked)], tolerance)
    assert_close(actual[len(asked) :], expected[len(asked) :], tolerance)
    # On a path, the textbook runs options that are not active too, which changes their statistics.
    if mixture != "path":
        after, reference_after = supernet.state_dict(), reference.state_dict()
        for mine, other in places(supernet, reference):
            if mixture == "dense" or not torch.equal(after[mine], before[mine]):
                torch.testing.assert_close(
                    after[mine], reference_after[other], rtol=tolerance, atol=tolerance
                )


def curve(kind: str, dtype: torch.dtype, order: int = 0) -> np.ndarray:
    """The losses of 100 steps of the supernet or of the textbook. ``order`` is the order of the
    images within the batches.
    """
    space = SPACES["nb201"]()  # DARTS uses the same code, and takes ten times as long
    network = pair(space, dtype)[kind == "textbook"]
    draw, shuffle = torch.Generator().manual_seed(1), torch.Generator().manual_seed(order)
    images, labels = torch.randn(12, 2, 8, 8, generator=draw).to(dtype), torch.arange(12) % 3
    logits = {g.name: torch.zeros(g.shape, dtype=dtype, requires_grad=True) for g in space.groups}
    optimizer = torch.optim.SGD([*network.parameters(), *logits.values()], lr=0.02, momentum=0.9)
    losses = []
    for _ in range(100):
        some = torch.randperm(12, generator=draw)[:6]
        some = some[torch.randperm(6, generator=shuffle)] if order else some
        chosen = softmax_mixture(logits)
        out = (
            network(images[some], chosen) if kind == "ours" else run(network, images[some], chosen)
        )
        loss = F.cross_entropy(out, labels[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return np.array(losses)


def test_a_hundred_steps_follow_the_textbooks_curve():
    """In float64, the curves are equal to the last digits. In float32, the supernet leaves the
    exact curve no further than the textbook does, on average over orders of the same images. Only
    means can be compared: a rectified zero that rounds to the other side is a jump in both curves.
    """
    exact = curve("textbook", torch.float64)
    assert exact[-10:].mean() < exact[:10].mean()  # there is something to learn
    assert np.abs(curve("ours", torch.float64) - exact).max() < 1e-9

    def apart(kind: str) -> np.ndarray:
        return np.array(
            [np.abs(curve(kind, torch.float32, order) - exact).mean() for order in range(3)]
        )

    assert apart("ours").mean() <= 5 * apart("textbook").mean()


def test_the_textbook_is_no_straw_man():
    """It has the 1.93 million weights of the paper's search network. No weight is in it twice. The
    supernet's weights can be read back from it.
    """
    space = Darts(Geometry(16, 8), Geometry(16, 8))
    reference = textbook(space)
    assert round(sum(p.numel() for p in reference.parameters()) / 1e6, 2) == 1.93
    supernet = space.supernet(task_of(10, 3))
    copy_weights(supernet, reference, back=True)
    theirs, ours = reference.state_dict(), supernet.state_dict()
    assert all(
        torch.equal(ours[mine], theirs[other]) for mine, other in places(supernet, reference)
    )
