# SPDX-License-Identifier: Apache-2.0
"""Writes PNG files in strips of rows; OpenCV and Pillow need the whole picture in memory."""

import struct
import zlib
from typing import BinaryIO

import numpy as np

# PNG's colour types.
_GREY, _RGB, _PALETTE = 0, 2, 3
# On noisy photographs level 6 would save 5 % and take four times as long.
_LEVEL_OF_LABELS, _LEVEL_OF_PICTURES = 6, 1


class PngStrips:
    """Writes a PNG of 8 bits (grey, RGB or palette) or 16 bits (grey) from top to bottom.

    Args:
        file: a file opened for writing; it is not closed.
        size: height and width.
        dtype: of the rows, uint8 or uint16.
        palette: RGB of each number, uint8 `[n, 3]`.
        is_rgb: rows are RGB `[rows, W, 3]`; else `[rows, W]`.

    Source: PNG specification (third edition), sections 5, 7 and 9.
    """

    def __init__(
        self, file: BinaryIO, size: tuple[int, int], dtype=np.uint8, palette: np.ndarray | None = None, is_rgb=False
    ):
        self._file, self._is_rgb = file, is_rgb
        self._dtype = np.dtype(dtype).newbyteorder(">")
        kind = _RGB if is_rgb else _GREY if palette is None else _PALETTE
        self._compress = zlib.compressobj(_LEVEL_OF_PICTURES if is_rgb else _LEVEL_OF_LABELS)
        file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], 8 * self._dtype.itemsize, kind, 0, 0, 0))
        if palette is not None:
            self._chunk(b"PLTE", palette.astype(np.uint8).tobytes())

    def _chunk(self, name: bytes, content: bytes) -> None:
        checksum = zlib.crc32(content, zlib.crc32(name))
        self._file.write(struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum))

    def write(self, rows: np.ndarray) -> None:
        """Appends rows."""
        flat = np.ascontiguousarray(rows, self._dtype).reshape(len(rows), -1).view(np.uint8)
        lines = np.empty((len(flat), 1 + flat.shape[1]), np.uint8)
        lines[:, 0] = self._is_rgb  # filter of the row: 0 none, 1 difference to the pixel on the left
        lines[:, 1:] = flat
        if self._is_rgb:
            lines[:, 4:] -= flat[:, :-3]
        if content := self._compress.compress(lines):
            self._chunk(b"IDAT", content)

    def close(self) -> None:
        """Writes the end of the PNG."""
        self._chunk(b"IDAT", self._compress.flush())
        self._chunk(b"IEND", b"")
