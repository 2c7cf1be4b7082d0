"""The compiled sums of products against the same in torch's double precision."""

import pytest
import torch

from supernet.ops.native import library
from supernet.ops.rows import Sum, grams, products

pytestmark = pytest.mark.skipif(library() is None, reason="no C compiler here")
SHAPES = [(4, 3), (12, 300), (16, 1000), (20, 77), (32, 513), (48, 9), (64, 260)]  # channels; pixels: whole blocks and rests


def case(channels, pixels, noise):
    """Rows, and two sums of them: one with a start, of a matrix and a diagonal, the other without, of two matrices."""

    def draw(*shape):
        return torch.randn(*shape, generator=noise)

    rows = [draw(pixels, channels) for _ in range(4)]
    matrices = [draw(channels, channels), draw(channels), draw(channels, channels), draw(channels, channels)]
    terms = list(zip(rows, matrices, strict=True))
    return rows, [Sum(draw(channels), terms[:2], draw(pixels, channels)), Sum(draw(channels), terms[2:])]


def in_double(one: Sum) -> torch.Tensor:
    total = one.shift.double().expand_as(one.terms[0][0]) + (0 if one.start is None else one.start.double())
    for rows, matrix in one.terms:
        total = total + rows.double() @ (matrix.diag() if matrix.dim() == 1 else matrix).double()
    return total


@pytest.mark.parametrize(("channels", "pixels"), SHAPES)
def test_products_are_those_of_double_precision(channels, pixels, noise):
    _, sums = case(channels, pixels, noise)
    places = torch.full((2, pixels, channels), torch.nan)
    given = products(sums, places.unbind())
    for fresh, own, place, one in zip(products(sums), given, places, sums, strict=True):
        assert torch.equal(fresh, place) and own.data_ptr() == place.data_ptr()
        torch.testing.assert_close(fresh.double(), in_double(one), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "pixels"), SHAPES)
def test_grams_are_those_of_double_precision(channels, pixels, noise):
    rows, _ = case(channels, pixels, noise)
    full, diagonal, sums = grams(rows[0], [(rows[0], rows[1]), (rows[1], rows[2]), (rows[2], rows[3]), (None, rows[3])], 2, 1)
    doubles = [part.double() for part in rows]
    close = dict(rtol=1e-4, atol=1e-4 * pixels**0.5)
    torch.testing.assert_close(full[0].double(), doubles[0].t() @ doubles[1], **close)
    torch.testing.assert_close(full[1].double(), doubles[1].t() @ doubles[2], **close)
    torch.testing.assert_close(diagonal[0].double(), (doubles[2] * doubles[3]).sum(dim=0), **close)
    torch.testing.assert_close(sums[0].double(), doubles[3].sum(dim=0), **close)
    assert [len(part) for part in (full, diagonal, sums)] == [2, 1, 1]


def test_bits_do_not_depend_on_the_number_of_threads(noise):
    rows, sums = case(16, 1000, noise)
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append([*products(sums), *grams(rows[0], [(rows[0], rows[1]), (None, rows[2])], 1, 0)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
