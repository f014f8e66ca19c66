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

# GDAL's name of each format; no other of its hundred drivers is ever tried.
DRIVERS = {"PNG": "PNG", "JPEG": "JPEG", "TIFF": "GTiff"}
# Nothing is read but the file itself: no listing of its folder, no .aux.xml or .ovr beside it. Damage is an error.
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
    """A file by rasterio, as nothing but `kind`, a format of Pillow's name. Called within `rasterio.Env(**OPTIONS)`."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        # An absolute path of a regular file is never taken for one of GDAL's virtual file systems.
        return rasterio.open(os.path.abspath(path), driver=DRIVERS[kind])


@dataclass(frozen=True)
class Place:
    """Where the pixels of a GeoTIFF are.

    Attributes:
        crs: coordinate reference system (`rasterio.crs.CRS`), None where the file names none.
        transform: (column, row) to its coordinates (`affine.Affine`).
    """

    crs: Any
    transform: Any

    @classmethod
    def of(cls, path: str | Path) -> "Place":
        """What the file itself says; files beside it (.tfw, .aux.xml) are not read.

        Raises:
            DataError: no TIFF, or one without a transform.
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
