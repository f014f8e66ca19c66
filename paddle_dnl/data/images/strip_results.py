# SPDX-License-Identifier: Apache-2.0
"""Writes the results of a large picture (label picture, overlay, GeoTIFF) in strips of rows."""

import contextlib
from pathlib import Path
from typing import BinaryIO

from paddle_dnl.data.classes import Colors, label_palette
from paddle_dnl.data.images.geo_files import GeoTiffFile
from paddle_dnl.data.images.png_strips import PngStrips
from paddle_dnl.data.images.raster_files import Place
from paddle_dnl.data.overlay import encode_image, overlay
from paddle_dnl.errors import DataError
from paddle_dnl.files.atomic import NewFile

import numpy as np


class _PngFile(NewFile):
    """A PNG that is written in strips, see `PngStrips`."""

    _stream: BinaryIO | None = None

    def __init__(self, path: Path, size: tuple[int, int], **kind):
        super().__init__(path)
        try:
            self._stream = open(self.temporary, "r+b")
            self._png = PngStrips(self._stream, size, **kind)
        except BaseException:
            self.discard()
            raise
        self.write = self._png.write

    def finish(self) -> None:
        self._png.close()
        self._stream.close()

    def discard(self) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError):  # the disk is full, so that the buffer cannot be flushed
                self._stream.close()
        super().discard()


class _HeldFile(NewFile):
    """A colour picture in a format that cannot be written in strips; it is kept in memory, three bytes per pixel."""

    def __init__(self, path: Path, size: tuple[int, int]):
        self._pixels, self._done = np.zeros((*size, 3), np.uint8), 0
        super().__init__(path)

    def write(self, rows: np.ndarray) -> None:
        self._pixels[self._done : self._done + len(rows)] = rows
        self._done += len(rows)

    def finish(self) -> None:
        with open(self.temporary, "r+b") as stream:
            stream.write(encode_image(self._pixels[..., ::-1], self.path.suffix))


class StripResults:
    """Label picture, overlay and GeoTIFF of one picture. `commit` renames them to their final names, the label picture last.

    Args:
        size: height and width.
        colors: (red, green, blue) of each class.
        labels: path of the label picture, as from `paddle_dnl.data.overlay.encode_label_png`.
        overlays: path of the overlay, or None. PNGs are written in strips, other formats are kept in memory.
        geotiff: path of a GeoTIFF label map with the georeference `place`, or None.

    Raises:
        OutputError: a file of such a name exists that this package did not write.
    """

    def __init__(
        self,
        size: tuple[int, int],
        colors: Colors,
        labels: Path,
        overlays: Path | None = None,
        geotiff: Path | None = None,
        place: Place | None = None,
    ):
        self._colors, self._done = colors, 0
        self._label_path, self._is_wide = labels, len(colors) > 256
        self._files: list = []
        self._overlay = None
        kind = {"dtype": np.uint16} if self._is_wide else {"palette": label_palette(colors)}
        try:
            if overlays is not None:
                is_png = overlays.suffix.lower() == ".png"
                self._overlay = _PngFile(overlays, size, is_rgb=True) if is_png else _HeldFile(overlays, size)
                self._files.append(self._overlay)
            if geotiff is not None:
                self._files.append(GeoTiffFile(geotiff, size, colors, place))
            self._files.append(_PngFile(labels, size, **kind))
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> "StripResults":
        return self

    def __exit__(self, *error) -> None:
        with contextlib.ExitStack() as stack:  # discards all of them, even if one raises
            for file in self._files:
                stack.callback(file.discard)

    def write(self, rows, labels: np.ndarray) -> None:
        """Adds the classes of the next rows of the picture.

        Args:
            rows: the picture, see `paddle_dnl.data.images.picture_rows`.
            labels: classes `[rows, W]`, uint8 or uint16.

        Raises:
            DataError: a class above 255, for which a palette has no colour.
        """
        if labels.dtype != np.uint8 and not self._is_wide:
            raise DataError(
                f"{self._label_path}: more than 256 classes need a colour each, {len(self._colors)} are given"
            )
        for file in self._files:
            if file is not self._overlay:
                with file.naming_errors():
                    file.write(labels)
        bottom = self._done + len(labels)
        if self._overlay is not None:
            drawn = overlay(rows.read(self._done, bottom), labels, self._colors)[..., ::-1]
            with self._overlay.naming_errors():
                self._overlay.write(drawn)
        rows.release(bottom)
        self._done = bottom

    def commit(self) -> None:
        """Completes all files and renames them to their final names."""
        for file in self._files:
            with file.naming_errors():
                file.finish()
        for file in self._files:
            file.commit()
