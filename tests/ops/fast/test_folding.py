"""The small algebra, compared with convolutions and BatchNorms of pixels. Its gradient in C is
compared with torch's in double precision.
"""

import pytest
import torch
from torch.nn import functional as F

from supernet.ops.fast.folding import (
    Folded,
    FoldLayout,
    Moments,
    SmallTensors,
    fold,
    fold_by_torch,
    unfold,
)
from supernet.ops.fast.native import library

# Three full terms, two of which read the same image; two that are only normed; one that is not
# normed. Places, nodes and weights are in mixed order.
FULL, IMAGES, WHOLES, DIAGONALS = 3, [1, 0, 1, 0, 1], 2, 2
TARGETS, NODES, POSITIONS, EPS = [0, 1, 1, 0, 1, 0], 2, [4, 0, 2, 5, 1, 3], 1e-5
SLOTS, PLACES, PIXELS = [3, 0, 4, 1], 5, 7  # SLOTS: the positions of normed images among all
CHANNELS = [1, 4, 16, 23, 64]


def layout(weighted=True):
    positions = POSITIONS if weighted else list(range(len(POSITIONS)))
    return FoldLayout(
        FULL,
        IMAGES,
        WHOLES,
        DIAGONALS,
        TARGETS,
        NODES,
        positions,
        SLOTS,
        PLACES,
        EPS,
        torch.device("cpu"),
    )


def case(channels, affine, weighted, noise):
    """Images [4, pixels, channels] in float64, their moments, and the small tensors."""

    def draw(*shape):
        return torch.randn(*shape, generator=noise, dtype=torch.float64)

    images = draw(WHOLES + DIAGONALS, 3 * channels, channels) + draw(channels)
    second = images[:WHOLES].transpose(1, 2) @ images[:WHOLES] / images.shape[1]
    moments = Moments(second, images[WHOLES:].square().mean(dim=1), images.mean(dim=1))
    norms = [[draw(channels) for _ in IMAGES] for _ in range(2)] if affine else [[], []]
    weights = draw(len(TARGETS)) if weighted else None
    return (
        images,
        moments,
        SmallTensors(weights, [draw(channels, channels, 1, 1) for _ in range(FULL)], *norms),
    )


def flat(small):
    return [small.weights, *small.pointwise, *small.gains, *small.biases]


def single(some):
    """In float32: a tensor, a list of tensors, or ``None``."""
    if isinstance(some, list):
        return [tensor.detach().float() for tensor in some]
    return None if some is None else some.detach().float()


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_parts_do_to_images_what_convolutions_and_norms_do(affine, weighted, noise):
    images, moments, small = case(16, affine, weighted, noise)
    parts, (mean, variance) = fold_by_torch(layout(weighted), moments, small)
    expected = [torch.zeros(images.shape[1:], dtype=torch.float64) for _ in range(NODES)]
    actual = [expected[0] + shift for shift in parts.shifts]
    positions = POSITIONS if weighted else range(len(TARGETS))
    for term, (target, position) in enumerate(zip(TARGETS, positions, strict=True)):
        which = 0 if term >= len(IMAGES) else IMAGES[term] + (0 if term < FULL else WHOLES)
        x = out = images[which]
        if term < FULL:
            out = x @ small.pointwise[term].flatten(1).t()
        if term < len(IMAGES):
            torch.testing.assert_close(mean[term], out.mean(dim=0))
            torch.testing.assert_close(variance[term], out.var(dim=0, correction=0))
            gain, bias = (small.gains[term], small.biases[term]) if affine else (None, None)
            out = F.batch_norm(out, None, None, gain, bias, training=True, eps=EPS)
        expected[target] = expected[target] + out * (small.weights[position] if weighted else 1.0)
        actual[target] = actual[target] + (
            x @ parts.matrices[term] if term < FULL else x * parts.diagonals[term - FULL]
        )
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("channels", CHANNELS)
def test_parts_and_gradients_are_those_of_double_precision(channels, affine, weighted, noise):
    if library() is None:
        pytest.skip("no C compiler here")
    _, moments, small = case(channels, affine, weighted, noise)
    asked = [*moments, *(t for t in flat(small) if t is not None)]
    for tensor in asked:
        tensor.requires_grad_()
    expected, observed = fold_by_torch(layout(weighted), moments, small)
    slopes = Folded(
        *(torch.randn(part.shape, generator=noise, dtype=torch.float64) for part in expected)
    )
    gradients = torch.autograd.grad(expected, asked, slopes)

    found, size = SmallTensors(*map(single, small)), sum(part.numel() for part in expected)
    row = torch.cat([table.detach().flatten() for table in moments]).float()
    parts, seen = fold(layout(weighted), size, row, found, channels)
    for actual, wanted in zip(
        [*split(parts, expected), *seen], [*expected, *observed], strict=True
    ):
        torch.testing.assert_close(actual.double(), wanted, rtol=1e-4, atol=1e-4)

    images = [gradients[0] * 2 / PIXELS, gradients[1] * 2 / PIXELS]
    shifts = torch.zeros(PLACES, channels, dtype=torch.float64).index_add(
        0, torch.tensor(SLOTS), gradients[2] / PIXELS
    )
    back = [expected.matrices.detach().transpose(1, 2).contiguous(), expected.diagonals.detach()]
    begins = [slopes.matrices.transpose(1, 2).contiguous(), slopes.diagonals, slopes.shifts]
    filled = sum(part.numel() for part in [*back, *images, shifts])
    work = torch.cat(
        [*(part.flatten() for part in begins), torch.full((filled,), torch.nan)]
    ).float()
    of_small = unfold(layout(weighted), work, row, found, channels, PIXELS)
    found = [
        *split(work, [*begins, *back, *images, shifts])[3:],
        *(of_small if weighted else of_small[1:]),
    ]
    for actual, wanted in zip(found, [*back, *images, shifts, *gradients[3:]], strict=True):
        size = max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(actual.double() / size, wanted / size, rtol=0, atol=1e-5)


def split(row, parts):
    """``row`` in pieces of the sizes of ``parts``."""
    pieces = row.split([part.numel() for part in parts])
    return [piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True)]
