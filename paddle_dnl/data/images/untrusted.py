# SPDX-License-Identifier: Apache-2.0
"""Limits for untrusted image files, checked in their headers before decoding.

Decoders trust a file's structure: a JPEG of 224 kB with 3,000 progressive scans keeps libjpeg busy for minutes, a PNG of a
million empty chunks or a TIFF of one enormous tile costs seconds or gigabytes. So the format comes from an allow-list, and
pixels, scans, chunks, tiles and channels are bounded.
"""

import io
import struct

from paddle_dnl.errors import DataError

from PIL import Image

# By Pillow's names. Each of these is decoded by OpenCV at the size that its header announces.
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
# libjpeg-turbo's own advice against denial of service; cameras and encoders write 10 or fewer.
MAX_JPEG_SCANS = 100
# Writers put at least a few kilobytes of data into a chunk; text and colour chunks are few.
MAX_PNG_CHUNKS, PNG_BYTES_PER_CHUNK = 1000, 512
_TIFF_TAGS = _TIFF_SAMPLES, _TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 277, 322, 323


class UnknownFormat(DataError):
    """The content is not a picture of an allowed format."""


class TooLarge(DataError):
    """The header announces more pixels than are allowed."""


def require_bounded(content: bytes, name: str, max_pixels: int) -> tuple[int, int]:
    """Width and height from the header of a picture that is safe to hand to a decoder.

    Args:
        content: the whole file.
        name: how errors call it.
        max_pixels: width times height that is allowed; for TIFF also the pixels of one tile.

    Raises:
        UnknownFormat: no picture, or of a format outside `FORMATS`.
        TooLarge: too many pixels.
        DataError: a structure that costs a decoder far more than its pixels.
    """
    if content.startswith(b"\x89PNG"):  # before Pillow, which reads all chunks in front of the data
        _require_few_chunks(content, name)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            kind, (width, height) = picture.format, picture.size
            tags = {tag: picture.tag_v2.get(tag) for tag in _TIFF_TAGS} if kind == "TIFF" else {}
    except Image.DecompressionBombError as error:
        raise TooLarge(f"{name}: is too large ({error}); allowed are {max_pixels} pixels (--max_pixels)") from error
    except Exception as error:  # damaged headers make Pillow raise nearly anything
        known = ", ".join(FORMATS)
        raise UnknownFormat(
            f"{name}: is not a picture of a known format ({known}), or its header is damaged"
        ) from error
    if width * height > max_pixels:
        raise TooLarge(
            f"{name}: has {width}x{height} = {width * height} pixels, allowed are {max_pixels}; "
            "make it smaller or raise the limit (--max_pixels)"
        )
    if kind in ("JPEG", "MPO"):
        # Inside compressed data 0xFF is always followed by 0x00 or a restart marker, so this counts scans (and, at most, bytes of
        # an embedded thumbnail or profile that look like one).
        scans = content.count(b"\xff\xda")
        if scans > MAX_JPEG_SCANS:
            raise DataError(f"{name}: a JPEG of {scans} scans is not read, {MAX_JPEG_SCANS} are allowed; save it again")
    elif kind == "TIFF":
        pixels = width * height
        samples = tags[_TIFF_SAMPLES] or 1
        tile = (tags[_TIFF_TILE_WIDTH] or 0) * (tags[_TIFF_TILE_LENGTH] or 0)
        if tile > max(1 << 20, min(4 * pixels, max_pixels)):
            raise DataError(
                f"{name}: a TIFF with tiles of {tile} pixels for a picture of {pixels} is not read; save it again"
            )
        if samples * pixels > 4 * max_pixels:
            raise TooLarge(
                f"{name}: has {pixels} pixels of {samples} channels, allowed are {4 * max_pixels} values (--max_pixels)"
            )
    return width, height


def _require_few_chunks(content: bytes, name: str) -> None:
    limit, position = MAX_PNG_CHUNKS + len(content) // PNG_BYTES_PER_CHUNK, 8
    for _ in range(limit):
        if position + 8 > len(content):
            return
        position += 12 + struct.unpack_from(">I", content, position)[0]
    raise DataError(f"{name}: a PNG of more than {limit} chunks in {len(content)} bytes is not read; save it again")
