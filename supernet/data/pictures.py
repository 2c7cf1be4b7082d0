"""Reads a picture from a file as a viewer shows it: 8-bit RGB.

Pillow converts many kinds of pictures in ways that change what a person sees. 16-bit grey becomes
white, hidden colours of transparent pixels appear, and the orientation that a camera has recorded
is ignored. This module treats each kind, and refuses by name what has no one appearance.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from supernet.errors import UserError

# The formats that are read. Pillow knows more, some of which start other programs (EPS) or hold
# several pictures (icons, fonts). The extension of a file is not trusted: its bytes decide.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")

LARGEST = 2**30  # pixels; decoded, such a picture takes 3 GB

# The modes of Pillow that it converts to RGB as a viewer would, once transparency is composited.
EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")

BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF and a value


def read_picture(path: str) -> Image.Image:
    """The picture in a file, as an RGB image of Pillow.

    The orientation of EXIF is applied, transparency is composited over white, and 16-bit grey is
    scaled to 8 bits. Of a JPEG with several pictures (MPO) it is the first.

    Raises:
        UserError: the file is missing, damaged, or too large; or it is an animation, has several
            pages, or has pixels of a kind that viewers do not show in one way, such as floats.
    """
    try:
        with any_size(), Image.open(path, formats=FORMATS) as image:
            require_shown_one_way(image, path)
            image.load()
            return visible(ImageOps.exif_transpose(image), image, path)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: cannot be read (missing); restore it or remove it") from error
    except UnidentifiedImageError as error:
        raise UserError(
            f"{path}: cannot be read (not a picture of the formats {', '.join(FORMATS)}, or "
            "damaged); replace it or remove it"
        ) from error
    except MemoryError as error:
        raise UserError(
            f"{path}: cannot be read (the memory is too small for it); make it smaller"
        ) from error
    # Damaged bytes make the decoders raise errors of a dozen types.
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise UserError(
            f"{path}: cannot be read (damaged: {reason}); replace it or remove it"
        ) from error


@contextmanager
def any_size() -> Iterator[None]:
    """Turns off Pillow's own limit, which calls a large picture an attack. This module has a limit
    of its own.
    """
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def require_shown_one_way(image: Image.Image, path: str) -> None:
    """Raises a UserError if viewers do not show the picture in one way, or if it is too large. It
    does not decode the pixels.
    """
    width, height = image.size
    if width * height > LARGEST:
        raise UserError(
            f"{path}: has {width}×{height} pixels, more than {LARGEST:,} in all; make it smaller"
        )
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1:
        what = "pages" if image.format == "TIFF" else "frames of an animation"
        raise UserError(
            f"{path}: has {frames} {what}; save each as a file of its own, or remove it"
        )
    if image.mode not in EIGHT_BITS and range_of(image) is None:
        kinds = {"F": "floating-point pixels", "I": "pixels of 32-bit whole numbers"}
        kind = kinds.get(image.mode, f"pixels of the mode {image.mode}")
        raise UserError(
            f"{path}: has {kind}, which have no one range from black to white; save it with 8 or "
            "16 bits"
        )


def range_of(image: Image.Image) -> int | None:
    """The largest value of a picture with one channel of 9 to 16 bits; ``None`` for others."""
    if image.mode.startswith("I;16"):
        if image.format == "TIFF":
            return 2 ** int(image.tag_v2.get(BITS_PER_SAMPLE, (16,))[0]) - 1  # type: ignore[attr-defined]
        return 2**16 - 1
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # Pillow scales these to 16 bits
        return 2**16 - 1
    return None


def visible(image: Image.Image, source: Image.Image, path: str) -> Image.Image:
    """The RGB image of what a viewer shows of ``image``, which was read from ``source``."""
    if image.mode not in EIGHT_BITS:
        return from_16_bits(image, source)
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        white = Image.new("RGBA", shown.size, "white")
        return Image.alpha_composite(white, shown).convert("RGB")
    return image.convert("RGB")


def from_16_bits(image: Image.Image, source: Image.Image) -> Image.Image:
    """The RGB image of a picture with one channel of 9 to 16 bits."""
    largest = range_of(source)
    assert largest is not None
    values = np.asarray(image).astype(np.float64)
    grey = np.rint(values * (255 / largest)).clip(0, 255).astype(np.uint8)
    tags = getattr(source, "tag_v2", {})
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        grey = 255 - grey
    hidden = source.info.get("transparency")
    if isinstance(hidden, int):  # a PNG names one value that is transparent
        grey = np.where(values == hidden, np.uint8(255), grey)
    return Image.fromarray(grey).convert("RGB")
