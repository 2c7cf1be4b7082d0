"""The compiled sums of products, compared with torch's in double precision."""

import pytest
import torch

from tests.ops.fast.sums import Sum, compiled, grams, products

pytestmark = compiled
SHAPES = [
    (4, 3),
    (8, 33),
    (7, 300),
    (16, 1000),
    (1, 77),
    (21, 77),
    (32, 513),
    (48, 9),
    (64, 260),
    (64, 95),
]  # channels; pixels
TYPES = torch.float32, torch.bfloat16


def case(channels, pixels, noise, dtype=torch.float32):
    """Rows, and two sums of them. One has a start, a matrix and a diagonal. The other has no start
    and two matrices.

    The matrices have values that are exact in ``dtype``, the type of the rows.
    """

    def draw(*shape):
        return torch.randn(*shape, generator=noise)

    rows = [draw(pixels, channels).to(dtype) for _ in range(4)]
    shapes = (channels, channels), (channels,), (channels, channels), (channels, channels)
    matrices = [draw(*shape).to(dtype).float() for shape in shapes]
    terms = list(zip(rows, matrices, strict=True))
    return rows, [
        Sum(draw(channels), terms[:2], draw(pixels, channels)),
        Sum(draw(channels), terms[2:]),
    ]


def in_double(one: Sum) -> torch.Tensor:
    total = one.shift.double().expand_as(one.terms[0][0]) + (
        0 if one.start is None else one.start.double()
    )
    for rows, matrix in one.terms:
        total = total + rows.double() @ (matrix.diag() if matrix.dim() == 1 else matrix).double()
    return total


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("channels", "pixels"), SHAPES)
def test_products_are_those_of_double_precision(channels, pixels, dtype, noise):
    _, sums = case(channels, pixels, noise, dtype)
    for actual, short, one in zip(
        products(sums), products(sums, torch.bfloat16), sums, strict=True
    ):
        torch.testing.assert_close(actual.double(), in_double(one), rtol=1e-4, atol=1e-4)
        assert torch.equal(short, actual.bfloat16())


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("channels", "pixels"), SHAPES)
def test_grams_are_those_of_double_precision(channels, pixels, dtype, noise):
    rows, _ = case(channels, pixels, noise, dtype)
    pairs = [(rows[0], rows[1]), (rows[1], rows[2]), (rows[2], rows[3]), (None, rows[3])]
    first, second, diagonal, sums = grams(pairs, ["full", "full", "diagonal", "sum"], factor=0.5)
    doubles = [part.double() for part in rows]
    close = dict(rtol=1e-4, atol=1e-4 * pixels**0.5)
    torch.testing.assert_close(first.double(), doubles[0].t() @ doubles[1] / 2, **close)
    torch.testing.assert_close(second.double(), doubles[1].t() @ doubles[2] / 2, **close)
    torch.testing.assert_close(diagonal.double(), (doubles[2] * doubles[3]).sum(dim=0) / 2, **close)
    torch.testing.assert_close(sums.double(), doubles[3].sum(dim=0) / 2, **close)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_no_number_stays_none(dtype, noise):
    rows, sums = case(16, 100, noise, dtype)
    rows[2][70, 3] = float("nan")
    for result in (products(sums[1:])[0], products(sums[1:], torch.bfloat16)[0]):
        assert result[70].isnan().all() and result.isnan().sum() == 16
    assert grams([(rows[2], rows[1]), (None, rows[2])], ["full", "sum"])[1].isnan().sum() == 1


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_bits_do_not_depend_on_the_number_of_threads(dtype, noise):
    rows, sums = case(16, 1000, noise, dtype)
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(
                [
                    *products(sums),
                    *grams(
                        [(rows[0], rows[k]) for k in range(4)] + [(None, rows[2])],
                        ["full"] * 4 + ["sum"],
                    ),
                ]
            )
    finally:
        torch.set_num_threads(threads)
    assert all(
        torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True)
    )
