# SPDX-License-Identifier: Apache-2.0
"""Picture files whose structure costs a decoder far more than their pixels."""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

IMAGE = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)


def encoded(suffix: str = ".png") -> bytes:
    """A small picture."""
    return cv2.imencode(suffix, IMAGE)[1].tobytes()


def many_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    buffer = io.BytesIO()
    Image.fromarray(IMAGE).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    start = content.rindex(b"\xff\xda")
    return content[:start] + content[start:-2] * scans + b"\xff\xd9"


def many_chunks(chunks: int) -> bytes:
    """A PNG with that many empty chunks before its data."""
    content = encoded()
    empty = struct.pack(">I", 0) + b"tEXt" + struct.pack(">I", zlib.crc32(b"tEXt"))
    return content[:33] + empty * chunks + content[33:]


def tiff_header(width: int, height: int, tile: int, samples: int = 3) -> bytes:
    """The header of a TIFF; its only tile is empty."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in {256: width, 257: height, 258: (8,) * samples, 259: 1, 262: 2, 277: samples}.items():
        tags[tag] = value
    for tag, value in {322: tile, 323: tile, 324: 8, 325: 0}.items():
        tags[tag] = value
    buffer = io.BytesIO()
    buffer.write(b"II*\x00\x08\x00\x00\x00")
    buffer.write(tags.tobytes(8))
    return buffer.getvalue()
