# SPDX-License-Identifier: Apache-2.0
"""Rows of PNG, JPEG and TIFF files read by blocks, for pictures that are too large to hold.

OpenCV and Pillow decode whole pictures; rasterio (GDAL) reads parts. What GDAL would decode differently from OpenCV, such as
palettes and turned JPEGs, and pictures whose file has to be decoded whole anyway, such as interlaced PNGs, are read whole.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from paddle_dnl.data.images.bands import TIFF_MAGICS, as_eight_bits, scale
from paddle_dnl.data.images.picture_rows import ArrayRows
from paddle_dnl.data.images.raster_files import DRIVERS, OPTIONS, open_dataset
from paddle_dnl.data.images.untrusted import ANY_SIZE, Header, UnknownFormat, read_header, require_modest_tiles
from paddle_dnl.errors import DataError
from paddle_dnl.files.reading import require_file

import numpy as np

if TYPE_CHECKING:
    from paddle_dnl.data.images.image_format import ImageFormat

# Pictures of fewer pixels are read whole: 32 million are 100 MB.
BLOCKS_FROM = 32_000_000
# GDAL's JPEG decoder interpolates colours otherwise than OpenCV's (up to 16 of 255 at edges of colour), so that the same
# numbers are worth 768 MB.
JPEG_BLOCKS_FROM = 256_000_000
_PALETTE_PNG = 3
# The mark of the end lies within so many bytes from the end of a file.
_ENDS, _TAIL = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}, 1 << 16
_CACHE = 64 << 20


def open_rows(path: str | Path, image_format: "ImageFormat", max_pixels: int | None = None, whole: bool = False):
    """A picture file as rows: by blocks where it is large and rasterio is installed, else read whole.

    Args:
        path: the file.
        image_format: how it becomes an array; rows are as those of `image_format.read`.
        max_pixels, whole: see `paddle_dnl.data.images.image_format.decode_image`.

    Returns:
        `BlockRows` or `ArrayRows`.

    Raises:
        DataError: as `image_format.read`.
    """
    require_file(path, DataError)
    with open(path, "rb") as file:
        header = _header(file, path, max_pixels)
        if header is not None and _fits(header, file, image_format):
            with contextlib.suppress(ImportError, NotByBlocks):
                return BlockRows(path, header, image_format)
    return ArrayRows(image_format.read(path, max_pixels=max_pixels, whole=whole))


class NotByBlocks(Exception):
    """The file is of a kind that has to be read whole."""


def _header(file, path, max_pixels: int | None) -> Header | None:
    """None for a file that `image_format.read` is to judge."""
    limit = ANY_SIZE if max_pixels is None else max_pixels
    try:
        return read_header(file, str(path), limit)
    except UnknownFormat:
        file.seek(0)
        # Pillow knows few kinds of numbers and bands.
        return _tiff_header(path, limit) if file.read(4) in TIFF_MAGICS else None
    except DataError:
        return None


def _tiff_header(path, limit: int) -> Header | None:
    """The header of a TIFF by GDAL, under the bounds of `read_header`."""
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
    """Whether reading by blocks gives the numbers that decoding the whole gives."""
    least = JPEG_BLOCKS_FROM if header.kind == "JPEG" else BLOCKS_FROM
    if header.kind not in DRIVERS or header.orientation not in (None, 1) or header.width * header.height < least:
        return False
    if header.kind == "TIFF":
        return True
    # What is cut off is left to the other reader, which refuses it.
    file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
    if _ENDS[header.kind] not in file.read():
        return False
    if header.kind == "PNG":
        file.seek(24)
        depth, kind, _, _, interlaced = file.read(5)
        return depth >= 8 and kind != _PALETTE_PNG and not interlaced
    return header.mode in ("L", "RGB"[: image_format.channels])  # grey is computed from colours differently


class BlockRows:
    """The rows of a file, decoded once from top to bottom; those that were released are forgotten.

    Args:
        path: the file.
        header: of the file.
        image_format: how numbers of the file become rows.

    Attributes:
        size: height and width.

    Raises:
        ImportError: rasterio is not installed.
        NotByBlocks: bands or numbers that only the other reader knows or refuses.
        DataError: damaged.
    """

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
        # A row of tiles is decoded once only if it stays in GDAL's cache.
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
        """How many bands make the rows; opacity, the last one, is left out of grey and colour pictures.

        Raises:
            NotByBlocks: bands or numbers that only the other reader knows or refuses.
        """
        from rasterio.enums import ColorInterp

        channels, range_ = self._format.channels, self._format.value_range
        names, structure = self._file.colorinterp, self._file.tags(ns="IMAGE_STRUCTURE")
        has_alpha = self._file.count in (2, 4) and names[-1] == ColorInterp.alpha
        bands = self._file.count - (has_alpha and channels in (1, 3))
        dtypes = set(self._file.dtypes)
        plain = channels in (1, 3) and range_ is None
        is_colour = names[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        known = len(dtypes) == 1 and not structure.get("MINISWHITE") and int(structure.get("NBITS", 16)) in (8, 16, 32)
        known = known and ColorInterp.palette not in names and ColorInterp.cyan not in names
        if plain:
            known = known and dtypes <= {"uint8", "uint16"} and (bands == 1 or is_colour)
        elif dtypes & {"complex64", "complex128", "int64", "uint64"}:
            known = False
        if not known or bands not in {1: (1,), 3: (1, 3)}.get(channels, (channels,)):
            raise NotByBlocks
        return bands

    def _decode(self, top: int, bottom: int) -> np.ndarray:
        """Rows as `ImageFormat.read` gives them."""
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
        if channels in (1, 3) and self._format.value_range is None and rows.dtype == np.uint16:
            rows = as_eight_bits(rows, self._path, cut=self._file.driver == "PNG")
        return np.ascontiguousarray(scale(rows, self._format.value_range, self._path))

    def read(self, top: int, bottom: int) -> np.ndarray:
        """The rows from `top` to before `bottom`, `[rows, W]` or `[rows, W, C]`.

        Raises:
            DataError: damaged, or numbers that are no measurements.
            ValueError: rows that were released.
        """
        if top < self._first:
            raise ValueError(f"row {top} was released, the first held is {self._first}")
        end = self._first + len(self._held)
        if bottom > end:
            new = self._decode(end, bottom)
            self._held = np.concatenate([self._held, new]) if len(self._held) else new
        return self._held[top - self._first : bottom - self._first]

    def release(self, top: int) -> None:
        """Rows above `top` will not be asked for again."""
        if top > self._first:
            self._held = self._held[top - self._first :].copy()
            self._first = top

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


@dataclass
class Tiled:
    """A picture that is too large for a model and is worked through in tiles."""

    rows: ArrayRows | BlockRows

    @property
    def is_stream(self) -> bool:
        """Whether it is so large that its results are better written in strips."""
        return isinstance(self.rows, BlockRows) or self.rows.size[0] * self.rows.size[1] >= BLOCKS_FROM
