# SPDX-License-Identifier: Apache-2.0
"""Reads PNG, JPEG and TIFF files by blocks of rows, for pictures that do not fit into memory.

OpenCV and Pillow decode whole pictures; rasterio (GDAL) can read parts. Files that GDAL would decode differently from OpenCV
(palettes, rotated JPEGs) or that must be decoded as a whole in any case (interlaced PNGs) are not read by blocks.
"""

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from paddle_dnl.data.images.bands import TIFF_MAGICS, as_eight_bits, scale
from paddle_dnl.data.images.picture_rows import BLOCKS_FROM, ArrayRows
from paddle_dnl.data.images.raster_files import DRIVERS, OPTIONS, open_dataset
from paddle_dnl.data.images.untrusted import ANY_SIZE, Header, UnknownFormat, read_header, require_modest_tiles
from paddle_dnl.errors import DataError
from paddle_dnl.files.reading import require_file

import numpy as np

if TYPE_CHECKING:
    from paddle_dnl.data.images.image_format import ImageFormat

# GDAL's JPEG decoder interpolates colours differently from OpenCV's (up to 16 of 255 at colour edges). To get the same pixels
# as from OpenCV, JPEGs of up to 768 MB (decoded) are read as a whole.
JPEG_BLOCKS_FROM = 256_000_000
_PALETTE_PNG = 3
# The end-of-image marker is within this number of bytes from the end of the file.
_ENDS, _TAIL = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}, 1 << 16
_CACHE = 64 << 20


def open_rows(path: str | Path, image_format: "ImageFormat", max_pixels: int | None = None):
    """The rows of a picture file: read by blocks if it is large and rasterio is installed, else as a whole.

    Args:
        path: the file.
        image_format: how the file is read; rows are equal to those of `image_format.read`.
        max_pixels: see `paddle_dnl.data.images.image_format.decode_image`.

    Returns:
        `BlockRows` or `ArrayRows`.

    Raises:
        DataError: as for `image_format.read`.
    """
    require_file(path, DataError)
    limit = ANY_SIZE if max_pixels is None else max_pixels
    with open(path, "rb") as file:
        try:
            header = read_header(file, str(path), limit)
        except UnknownFormat:
            file.seek(0)
            # Pillow knows few kinds of numbers and bands.
            header = _tiff_header(path, limit) if file.read(4) in TIFF_MAGICS else None
        except DataError:
            header = None  # `image_format.read` says what is wrong
        if header is not None and _fits(header, file, image_format):
            with contextlib.suppress(ImportError, NotByBlocks):
                return BlockRows(path, header, image_format)
    return ArrayRows(image_format.read(path, max_pixels=max_pixels))


class NotByBlocks(Exception):
    """The file must be read as a whole."""


def _tiff_header(path, limit: int) -> Header | None:
    """The header of a TIFF, read by GDAL, with the limits of `read_header`; None if the file must be read as a whole."""
    try:
        import rasterio
        from rasterio.errors import RasterioError
    except ImportError:
        return None
    try:
        with rasterio.Env(**OPTIONS), open_dataset(path, "TIFF") as file:
            tile = file.block_shapes[0] if file.profile.get("tiled") else (0, 0)
            size, count = file.shape, file.count
        require_modest_tiles(count, tile, str(path), size[0] * size[1], limit)
    except (RasterioError, DataError):
        return None
    return Header("TIFF", size[1], size[0], "", None) if size[0] * size[1] <= limit else None


def _fits(header: Header, file, image_format: "ImageFormat") -> bool:
    """Whether reading by blocks gives the same pixels as decoding the whole file."""
    least = JPEG_BLOCKS_FROM if header.kind == "JPEG" else BLOCKS_FROM
    if header.kind not in DRIVERS or header.orientation not in (None, 1) or header.width * header.height < least:
        return False
    if header.kind == "TIFF":
        return True
    # Truncated files are left to `image_format.read`, which refuses them.
    file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
    if _ENDS[header.kind] not in file.read():
        return False
    if header.kind == "PNG":
        file.seek(24)
        depth, kind, _, _, interlaced = file.read(5)
        return depth >= 8 and kind != _PALETTE_PNG and not interlaced
    return header.mode in ("L", "RGB"[: image_format.channels])  # GDAL converts colour to grey differently


class BlockRows:
    """The rows of a file, each decoded once, from top to bottom. Released rows are no longer in memory.

    Args:
        path: the file.
        header: header of the file.
        image_format: how the file is read.

    Attributes:
        size: height and width.
        by_blocks: that it is never held whole.

    Raises:
        ImportError: rasterio is not installed.
        NotByBlocks: a dtype or number of bands that `image_format.read` must read, or refuse.
        DataError: the file is damaged.
    """

    by_blocks = True

    def __init__(self, path: str | Path, header: Header, image_format: "ImageFormat"):
        import rasterio

        self._path, self._format = path, image_format
        self.size = (header.height, header.width)
        self._environment = rasterio.Env(**OPTIONS)
        with self._reading():
            self._file = open_dataset(path, header.kind)
        try:
            self._bands = self._known_bands()
        except BaseException:
            self._file.close()
            raise
        itemsize = np.dtype(self._file.dtypes[0]).itemsize
        row_of_blocks = self._file.block_shapes[0][0] * self.size[1] * self._file.count * itemsize
        # GDAL's cache must hold a row of tiles, or tiles are decoded several times.
        self._environment = rasterio.Env(**OPTIONS, GDAL_CACHEMAX=max(_CACHE, 2 * row_of_blocks))
        self._first, self._held = 0, self._decode(0, 0)

    @contextlib.contextmanager
    def _reading(self):
        from rasterio.errors import RasterioError

        try:
            with self._environment:
                yield
        except (RasterioError, OSError) as error:
            text = " ".join(str(error.__cause__ or error).split())[:200]
            raise DataError(f"{self._path}: is not a readable picture; it may be damaged ({text})") from error

    def _known_bands(self) -> int:
        """Number of bands that are read; the alpha channel of grey and colour pictures, the last band, is not.

        Raises:
            NotByBlocks: a dtype or number of bands that `image_format.read` must read, or refuse.
        """
        from rasterio.enums import ColorInterp

        channels = self._format.channels
        names, structure = self._file.colorinterp, self._file.tags(ns="IMAGE_STRUCTURE")
        has_alpha = self._file.count in (2, 4) and names[-1] == ColorInterp.alpha
        bands = self._file.count - (has_alpha and channels in (1, 3))
        dtypes = set(self._file.dtypes)
        is_colour = names[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        known = len(dtypes) == 1 and not structure.get("MINISWHITE") and int(structure.get("NBITS", 16)) in (8, 16, 32)
        known = known and ColorInterp.palette not in names and ColorInterp.cyan not in names
        if self._format.is_plain:
            known = known and dtypes <= {"uint8", "uint16"} and (bands == 1 or is_colour)
        elif dtypes & {"complex64", "complex128", "int64", "uint64"}:
            known = False
        if not known or bands not in {1: (1,), 3: (1, 3)}.get(channels, (channels,)):
            raise NotByBlocks
        return bands

    def _decode(self, top: int, bottom: int) -> np.ndarray:
        """Decodes rows, as `ImageFormat.read` returns them."""
        if top == bottom:
            return np.zeros((0, self.size[1]), np.uint8)
        channels = self._format.channels
        with self._reading():
            stored = self._file.read(list(range(1, self._bands + 1)), window=((top, bottom), (0, self.size[1])))
        rows = np.moveaxis(stored, 0, -1)
        if self._bands == 1:
            rows = rows[..., 0] if channels == 1 else np.repeat(rows, channels, axis=2)
        elif channels == 3:
            rows = rows[..., ::-1]
        if self._format.is_plain and rows.dtype == np.uint16:
            rows = as_eight_bits(rows, self._path, cut=self._file.driver == "PNG")
        return np.ascontiguousarray(scale(rows, self._format.value_range, self._path))

    def read(self, top: int, bottom: int) -> np.ndarray:
        """The rows `top` to `bottom - 1`, `[rows, W]` or `[rows, W, C]`.

        Raises:
            DataError: the file is damaged, or contains NaN or infinity.
            ValueError: the rows were released.
        """
        if top < self._first:
            raise ValueError(f"row {top} was released, the first held is {self._first}")
        end = self._first + len(self._held)
        if bottom > end:
            new = self._decode(end, bottom)
            self._held = np.concatenate([self._held, new]) if len(self._held) else new
        return self._held[top - self._first : bottom - self._first]

    def release(self, top: int) -> None:
        """Frees the rows above `top`, which will not be read again."""
        if top > self._first:
            self._held = self._held[top - self._first :].copy()
            self._first = top

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
