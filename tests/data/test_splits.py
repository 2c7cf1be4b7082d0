"""Splits are disjoint, complete and seeded, and divide every class in the right proportion to
within one image.
"""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from supernet.data import split
from supernet.data.splits import apportion
from supernet.errors import UserError


def host(seed=0):
    return np.random.default_rng(seed)


def labels_of(*counts):
    return torch.from_numpy(host(7).permutation(np.repeat(np.arange(len(counts)), counts)))


def test_balanced_classes_are_divided_exactly():
    labels = labels_of(50, 50, 50, 50)
    parts = split(labels, 0.7, host())
    assert labels[parts.weights].bincount().tolist() == [35] * 4
    assert labels[parts.architecture].bincount().tolist() == [15] * 4
    limited = split(labels, 0.5, host(), limit=40)
    assert (
        labels[limited.weights].bincount().tolist()
        == labels[limited.architecture].bincount().tolist()
        == [5] * 4
    )


def test_the_counts_agree_with_sklearn_where_the_shares_are_whole():
    labels = labels_of(80, 40, 20)
    parts = split(labels, 0.75, host())
    theirs = train_test_split(labels.numpy(), train_size=0.75, stratify=labels, random_state=0)
    assert labels[parts.weights].bincount().tolist() == np.bincount(theirs[0]).tolist()
    assert labels[parts.architecture].bincount().tolist() == np.bincount(theirs[1]).tolist()


@given(
    counts=st.lists(st.integers(8, 40), min_size=2, max_size=6),
    share=st.floats(0.3, 0.7),
    used=st.none() | st.floats(0.7, 1),
    seed=st.integers(0, 1000),
)
def test_the_parts_are_disjoint_cover_and_keep_the_proportions(counts, share, used, seed):
    labels = labels_of(*counts)
    limit = None if used is None else round(used * len(labels))
    parts = split(labels, share, host(seed), limit=limit)
    both = torch.cat([parts.weights, parts.architecture])
    assert len(both.unique()) == len(both) == (limit or len(labels))
    assert len(parts.weights) == round(share * len(both))
    for label, count in enumerate(counts):
        quota = (labels[both] == label).sum()
        assert abs(quota - count * len(both) / len(labels)) < 1
        assert (
            abs((labels[parts.weights] == label).sum() - quota * len(parts.weights) / len(both)) < 1
        )


@given(
    counts=st.lists(st.integers(0, 10**6), min_size=1, max_size=8).filter(any),
    share=st.fractions(0, 1),
)
def test_apportioned_counts_sum_up_and_stay_within_one_of_their_share(counts, share):
    total = int(share * sum(counts))
    result = apportion(np.array(counts), total).tolist()
    assert sum(result) == total
    assert all(
        abs(r - Fraction(c * total, sum(counts))) < 1 for r, c in zip(result, counts, strict=True)
    )


def test_a_seed_gives_one_split_and_another_seed_another_in_mixed_order():
    labels = labels_of(100, 100)
    first, again, other = (
        split(labels, 0.5, host(1)),
        split(labels, 0.5, host(1)),
        split(labels, 0.5, host(2)),
    )
    assert torch.equal(first.weights, again.weights) and torch.equal(
        first.architecture, again.architecture
    )
    assert set(first.weights.tolist()) != set(other.weights.tolist())
    # BatchNorm is recalibrated on the first few images, which must therefore represent all of them,
    # even if the file is sorted by class.
    start = labels.sort().values[split(labels.sort().values, 0.5, host()).weights[:50]].bincount()
    assert start.min() > 10


@pytest.mark.parametrize(
    ("counts", "share", "limit", "line"),
    [
        (
            (10, 1),
            0.5,
            None,
            "the class ant has one image, but needs one in the split for the weights",
        ),
        (
            (50, 2),
            0.5,
            10,
            "the class ant has no image of data.train_limit=10, but needs one in the split for the",
        ),
        (
            (10, 10),
            1.0,
            None,
            "the split for the weights has a share of 1; must lie between 0 and 1",
        ),
        ((10, 10), 0.5, 0, "data.train_limit=0: there are 20 training images"),
        ((10, 10), 0.5, 21, "data.train_limit=21: there are 20 training images"),
    ],
)
def test_what_cannot_be_split_is_one_line(counts, share, limit, line):
    with pytest.raises(UserError, match=line) as caught:
        split(labels_of(*counts), share, host(), limit=limit, names=["bee", "ant"])
    assert "\n" not in str(caught.value)
