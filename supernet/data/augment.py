"""Random crop, flip and cutout of whole batches, on the device that holds the batch."""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from supernet.errors import UserError


@dataclass(frozen=True)
class Augment:
    """How training images are changed at random. Each image of a batch gets its own random values.

    A length below 1 is a share of the shorter side of the images, rounded to whole pixels: 0.125
    is 4 of 32 pixels and 28 of 224. Any other length is in pixels.

    Attributes:
        crop_padding: how many pixels of zeros are added on each side of an image, before a crop of
            the original size is cut out at a random place.
        flip: whether each image is mirrored left to right with probability 1/2.
        cutout: the side of a square that is set to zero at a random place. Its centre
            lies in the image, so the border may clip it (DeVries & Taylor 2017).
    """

    crop_padding: float = 0
    flip: bool = False
    cutout: float = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < math.inf:
                raise UserError(f"augment: {field.name}={value:g}; must be 0 (off) or more")
            if value >= 1 and value != int(value):
                raise UserError(
                    f"augment: {field.name}={value:g}; must be a whole number of pixels, or a "
                    "share of the image below 1"
                )

    def check(self, size: tuple[int, int], where: str = "augment") -> None:
        """Raises a UserError if images of ``size`` (height, width) are too small for these
        settings, so that a crop could hold only padding or a cutout could cover the whole image.
        ``where`` is the full name of these settings.
        """
        for name in ("crop_padding", "cutout"):
            if pixels(getattr(self, name), size) >= min(size):
                raise UserError(
                    f"{where}: {name}={getattr(self, name):g} is too large for images of "
                    f"{size[0]}×{size[1]} pixels; choose at most {min(size) - 1}"
                )

    def move(self, images: Tensor, noise: torch.Generator) -> Tensor:
        """Crops and flips a batch [B, C, H, W] of raw pixels, of any dtype. The generator ``noise``
        is on the device of the batch.
        """
        if not self.crop_padding and not self.flip:
            return images
        count, channels, height, width = images.shape
        pad, device = pixels(self.crop_padding, (height, width)), images.device
        columns = torch.arange(width, device=device).expand(count, width)
        top = left = torch.zeros((), dtype=torch.int64, device=device)
        if self.flip:
            mirrored = torch.rand(count, 1, generator=noise, device=device) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        if pad:
            top, left = torch.randint(0, 2 * pad + 1, (2, count, 1), generator=noise, device=device)
        rows = torch.arange(height, device=device) + top
        # One gather both crops and flips. ``places`` are indices into the flattened padded image;
        # they are the same for all channels.
        places = (
            rows.expand(count, height)[:, :, None] * (width + 2 * pad)
            + (columns + left)[:, None, :]
        ).view(count, 1, -1)
        padded = F.pad(images, (pad, pad, pad, pad)).flatten(2)
        return padded.gather(2, places.expand(count, channels, -1)).view_as(images)

    def erase(self, images: Tensor, noise: torch.Generator) -> Tensor:
        """Sets a square of each image in a normalised batch [B, C, H, W] to 0, the mean colour."""
        if not self.cutout:
            return images
        count, _, height, width = images.shape
        side, hidden = pixels(self.cutout, (height, width)), []
        for length in (height, width):
            centre = torch.randint(0, length, (count, 1), generator=noise, device=images.device)
            offset = torch.arange(length, device=images.device) - centre + side // 2
            hidden.append((offset >= 0) & (offset < side))
        return images.masked_fill((hidden[0][:, :, None] & hidden[1][:, None, :])[:, None], 0)


def pixels(length: float, size: tuple[int, int]) -> int:
    """A length in pixels, for images of ``size`` (height, width). Below 1 it is a share of the
    shorter side.
    """
    return round(length * min(size)) if length < 1 else int(length)
