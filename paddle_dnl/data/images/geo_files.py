# SPDX-License-Identifier: Apache-2.0
"""GeoTIFF: writing label maps with the georeference of their pictures."""

from pathlib import Path

from paddle_dnl.data.classes import Colors, label_palette
from paddle_dnl.data.images.raster_files import Place, require_rasterio
from paddle_dnl.files.atomic import NewFile

import numpy as np

# Side of the tiles of a label map in pixels; TIFF requires multiples of 16.
_TILE = 256


class GeoTiffFile(NewFile):
    """Writes a label map as GeoTIFF, from top to bottom: tiled, deflate compression, class colours, BigTIFF from 4 GB on.

    Args:
        path: final name.
        size: height and width.
        colors: (red, green, blue) of each class; more than 256 classes are stored in 16 bits without colours.
        place: georeference of the picture.

    Raises:
        OutputError: a file of this name exists that this package did not write.
    """

    def __init__(self, path: Path, size: tuple[int, int], colors: Colors, place: Place):
        rasterio = require_rasterio(path)
        super().__init__(path)
        self._environment, self._waiting, self._done = rasterio.Env(GDAL_PAM_ENABLED="NO"), [], 0
        is_wide = len(colors) > 256
        self._size = size
        try:
            with self.naming_errors(), self._environment:
                self._dataset = rasterio.open(
                    self.temporary, "w", driver="GTiff", height=size[0], width=size[1], count=1,
                    dtype="uint16" if is_wide else "uint8", crs=place.crs, transform=place.transform, tiled=True,
                    blockxsize=_TILE, blockysize=_TILE, compress="deflate", BIGTIFF="IF_SAFER",
                )  # fmt: skip
                if not is_wide:
                    self._dataset.write_colormap(
                        1, {i: tuple(map(int, c)) for i, c in enumerate(label_palette(colors))}
                    )
        except BaseException:
            super().discard()
            raise

    def write(self, labels: np.ndarray) -> None:
        """Adds rows. They are written when a row of tiles is complete, so that each tile is compressed once."""
        self._waiting.append(labels)
        if sum(map(len, self._waiting)) >= _TILE:
            rows = np.concatenate(self._waiting)
            whole = len(rows) // _TILE * _TILE
            self._put(rows[:whole])
            self._waiting = [rows[whole:]]

    def _put(self, rows: np.ndarray) -> None:
        if len(rows):
            with self._environment:
                window = ((self._done, self._done + len(rows)), (0, self._size[1]))
                self._dataset.write(rows.astype(self._dataset.dtypes[0], copy=False), 1, window=window)
            self._done += len(rows)

    def finish(self) -> None:
        """Writes the remaining rows and closes the file."""
        self._put(np.concatenate(self._waiting))
        self._dataset.close()

    def discard(self) -> None:
        """Closes the file and deletes it, unless it has its final name already."""
        try:
            self._dataset.close()
        finally:
            super().discard()


def save_geotiff(path: Path, label: np.ndarray, colors: Colors, place: Place) -> None:
    """Writes a whole label map `[H, W]`."""
    file = GeoTiffFile(path, label.shape, colors, place)
    try:
        with file.naming_errors():
            file.write(label)
            file.finish()
        file.commit()
    finally:
        file.discard()
