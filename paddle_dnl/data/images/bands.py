# SPDX-License-Identifier: Apache-2.0
"""Pictures with more than 8 bits or other than 3 channels: .npy and TIFF files, and the scaling of their values."""

import io
import logging
import math
import threading
from pathlib import Path

from paddle_dnl.data.images.untrusted import TooLarge
from paddle_dnl.errors import DataError
from paddle_dnl.log import logger
from paddle_dnl.optional import not_installed

import cv2
import numpy as np

NPY_MAGIC = b"\x93NUMPY"
# Little and big endian, classic and BigTIFF.
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_KINDS = {"shaped", "imagej", "uniform", "geotiff", "gdal", "multipage"}
# More bands than any camera has.
_MAX_TIFF_PAGES = 4096
_ALPHA = (1, 2)  # values of TIFF's ExtraSamples
# Values of at most 14 bits use at most a quarter of the 16-bit range: 64 of 256 grey levels.
_FEW_LEVELS = 1 << 14
_said, _said_few = threading.Event(), threading.Event()
# value_range -> whether a picture has 8 bits -> the first such picture of this process.
_depths: dict[tuple[float, float], dict[bool, str]] = {}


def is_npy(content: np.ndarray) -> bool:
    """Whether the content of a file, uint8, is a .npy file."""
    return content[:6].tobytes() == NPY_MAGIC


def is_tiff(content: np.ndarray) -> bool:
    """Whether the content of a file, uint8, is a TIFF."""
    return content[:4].tobytes() in TIFF_MAGICS


def is_bigtiff(content: np.ndarray) -> bool:
    """Whether the content of a file, uint8, is a BigTIFF (64-bit offsets)."""
    return content[:4].tobytes() in TIFF_MAGICS[2:]


def require_value_range(value, where: str = "value_range") -> tuple[float, float] | None:
    """`value` as (lo, hi); None stays None.

    Raises:
        DataError: not two finite numbers with lo < hi.
    """
    if value is None:
        return None
    fits = isinstance(value, list | tuple) and len(value) == 2
    if not fits or not all(type(v) in (int, float) and math.isfinite(v) for v in value) or not value[0] < value[1]:
        raise DataError(f"{where}: must be [LO, HI], two numbers with LO below HI; got {value!r}")
    return (float(value[0]), float(value[1]))


def require_finite(image: np.ndarray, path: str | Path) -> None:
    """Refuses a picture that contains NaN or infinity.

    Raises:
        DataError: it does; names the picture.
    """
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        count = int(np.count_nonzero(~np.isfinite(image)))
        raise DataError(f"{path}: holds NaN or infinity at {count} places; give missing pixels a number, such as 0")


def scale(image: np.ndarray, value_range: tuple[float, float] | None, path: str | Path) -> np.ndarray:
    """Scales the values of a picture to 0..255, which the transforms expect.

    With `value_range` (lo, hi): (image - lo) * 255 / (hi - lo), float32, without clipping; an 8-bit picture with a hi above
    255 is logged once. Without it 8-bit values are unchanged, and 16-bit values are divided by 257, which is logged once.

    Raises:
        DataError: NaN or infinity, or a dtype that needs a `value_range`.
    """
    require_finite(image, path)
    if value_range is not None:
        low, high = value_range
        if high > 255:
            _compare_depths(path, image.dtype == np.uint8, value_range)
        wide = np.float64 if image.dtype.itemsize > 4 or image.dtype in (np.int32, np.uint32) else np.float32
        return ((image.astype(wide) - wide(low)) * wide(255 / (high - low))).astype(np.float32, copy=False)
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        say_sixteen_bits(path, image)
        return image.astype(np.float32) / np.float32(257)
    raise DataError(
        f"{path}: holds {image.dtype} numbers, whose scale is not known; say which become black and white with value_range "
        "[LO, HI] in the dataset (--value_range LO HI)"
    )


def _compare_depths(path: str | Path, is_eight: bool, value_range: tuple[float, float]) -> None:
    """Warns, once per process, of an 8-bit picture that a `value_range` above 255 makes dark; names one of more bits, if any."""
    seen = _depths.setdefault(value_range, {})
    name = str(path)
    if is_eight in seen or seen.setdefault(is_eight, name) is not name:  # another thread was first
        return
    low, high = value_range
    if len(seen) == 2:
        logger.warning(
            f"{seen[True]} has 8 bits, {seen[False]} more; value_range [{low:g}, {high:g}] holds for both and makes 255 a "
            f"{(255 - low) * 255 / (high - low):.0f} on the scale 0 to 255: give all pictures one depth"
        )
    elif is_eight:
        logger.warning(
            f"{path}: has 8 bits; value_range [{low:g}, {high:g}] makes its 255 a {(255 - low) * 255 / (high - low):.0f} on the "
            "scale 0 to 255: is it meant for this picture?"
        )


def say_sixteen_bits(path: str | Path, image: np.ndarray) -> None:
    """Warns, once per process each, that 16-bit pictures are scaled from 0..65535, and if that leaves few grey levels.

    Args:
        path: path of the picture.
        image: its values, uint16.
    """
    largest = int(image.max(initial=0))
    if 0 < largest < _FEW_LEVELS:
        if not _said_few.is_set():
            _said_few.set()
            bits = largest.bit_length()
            logger.warning(
                f"{path}: has 16 bits but no number above {largest}, which fill {largest // 256 + 1} of 256 grey levels. "
                f"Set the scale: value_range [LO, HI] in the dataset (--value_range 0 {(1 << bits) - 1} for {bits} bits), which "
                "holds for all pictures: give those of 8 bits, if there are any, the same depth first"
            )
    elif not _said.is_set():
        _said.set()
        logger.warning(
            f"{path}: has 16 bits; its 0 to 65535 are read as 0 to 255. For another scale, such as that of a 12-bit camera, "
            "set value_range [LO, HI] in the dataset (--value_range LO HI)"
        )


def as_eight_bits(image: np.ndarray, path: str | Path, cut: bool = False) -> np.ndarray:
    """Converts uint16 to uint8 (65535 becomes 255), with the warnings of `say_sixteen_bits`. Rounded as by libtiff.

    Args:
        image: uint16.
        path: path of the picture.
        cut: drop the lower 8 bits instead of rounding, as libpng does.
    """
    say_sixteen_bits(path, image)
    return (image >> 8 if cut else (image.astype(np.uint32) + 128) // 257).astype(np.uint8)


def read_array(content: np.ndarray, path: str | Path, channels: int, max_pixels: int | None) -> np.ndarray:
    """Reads a .npy or TIFF file without scaling, `[H, W, C]`, or `[H, W]` for one band; colours in the order RGB.

    A grey file gives three equal bands if `channels` is 3. Otherwise the file must have `channels` bands.

    Args:
        content: the whole file, uint8.
        path: name of the file in errors.
        channels: required number of bands.
        max_pixels: largest allowed width * height; None: no limit.

    Raises:
        DataError: the file is damaged, or has another number of bands, or values that are no numbers.
        TooLarge: more pixels than allowed.
        UsageError: tifffile, needed for TIFFs, is not installed.
    """
    image = read_as_stored(content, path, channels, max_pixels)
    bands = 1 if image.ndim == 2 else image.shape[2]
    if bands == 1 and channels == 3:
        return np.repeat(image[..., None], 3, axis=2)
    if bands == 3 and channels == 1:
        return cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2GRAY)
    if bands != channels:
        raise DataError(f"{path}: has {bands} bands, expected {channels} (img_channels)")
    # OpenCV needs the machine's byte order.
    return np.ascontiguousarray(image, image.dtype.newbyteorder("="))


def read_as_stored(
    content: np.ndarray, path: str | Path, channels: int | None = None, max_pixels: int | None = None
) -> np.ndarray:
    """`read_array` with all bands of the file: `[H, W]`, or `[H, W, C]` with C > 1.

    Args:
        content, path, max_pixels: see `read_array`.
        channels: expected number of bands, to find the axis of bands in a .npy file; None: the first axis if it is shorter
            than both others, else the last.
    """
    reader = _read_npy if is_npy(content) else _read_tiff
    image = reader(content, path, channels, max_pixels)
    if image.dtype.kind not in "uif" or image.size == 0:
        raise DataError(
            f"{path}: holds {list(image.shape)} {image.dtype} numbers; a picture has whole numbers or floats"
        )
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    return image


def _require_size(height: int, width: int, values: int, path, max_pixels: int | None, channels: int | None) -> None:
    if max_pixels is not None and (height * width > max_pixels or values > max(4, channels or 0) * max_pixels):
        raise TooLarge(f"{path}: has {width}x{height} pixels, {values} values; allowed are {max_pixels} (--max_pixels)")


def _read_npy(content: np.ndarray, path, channels: int | None, max_pixels: int | None) -> np.ndarray:
    """Reads `[H, W]`, `[H, W, C]` or `[C, H, W]`. Bands are the last axis, unless only the first one has the expected length."""
    try:
        stream = io.BytesIO(content.tobytes())
        if max_pixels is not None:
            version = np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape = header(stream)[0]
            _require_size(*sorted((0, 0, *shape))[-2:], math.prod(shape), path, max_pixels, channels)
            stream.seek(0)
        array = np.load(stream, allow_pickle=False)
    except DataError:
        raise
    except Exception as error:  # NumPy raises many kinds of exceptions for damaged headers
        raise DataError(f"{path}: is not a readable .npy file ({' '.join(str(error).split())[:200]})") from error
    if array.ndim not in (2, 3):
        raise DataError(f"{path}: is an array {list(array.shape)}; a picture is [H, W], [H, W, C] or [C, H, W]")
    shape = array.shape
    first = shape[0] < min(shape[1:]) if channels is None else shape[-1] != channels and shape[0] == channels
    if array.ndim == 3 and first:
        array = np.moveaxis(array, 0, -1)
    return array


def _read_tiff(content: np.ndarray, path, channels: int | None, max_pixels: int | None) -> np.ndarray:
    """Reads the first series of a TIFF or GeoTIFF: a page with all bands, or one page per band."""
    try:
        import tifffile
    except ImportError as error:
        raise not_installed(f"{path}: TIFF of more than 8 bits or three bands", error, "bands") from error
    # tifffile logs each damaged page; errors that matter are raised as well.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        # Only the TIFF variants whose pixels are all in this file, and no XML of other programs.
        others = {f"is_{kind}": False for kind in tifffile.TIFF.FILE_FLAGS - _TIFF_KINDS}
        with tifffile.TiffFile(io.BytesIO(content.tobytes()), **others) as file:
            if len(file.pages) > _MAX_TIFF_PAGES:  # a page takes tifffile 0.1 ms and needs only 18 bytes in the file
                raise DataError(f"{path}: a TIFF of {len(file.pages)} pages is not read, {_MAX_TIFF_PAGES} are allowed")
            series = file.series[0]
            page, axes, shape = series.keyframe, series.axes, series.shape
            if {"Y", "X"} - set(axes):
                raise DataError(f"{path}: a TIFF with the axes {axes}, expected Y and X; save it as one picture")
            y, x = axes.index("Y"), axes.index("X")
            _require_size(shape[y], shape[x], math.prod(shape), path, max_pixels, channels)
            if page.photometric in (tifffile.PHOTOMETRIC.PALETTE, tifffile.PHOTOMETRIC.MINISWHITE):
                raise DataError(
                    f"{path}: a TIFF of the kind {page.photometric.name}, whose numbers are no brightness; save it as MINISBLACK"
                )
            array = series.asarray()
            alpha = bool(page.extrasamples) and page.extrasamples[-1] in _ALPHA and page.photometric.name == "RGB"
    except DataError:
        raise
    except Exception as error:  # tifffile raises many kinds of exceptions for damaged files
        text = " ".join(str(error).split())[:200]
        if "imagecodecs" in text:
            text += "; pip install imagecodecs"
        raise DataError(f"{path}: is not a readable TIFF ({text})") from error
    others = [axis for axis in range(array.ndim) if axis not in (y, x) and array.shape[axis] > 1]
    if len(others) > 1:
        raise DataError(f"{path}: a TIFF of the shape {list(array.shape)} ({axes}); a picture has one axis of bands")
    array = array.transpose(*(i for i in range(array.ndim) if i not in (y, x, *others)), y, x, *others)
    array = array.reshape(array.shape[-2 - len(others) :])
    return array[..., :3] if alpha and array.ndim == 3 and array.shape[2] == 4 else array
