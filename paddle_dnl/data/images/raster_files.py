# SPDX-License-Identifier: Apache-2.0
"""Picture files opened by rasterio (GDAL): as nothing but one known format, and where a GeoTIFF lies on the earth."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddle_dnl.data.images.untrusted import ANY_SIZE, read_header
from paddle_dnl.errors import DataError
from paddle_dnl.files.reading import require_file
from paddle_dnl.optional import not_installed

# Format -> GDAL's driver; no other of GDAL's drivers is used.
DRIVERS = {"PNG": "PNG", "JPEG": "JPEG", "TIFF": "GTiff"}
# GDAL reads only the file itself: it lists no folder and reads no .aux.xml or .ovr file. Damaged files are errors.
OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
}


def require_rasterio(what):
    """The module `rasterio`.

    Raises:
        UsageError: it is not installed; `what` is what needs it.
    """
    try:
        import rasterio
        import rasterio.errors
    except ImportError as error:
        raise not_installed(f"{what}: --geotiff", error, "geo") from error
    return rasterio


def open_dataset(path: str | Path, kind: str):
    """Opens a file with rasterio, with only the driver of `kind` (format name of Pillow), within `rasterio.Env(**OPTIONS)`."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        # Absolute, because GDAL could take a relative path for one of its virtual file systems.
        return rasterio.open(os.path.abspath(path), driver=DRIVERS[kind])


@dataclass(frozen=True)
class Place:
    """The georeference of a GeoTIFF.

    Attributes:
        crs: coordinate reference system (`rasterio.crs.CRS`); None if the file has none.
        transform: from (column, row) to coordinates of the reference system (`affine.Affine`).
    """

    crs: Any
    transform: Any

    @classmethod
    def of(cls, path: str | Path) -> "Place":
        """The georeference in the file itself; files beside it (.tfw, .aux.xml) are not read.

        Raises:
            DataError: the file is no TIFF, or has no transform.
            UsageError: rasterio is not installed.
        """
        rasterio = require_rasterio(path)
        require_file(path, DataError)
        with open(path, "rb") as file:
            kind = read_header(file, str(path), ANY_SIZE).kind
        if kind != "TIFF":
            raise DataError(f"{path}: --geotiff needs GeoTIFFs, this is a {kind}; leave --geotiff out")
        try:
            with rasterio.Env(**OPTIONS), open_dataset(path, "TIFF") as file:
                if file.transform.is_identity:
                    raise DataError(
                        f"{path}: is a TIFF without a transform (ModelPixelScale and ModelTiepoint), so that a label map could "
                        "not be placed; leave --geotiff out, or set one with gdal_edit or rio edit-info"
                    )
                return cls(file.crs, file.transform)
        except rasterio.errors.RasterioError as error:
            raise DataError(f"{path}: is not a readable TIFF ({' '.join(str(error).split())[:200]})") from error
