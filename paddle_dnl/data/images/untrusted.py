# SPDX-License-Identifier: Apache-2.0
"""Limits for untrusted image files, checked in their headers before decoding.

A small file can make a decoder slow or large: libjpeg needs minutes for a JPEG of 224 kB with 3,000 progressive scans, and
a PNG of a million empty chunks or a TIFF of one enormous tile costs seconds or gigabytes. Therefore only some formats are
allowed, and the numbers of pixels, scans, chunks, tiles and channels are limited.
"""

import io
import struct
from dataclasses import dataclass
from typing import BinaryIO

from paddle_dnl.errors import DataError

from PIL import Image

# Pillow's names. OpenCV decodes all of these at the size in the header.
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
# Grey and colours, as text and as bytes; Pillow counts bitmaps, floats and others as PPM too.
_PPM_STARTS = (b"P2", b"P3", b"P5", b"P6")
# The limit that libjpeg-turbo recommends against denial of service; cameras and encoders write at most 10.
MAX_JPEG_SCANS = 100
# Encoders put at least a few kilobytes of image data into a chunk, and write few other chunks.
MAX_PNG_CHUNKS, PNG_BYTES_PER_CHUNK = 1000, 512
ANY_SIZE = 1 << 60
_ORIENTATION = 274
_TIFF_TAGS = _TIFF_SAMPLES, _TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 277, 322, 323


class UnknownFormat(DataError):
    """The file is not a picture of an allowed format."""


class TooLarge(DataError):
    """The picture has more pixels than allowed."""


@dataclass(frozen=True)
class Header:
    """The header of a picture file.

    Attributes:
        kind: one of `FORMATS`; MPO counts as JPEG.
        width, height: in pixels, as stored.
        mode: Pillow's mode of the pixels.
        orientation: EXIF orientation, 1 is upright; None if it is not given.
    """

    kind: str
    width: int
    height: int
    mode: str
    orientation: int | None


def require_bounded(content: bytes, name: str, max_pixels: int) -> tuple[int, int]:
    """Width and height of a picture that is safe to decode; see `read_header`."""
    header = read_header(io.BytesIO(content), name, max_pixels)
    return header.width, header.height


def read_header(file: BinaryIO, name: str, max_pixels: int) -> Header:
    """The header of a picture that is safe to decode. The file is scanned, but not held in memory.

    Args:
        file: the file, open for reading.
        name: name of the file in errors.
        max_pixels: largest allowed width * height; for TIFF also of one tile.

    Raises:
        UnknownFormat: the file is no picture, or its format is not in `FORMATS`.
        TooLarge: too many pixels.
        DataError: decoding would cost far more than the number of pixels explains.
    """
    start = file.read(16)
    if start.startswith(b"\x89PNG"):  # before `Image.open`, which reads all chunks before the image data
        _require_few_chunks(file, name)
    try:
        with _open(file, start) as picture:
            kind, (width, height), mode = picture.format, picture.size, picture.mode
            tags = {tag: picture.tag_v2.get(tag) for tag in _TIFF_TAGS} if kind == "TIFF" else {}
            too_large = width * height > max_pixels
            # `getexif` of a PNG without EXIF before the image data would decode the picture to look behind it.
            has_exif = not too_large and (kind != "PNG" or "exif" in picture.info)
            orientation = picture.getexif().get(_ORIENTATION) if has_exif else None
    except Exception as error:  # Pillow raises many kinds of exceptions for damaged headers
        known = ", ".join(FORMATS)
        raise UnknownFormat(
            f"{name}: is not a picture of a known format ({known}), or its header is damaged"
        ) from error
    if too_large:
        raise TooLarge(
            f"{name}: has {width}x{height} = {width * height} pixels, allowed are {max_pixels}; "
            "make it smaller or raise the limit (--max_pixels)"
        )
    if kind in ("JPEG", "MPO"):
        _require_few_scans(file, name)
    elif kind == "TIFF":
        tile = (tags[_TIFF_TILE_WIDTH] or 0, tags[_TIFF_TILE_LENGTH] or 0)
        require_modest_tiles(tags[_TIFF_SAMPLES] or 1, tile, name, width * height, max_pixels)
    return Header("JPEG" if kind == "MPO" else kind, width, height, mode, orientation)


def _open(file: BinaryIO, start: bytes) -> Image.Image:
    """`Image.open` without Pillow's own limit of 179 million pixels; this module checks the size."""
    Image.init()
    for kind in FORMATS:
        factory, accept = Image.OPEN[kind]
        if kind == "PPM" and not start.startswith(_PPM_STARTS):
            continue
        if accept is None or accept(start) is True:
            file.seek(0)
            return factory(file, "")
    raise ValueError("unknown format")


def _require_few_chunks(file: BinaryIO, name: str) -> None:
    size = file.seek(0, io.SEEK_END)
    limit, position = MAX_PNG_CHUNKS + size // PNG_BYTES_PER_CHUNK, 8
    for _ in range(limit):
        if position + 8 > size:
            return
        file.seek(position)
        position += 12 + struct.unpack(">I", file.read(4))[0]
    raise DataError(f"{name}: a PNG of more than {limit} chunks in {size} bytes is not read; save it again")


def _require_few_scans(file: BinaryIO, name: str) -> None:
    """Refuses JPEGs of many scans; progressive ones take minutes per megabyte."""
    # In compressed data 0xFF is always followed by 0x00 or a restart marker, so only scans are counted (and possibly bytes in an
    # embedded thumbnail or profile that look like one).
    file.seek(0)
    scans, last = 0, b""
    while block := file.read(1 << 20):
        scans += (last + block).count(b"\xff\xda")
        last = block[-1:] if block[-1:] == b"\xff" else b""
    if scans > MAX_JPEG_SCANS:
        raise DataError(f"{name}: a JPEG of {scans} scans is not read, {MAX_JPEG_SCANS} are allowed; save it again")


def require_modest_tiles(samples: int, tile: tuple[int, int], name: str, pixels: int, max_pixels: int) -> None:
    """Refuses TIFFs whose tiles are much larger than the picture, or that have too many values.

    Args:
        samples: number of channels.
        tile: sides of a tile, 0 without tiles.
        name: name of the file in errors.
        pixels: number of pixels of the picture.
        max_pixels: largest allowed number.

    Raises:
        DataError: the tiles are too large.
        TooLarge: too many values.
    """
    area = tile[0] * tile[1]
    if area > max(1 << 20, min(4 * pixels, max_pixels)):
        raise DataError(
            f"{name}: a TIFF with tiles of {area} pixels for a picture of {pixels} is not read; save it again"
        )
    if samples * pixels > 4 * max_pixels:
        raise TooLarge(
            f"{name}: has {pixels} pixels of {samples} channels, allowed are {4 * max_pixels} values (--max_pixels)"
        )
