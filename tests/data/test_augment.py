"""Augmentation of batches is compared with torchvision and numpy, one image at a time, over all
random choices.
"""

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torchvision.transforms import functional as F

from supernet.data import Augment
from supernet.data.augment import pixels
from supernet.errors import UserError


def moved_one_by_one(image, padding, flip):
    """Every result that a random crop, with or without a flip, of one image can have."""
    padded = F.pad(image, [padding] * 4)
    height, width = image.shape[1:]
    for top, left, mirrored in product(
        range(2 * padding + 1), range(2 * padding + 1), (False, True) if flip else (False,)
    ):
        crop = F.crop(padded, top, left, height, width)
        yield (top, left, mirrored), F.hflip(crop) if mirrored else crop


@pytest.mark.parametrize(("padding", "flip"), [(0, True), (1, False), (1, True), (2, True)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_each_image_is_cropped_and_flipped_as_torchvision_would_with_all_draws_equally_likely(
    padding, flip, dtype, noise
):
    images = torch.randint(1, 256, (1500, 2, 5, 7), generator=noise).to(dtype)
    results = Augment(crop_padding=padding, flip=flip).move(images, noise)
    assert results.dtype == dtype
    drawn = Counter()
    for image, result in zip(images, results, strict=True):
        matches = [
            draw
            for draw, possible in moved_one_by_one(image, padding, flip)
            if torch.equal(possible, result)
        ]
        assert len(matches) == 1
        drawn[matches[0]] += 1
    possible = (2 * padding + 1) ** 2 * (2 if flip else 1)
    assert len(drawn) == possible
    assert chisquare(list(drawn.values())).pvalue > 1e-3


def square_blanked(height, width, row, column, side):
    """The mask of DeVries & Taylor: a square with its centre in the image, cut at the border."""
    mask = np.ones((height, width))
    top, left = row - side // 2, column - side // 2
    mask[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = 0
    return mask.tobytes()


@pytest.mark.parametrize("side", [3, 4])
def test_cutout_blanks_a_clipped_square_around_a_centre_anywhere_in_the_image(side, noise):
    height, width = 6, 7
    images = torch.ones(2000, 3, height, width)
    results = Augment(cutout=side).erase(images, noise).double().numpy()
    assert (results == results[:, :1]).all(), "all channels of an image share its square"
    masks = {
        square_blanked(height, width, r, c, side): (r, c)
        for r in range(height)
        for c in range(width)
    }
    assert len(masks) == height * width
    drawn = Counter(masks[result[0].tobytes()] for result in results)
    assert len(drawn) == height * width
    assert chisquare(list(drawn.values())).pvalue > 1e-3
    assert images.min() == 1, "the input is left as it was"


def test_what_is_off_changes_nothing_and_draws_nothing(noise):
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    before = noise.get_state()
    assert Augment().move(images, noise) is images
    assert Augment().erase(images, noise) is images
    assert torch.equal(noise.get_state(), before)


def test_settings_out_of_range_are_one_line_that_names_them():
    for setting in ("crop_padding", "cutout"):
        with pytest.raises(UserError, match=f"^augment: {setting}=-1; must be 0 .* or more$"):
            Augment(**{setting: -1})
        with pytest.raises(
            UserError,
            match=f"^augment: {setting}=8 is too large for images of 8×9 pixels; choose at most 7$",
        ):
            Augment(**{setting: 8}).check((8, 9))
        Augment(**{setting: 7}).check((8, 9))


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 32), (64, 48), (224, 224), (8, 224)])
@pytest.mark.parametrize("share", [0.125, 0.25, 0.5, 0.07])
def test_a_share_is_that_many_pixels_of_the_shorter_side(size, share):
    """A share gives the same bits as the length in pixels."""
    images = torch.randint(0, 256, (3, 2, *size), dtype=torch.uint8)
    length = round(share * min(size))
    for setting in ("crop_padding", "cutout"):
        found = []
        for value in (share, length):
            noise = torch.Generator().manual_seed(0)
            augment = Augment(**{setting: value})
            augment.check(size)
            found.append(augment.erase(augment.move(images, noise).float(), noise))
        assert torch.equal(*found)


def test_the_share_of_the_folders_is_the_padding_of_the_papers():
    """DARTS pads CIFAR's 32 pixels by 4; 224 pixels have been padded by 28 here."""
    assert [pixels(0.125, (side, side)) for side in (32, 224, 64, 8)] == [4, 28, 8, 1]


@pytest.mark.parametrize("value", [1.5, -0.1, float("inf"), float("nan")])
def test_a_length_is_a_share_or_whole_pixels(value):
    for setting in ("crop_padding", "cutout"):
        with pytest.raises(UserError, match=f"^augment: {setting}="):
            Augment(**{setting: value})
