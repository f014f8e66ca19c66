# SPDX-License-Identifier: Apache-2.0
"""Pictures with changed and missing bytes are read, or refused with the name of the file; Pillow's own errors never come out.

The samples are seeded: the pictures, the places and the values are the same in each run.
"""

import io
import random
import struct
import zlib

from paddle_dnl.data.images.image_format import ImageFormat, decode_image
from paddle_dnl.data.images.reading import read_label
from paddle_dnl.errors import DataError

import numpy as np
import pytest
from PIL import Image

LABEL = np.random.default_rng(0).integers(0, 3, (8, 10)).astype(np.uint8)
KINDS = {
    "png": ("PNG", {}),
    "png_palette": ("PNG", {}),
    "tif": ("TIFF", {}),
    "tif_packed": ("TIFF", {"compression": "tiff_lzw"}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "jpg": ("JPEG", {}),
}
CHUNKS = (
    b"gAMA",
    b"pHYs",
    b"cHRM",
    b"tRNS",
    b"iCCP",
    b"tEXt",
    b"zTXt",
    b"iTXt",
    b"eXIf",
    b"fcTL",
    b"fdAT",
    b"PLTE",
    b"IHDR",
)
TRIES = 250


def _whole(kind: str) -> bytes:
    picture = Image.fromarray(LABEL)
    if kind in ("png_palette", "gif"):
        picture.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    packed = io.BytesIO()
    picture.save(packed, KINDS[kind][0], **KINDS[kind][1])
    return packed.getvalue()


def _damaged(whole: bytes, draw: random.Random) -> bytes:
    """Cut, or with up to four bytes changed, most of them in the head."""
    content = bytearray(whole)
    if draw.random() < 0.2:
        content = content[: draw.randrange(1, len(content))]
    for _ in range(draw.choice([0, 1, 1, 2, 4])):
        last = min(len(content), draw.choice([64, len(content)]))
        content[draw.randrange(last)] = draw.choice([0, 1, 2, 3, 128, 255, draw.randrange(256)])
    return bytes(content)


def _with_odd_chunk(whole: bytes, draw: random.Random) -> bytes:
    """A PNG with one more chunk, whose checksum is right and whose content is not."""
    name, content = draw.choice(CHUNKS), draw.randbytes(draw.choice([0, 1, 3, 4, 5, 8, 9, 26]))
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    at = whole.index(draw.choice([b"IDAT", b"IEND"])) - 4
    return whole[:at] + chunk + whole[at:]


def _read_or_refused(path) -> int:
    """How many of the readers refused the file, all of them by its name."""
    content, refused = np.fromfile(path, np.uint8), 0
    for read in (
        read_label,
        ImageFormat().read,
        lambda name: decode_image(content, name, max_pixels=10**6),
    ):
        try:
            read(path)
        except DataError as error:
            assert str(error).startswith(f"{path}: "), error
            refused += 1
    return refused


@pytest.mark.filterwarnings("ignore")  # of Pillow, on what it can read all the same
@pytest.mark.parametrize(
    "kind, damage", [*((kind, _damaged) for kind in KINDS), ("png", _with_odd_chunk), ("png_palette", _with_odd_chunk)]
)
def test_damaged_pictures_are_read_or_named(tmp_path, kind, damage):
    draw, whole, path = random.Random(kind), _whole(kind), tmp_path / f"picture.{kind}"
    path.write_bytes(whole)
    at_best, seen = _read_or_refused(path), []  # labels are no JPEGs, and OpenCV reads no GIFs
    for _ in range(TRIES):
        path.write_bytes(damage(whole, draw))
        seen.append(_read_or_refused(path))
    worse = sum(refused > at_best for refused in seen)
    assert min(seen) == at_best and TRIES / 10 < worse < TRIES, (worse, seen)


def _with_chunk_at_end(name: bytes, content: bytes) -> bytes:
    whole = _whole("png")
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    at = whole.index(b"IEND") - 4
    return whole[:at] + chunk + whole[at:]


# Found by some ten thousand tries of this kind: the error of Pillow 13 that came out without a name, and its cause.
FOUND = {
    "IndexError": _with_chunk_at_end(b"iCCP", b""),  # a colour profile of 0 bytes
    # Text where the place of the pixels should be.
    "TypeError": _whole("tif").replace(struct.pack("<HHI", 273, 4, 1), struct.pack("<HHI", 273, 2, 1)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("error", FOUND)
def test_errors_of_pillow_get_the_name_of_the_file(tmp_path, error):
    """Another Pillow may read these files, or refuse them otherwise."""
    path = tmp_path / "label.png"
    path.write_bytes(FOUND[error])
    _read_or_refused(path)
