"""What the network sees is what a viewer shows. The members of each kind of picture are generated;
the pixels that a viewer shows are computed here from the definition of the kind.
"""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from supernet.data import pictures
from supernet.data.dataset import Decoder
from supernet.errors import UserError

SIDE = 8
RAMP = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
GREY = (RAMP * 4 + 2).astype(np.uint8)
RGB = np.stack([GREY, GREY[::-1], GREY.T], axis=2)
ALPHA = (255 - RAMP * 4).astype(np.uint8)
DEEP = (RAMP * 1040).astype(np.uint16)  # 0 to 65,520


def seen(path):
    """The pixels [SIDE, SIDE, 3] that the network gets."""
    return Decoder(SIDE).decode(str(path)).permute(1, 2, 0).numpy()


def three(grey):
    return np.repeat(np.asarray(grey)[:, :, None], 3, axis=2)


def over_white(colour, alpha):
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


def png(values, bits, kind, *chunks):
    """A PNG file, written by its specification: ``values`` [H, W, channels] of ``bits`` bits."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    height, width = values.shape[:2]
    rows = values.astype(">u2" if bits == 16 else "u1").reshape(height, -1)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(chunk(name, data) for name, data in chunks)
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


def tiff(values, bits, photometric, sample=1):
    """A TIFF file with one strip, written by its specification. ``sample`` is the format of the
    samples: 1 whole numbers, 2 with a sign, 3 floats.
    """
    data, channels = values.tobytes(), 1 if values.ndim == 2 else values.shape[2]
    entries = {
        256: (3, SIDE), 257: (3, SIDE), 258: (3, bits), 259: (3, 1), 262: (3, photometric),
        273: (4, 8), 277: (3, channels), 278: (3, SIDE), 279: (4, len(data)), 339: (3, sample),
    }  # fmt: skip
    directory = struct.pack("<H", len(entries))
    for tag, (kind, value) in entries.items():
        directory += struct.pack("<HHII", tag, kind, 1, value)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)


def saved(kind, image, **more):
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def twelve_bits(values):
    """Values of 12 bits, two in three bytes."""
    a, b = values.reshape(-1, 2).T.astype(int)
    return np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], axis=1).astype(np.uint8)


def palette(colours, **more):
    image = Image.fromarray(RAMP.astype(np.uint8)).convert("L")
    paletted = Image.frombytes("P", image.size, image.tobytes())
    paletted.putpalette(colours.astype(np.uint8).tobytes())
    return saved("PNG", paletted, **more)


COLOURS = RGB.reshape(-1, 3)
DEEP_GREY = three(DEEP / 257)
LIGHT = Image.fromarray(RGB)

# kind/member -> the bytes of a file, the pixels that a viewer shows, and how far a pixel may differ
SHOWN = {
    "16 bits/PNG grey": (png(DEEP, 16, 0), DEEP_GREY, 1),
    "16 bits/PNG RGB": (png(RGB.astype(int) * 257, 16, 2), RGB, 1),
    "16 bits/PNG grey and alpha": (
        png(np.stack([DEEP, ALPHA.astype(int) * 257], 2), 16, 4),
        over_white(DEEP_GREY, ALPHA),
        2,
    ),
    "16 bits/PNG with a transparent grey": (
        png(DEEP, 16, 0, (b"tRNS", struct.pack(">H", int(DEEP[3, 3])))),
        np.where((DEEP[3, 3] == DEEP)[..., None], 255, DEEP_GREY),
        1,
    ),
    "16 bits/PGM": (b"P5 8 8 65535\n" + DEEP.astype(">u2").tobytes(), DEEP_GREY, 1),
    "16 bits/PGM of 10 bits": (
        b"P5 8 8 1023\n" + (RAMP * 16).astype(">u2").tobytes(),
        three(RAMP * 16 * 255 / 1023),
        1,
    ),
    "16 bits/PPM": (b"P6 8 8 65535\n" + (RGB.astype(">u2") * 257).tobytes(), RGB, 1),
    "16 bits/TIFF": (tiff(DEEP, 16, 1), DEEP_GREY, 1),
    "16 bits/TIFF, white is zero": (tiff(DEEP, 16, 0), 255 - DEEP_GREY, 1),
    "16 bits/TIFF of 12 bits": (
        tiff(twelve_bits(RAMP * 64), 12, 1),
        three(RAMP * 64 / 4095 * 255),
        1,
    ),
    "16 bits/TIFF that Pillow writes": (saved("TIFF", Image.fromarray(DEEP)), DEEP_GREY, 1),
    "transparency/PNG RGBA": (
        saved("PNG", Image.fromarray(np.dstack([RGB, ALPHA]))),
        over_white(RGB, ALPHA),
        1,
    ),
    "transparency/WebP": (
        saved("WEBP", Image.fromarray(np.dstack([RGB, ALPHA])), lossless=True, exact=True),
        over_white(RGB, ALPHA),
        1,
    ),
    "transparency/TIFF": (
        saved("TIFF", Image.fromarray(np.dstack([RGB, ALPHA]))),
        over_white(RGB, ALPHA),
        1,
    ),
    "transparency/PNG grey and alpha": (
        saved("PNG", Image.fromarray(np.dstack([GREY, ALPHA]))),
        over_white(three(GREY), ALPHA),
        1,
    ),
    "transparency/PNG, one grey": (
        saved("PNG", Image.fromarray(GREY), transparency=int(GREY[2, 2])),
        np.where((GREY[2, 2] == GREY)[..., None], 255, three(GREY)),
        0,
    ),
    "transparency/PNG, one colour": (
        saved("PNG", LIGHT, transparency=tuple(map(int, RGB[1, 1]))),
        np.where((RGB[1, 1] == RGB).all(2)[..., None], 255, RGB),
        0,
    ),
    "transparency/PNG, one of a palette": (
        palette(COLOURS, transparency=9),
        np.where((RAMP == 9)[..., None], 255, RGB),
        0,
    ),
    "transparency/PNG, a palette": (
        palette(COLOURS, transparency=ALPHA.tobytes()),
        over_white(RGB, ALPHA),
        1,
    ),
    "palette/PNG": (palette(COLOURS), RGB, 0),
    "palette/GIF of one frame": (saved("GIF", Image.open(io.BytesIO(palette(COLOURS)))), RGB, 0),
    "palette/BMP": (saved("BMP", Image.open(io.BytesIO(palette(COLOURS)))), RGB, 0),
    "grey/1 bit": (saved("PNG", Image.fromarray(RAMP % 2 == 0)), three((RAMP % 2 == 0) * 255), 0),
    "grey/8 bits": (saved("PNG", Image.fromarray(GREY)), three(GREY), 0),
    "grey/TIFF, white is zero": (tiff(GREY, 8, 0), three(255 - GREY), 0),
    "print/CMYK TIFF": (
        saved("TIFF", Image.fromarray(np.dstack([255 - RGB, np.zeros_like(GREY)]), "CMYK")),
        RGB,
        1,
    ),
    "print/CMYK JPEG": (
        saved("JPEG", Image.new("CMYK", (SIDE, SIDE), (255, 0, 0, 0)), quality=100),
        np.broadcast_to(np.array([0, 255, 255]), RGB.shape),
        2,
    ),
    "extension/JPEG named .png": (
        saved("JPEG", Image.new("RGB", (SIDE, SIDE), (200, 40, 90)), quality=100),
        np.broadcast_to(np.array([200, 40, 90]), RGB.shape),
        3,
    ),
}

# How a picture that is stored with each orientation of EXIF is shown (EXIF 2.3, 4.6.4, tag 274).
TURNED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x.swapaxes(0, 1)[::-1],
}


def turned(kind, orientation, more):
    exif = Image.Exif()
    exif[274] = orientation
    return saved(kind, LIGHT, exif=exif, **more)


for (format, more), orientation in itertools.product(
    (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})), TURNED
):
    SHOWN[f"orientation/{format} {orientation}"] = (
        turned(format, orientation, more), TURNED[orientation](RGB), 0,
    )  # fmt: skip


@pytest.mark.parametrize("member", SHOWN)
def test_the_network_sees_what_a_viewer_shows(member, tmp_path):
    content, expected, tolerance = SHOWN[member]
    path = tmp_path / "some.png"
    path.write_bytes(content)
    assert np.abs(seen(path).astype(float) - expected).max() <= tolerance + 0.5


def frames(kind, **more):
    others = [Image.fromarray(RGB[::-1]), Image.fromarray(RGB[:, ::-1])]
    return saved(kind, LIGHT, save_all=True, append_images=others, **more)


NAMED = {
    "range/int32 TIFF": (tiff(RAMP.astype("<i4"), 32, 1, 2), "32-bit whole numbers"),
    "range/uint32 TIFF": (tiff(RAMP.astype("<u4"), 32, 1, 1), "32-bit whole numbers"),
    "range/int16 TIFF": (tiff(RAMP.astype("<i2"), 16, 1, 2), "whole numbers"),
    "range/float32 TIFF": (tiff((RAMP / 64).astype("<f4"), 32, 1, 3), "floating-point"),
    "range/TIFF of Pillow's F": (saved("TIFF", Image.fromarray(RAMP / np.float32(64))), "floating"),
    "range/TIFF of Pillow's I": (saved("TIFF", Image.fromarray(RAMP.astype(np.int32))), "32-bit"),
    "colours/LAB TIFF": (saved("TIFF", Image.new("LAB", (SIDE, SIDE))), "LAB"),
    "frames/GIF": (frames("GIF"), "3 frames of an animation"),
    "frames/PNG": (frames("PNG"), "3 frames of an animation"),
    "frames/WebP": (frames("WEBP", lossless=True), "3 frames of an animation"),
    "frames/TIFF": (frames("TIFF"), "3 pages"),
    "format/DDS": (saved("DDS", LIGHT), "not a picture of the formats"),
    "format/ICO": (saved("ICO", LIGHT), "not a picture of the formats"),
    "format/EPS": (saved("EPS", LIGHT), "not a picture of the formats"),
    "format/TGA": (saved("TGA", LIGHT), "not a picture of the formats"),
    "format/PCX": (saved("PCX", LIGHT), "not a picture of the formats"),
    "format/text": (b"no picture", "not a picture of the formats"),
    "format/nothing": (b"", "not a picture of the formats"),
}


@pytest.mark.parametrize("member", NAMED)
def test_what_has_no_one_appearance_is_refused_by_name(member, tmp_path):
    content, words = NAMED[member]
    path = tmp_path / "some.png"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        seen(path)
    line = str(caught.value)
    assert "\n" not in line and line.startswith(f"{path}: ") and words in line


WHOLE = {
    "PNG": saved("PNG", LIGHT),
    "JPEG": saved("JPEG", LIGHT),
    "TIFF": saved("TIFF", LIGHT),
    "TIFF with LZW": saved("TIFF", LIGHT, compression="tiff_lzw"),
    "WEBP": saved("WEBP", LIGHT),
    "BMP": saved("BMP", LIGHT),
    "PPM": saved("PPM", LIGHT),
    "GIF": saved("GIF", LIGHT),
    "DDS": saved("DDS", LIGHT),
}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of damaged metadata
def test_damaged_files_are_one_line_or_a_picture(kind, tmp_path, monkeypatch):
    """A file that is cut short, or of which one byte is another. Not every such file can be known
    to be damaged; but none may end in an error that is not one line.
    """
    monkeypatch.setattr(pictures, "LARGEST", 2**20)  # a flipped bit may make a picture very wide
    whole, path = WHOLE[kind], tmp_path / "some.png"
    chance = np.random.default_rng(0)
    cut = [whole[:length] for length in sorted({*range(0, 40, 4), len(whole) // 2})]
    flipped = []
    for place in {*range(min(len(whole), 100)), *chance.integers(len(whole), size=50).tolist()}:
        damaged = bytearray(whole)
        damaged[place] ^= int(chance.integers(1, 256))
        flipped.append(bytes(damaged))
    for content in [*cut, *flipped]:
        path.write_bytes(content)
        try:
            seen(path)
        except UserError as error:
            assert "\n" not in str(error) and str(path) in str(error)
        else:
            assert content not in cut, "a file that is cut short is not a picture"


def test_large_pictures_are_read_up_to_a_limit_that_is_named(tmp_path, monkeypatch):
    """Pillow calls a picture of more than 179 megapixels an attack. With a limit of 4 pixels, the
    smallest picture is one for Pillow.
    """
    path = tmp_path / "some.png"
    path.write_bytes(saved("PNG", LIGHT))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    assert np.array_equal(seen(path), RGB)
    assert Image.MAX_IMAGE_PIXELS == 4
    monkeypatch.setattr(pictures, "LARGEST", SIDE * SIDE - 1)
    with pytest.raises(UserError, match="has 8×8 pixels, more than 63 in all; make it smaller"):
        seen(path)
