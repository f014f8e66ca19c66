# SPDX-License-Identifier: Apache-2.0
"""Limits for untrusted image files, checked in their headers before decoding.

Decoders trust a file's structure: a JPEG of 224 kB with 3,000 progressive scans keeps libjpeg busy for minutes, a PNG of a
million empty chunks or a TIFF of one enormous tile costs seconds or gigabytes. So the format comes from an allow-list, and
pixels, scans, chunks, tiles and channels are bounded.
"""

import io
import struct
from dataclasses import dataclass
from typing import BinaryIO

from paddle_dnl.errors import DataError

from PIL import Image

# By Pillow's names. Each of these is decoded by OpenCV at the size that its header announces.
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
# libjpeg-turbo's own advice against denial of service; cameras and encoders write 10 or fewer.
MAX_JPEG_SCANS = 100
# Writers put at least a few kilobytes of data into a chunk; text and colour chunks are few.
MAX_PNG_CHUNKS, PNG_BYTES_PER_CHUNK = 1000, 512
ANY_SIZE = 1 << 60
_ORIENTATION = 274
_TIFF_TAGS = _TIFF_SAMPLES, _TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 277, 322, 323


class UnknownFormat(DataError):
    """The content is not a picture of an allowed format."""


class TooLarge(DataError):
    """The header announces more pixels than are allowed."""


@dataclass(frozen=True)
class Header:
    """What a picture file says of itself.

    Attributes:
        kind: one of `FORMATS`; MPO counts as JPEG.
        width, height: in pixels, as stored.
        mode: Pillow's name of the kind of its pixels.
        orientation: EXIF's number, 1 is upright; None where nothing is said.
    """

    kind: str
    width: int
    height: int
    mode: str
    orientation: int | None


def require_bounded(content: bytes, name: str, max_pixels: int) -> tuple[int, int]:
    """Width and height from the header of a picture that is safe to hand to a decoder; see `read_header`."""
    header = read_header(io.BytesIO(content), name, max_pixels)
    return header.width, header.height


def read_header(file: BinaryIO, name: str, max_pixels: int) -> Header:
    """The header of a picture that is safe to hand to a decoder. The file is gone through, but never held in memory.

    Args:
        file: the whole file, open for reading.
        name: how errors call it.
        max_pixels: width times height that is allowed; for TIFF also the pixels of one tile.

    Raises:
        UnknownFormat: no picture, or of a format outside `FORMATS`.
        TooLarge: too many pixels.
        DataError: a structure that costs a decoder far more than its pixels.
    """
    start = file.read(16)
    if start.startswith(b"\x89PNG"):  # before Pillow, which reads all chunks in front of the data
        _require_few_chunks(file, name)
    try:
        with _open(file, start) as picture:
            kind, (width, height), mode = picture.format, picture.size, picture.mode
            tags = {tag: picture.tag_v2.get(tag) for tag in _TIFF_TAGS} if kind == "TIFF" else {}
            too_large = width * height > max_pixels
            # For a PNG without it Pillow would decode the picture to look behind.
            has_exif = not too_large and (kind != "PNG" or "exif" in picture.info)
            orientation = picture.getexif().get(_ORIENTATION) if has_exif else None
    except Exception as error:  # damaged headers make Pillow raise nearly anything
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
    """`Image.open` with the limit of pixels of this module in place of Pillow's, which is fixed at 179 million."""
    Image.init()
    for kind in FORMATS:
        factory, accept = Image.OPEN[kind]
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
    """A progressive JPEG of many scans takes minutes per megabyte."""
    # Inside compressed data 0xFF is always followed by 0x00 or a restart marker, so this counts scans (and, at most, bytes of
    # an embedded thumbnail or profile that look like one).
    file.seek(0)
    scans, last = 0, b""
    while block := file.read(1 << 20):
        scans += (last + block).count(b"\xff\xda")
        last = block[-1:] if block[-1:] == b"\xff" else b""
    if scans > MAX_JPEG_SCANS:
        raise DataError(f"{name}: a JPEG of {scans} scans is not read, {MAX_JPEG_SCANS} are allowed; save it again")


def require_modest_tiles(samples: int, tile: tuple[int, int], name: str, pixels: int, max_pixels: int) -> None:
    """Refuses a TIFF whose tiles are much larger than its picture, or that has too many values.

    Args:
        samples: channels.
        tile: its sides, 0 without tiles.
        name: how errors call it.
        pixels: of the picture.
        max_pixels: that are allowed.

    Raises:
        DataError, TooLarge: as said.
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
