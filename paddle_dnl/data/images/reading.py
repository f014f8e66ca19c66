# SPDX-License-Identifier: Apache-2.0
"""Reads images and labels; errors name the file."""

import contextlib
import importlib.util
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from paddle_dnl.data.images import bands
from paddle_dnl.data.images.bands import as_eight_bits, is_bigtiff, is_npy, is_tiff, read_array, say_sixteen_bits, scale
from paddle_dnl.data.images.untrusted import UnknownFormat, require_bounded
from paddle_dnl.errors import DataError

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

_NO_PLAIN_TIFF = (
    "is not a TIFF of 8 or 16 bits with one, three or four bands, or it is damaged; others are read with value_range [LO, HI] "
    "and img_channels in the dataset (--value_range LO HI)"
)


def require_file(path: str | Path) -> None:
    """Refuses paths that are no regular files; reading a pipe or device could block or never end.

    Raises:
        DataError: the file does not exist, or is a folder, pipe or device.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError(f"{path}: is a folder, pipe or device, no file")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def read_bytes(path: str | Path) -> np.ndarray:
    """The content of a file, uint8. Supports all file names; `cv2.imread` does not.

    Raises:
        DataError: the file is missing, unreadable or empty.
    """
    try:
        require_file(path)
        content = np.fromfile(str(path), dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # the name contains a zero byte
        raise DataError(f"{str(path)!r}: is no name of a file") from error
    if content.size == 0:
        raise DataError(f"{path}: is empty (0 bytes)")
    return content


def _start_of_scan(data: bytes) -> int:
    """Position of a JPEG's image data, after its header, which may contain a thumbnail that is itself a JPEG."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at


def decode_image(
    content: np.ndarray,
    path: str | Path,
    channels: int = 3,
    *,
    value_range: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    whole: bool = False,
) -> np.ndarray:
    """Decodes an image as uint8: BGR `[H, W, 3]`, grey `[H, W]` for one channel, or `[H, W, C]` for other numbers of bands.

    The EXIF orientation is applied, alpha is dropped, and CMYK and palette pictures are converted to colours. 16 bits are
    reduced to 8 (65535 becomes 255), which is logged once. With `value_range`, or other numbers of bands than 1 and 3, the
    full precision is kept.

    Args:
        content: content of the file, uint8 with at least one byte.
        path: name of the file in errors.
        channels: 3, 1, or another number of bands (.npy, TIFF and PNG files).
        value_range: stored values that become 0 and 255; the image is then float32, see `paddle_dnl.data.images.bands.scale`.
        max_pixels: for untrusted files: allow only the formats and structures of `paddle_dnl.data.images.untrusted`, and at
            most this number of pixels; checked before decoding.
        whole: refuse truncated JPEGs, which OpenCV would fill with grey.

    Raises:
        DataError: the file is damaged, too large or no image, or has a dtype that needs a `value_range`.
    """
    plain = channels in (1, 3) and value_range is None
    if is_npy(content) or (is_tiff(content) and not plain):
        image = scale(read_array(content, path, channels, max_pixels), value_range, path)
        return np.ascontiguousarray(image[..., ::-1]) if channels == 3 else image
    data = content.tobytes() if whole or max_pixels is not None else b""
    try:
        size = None if max_pixels is None else require_bounded(data, str(path), max_pixels)
    except UnknownFormat as error:
        # The header is read with Pillow, which does not know float TIFFs with several bands.
        if is_tiff(content):
            raise DataError(f"{path}: {_NO_PLAIN_TIFF}") from error
        raise
    if whole:
        # A cheap form of `require_whole`: the mark of the end must follow the start of the picture's data
        if data[:2] == b"\xff\xd8" and data.find(b"\xff\xd9", _start_of_scan(data)) < 0:
            raise DataError(f"{path}: is a damaged JPEG (it ends before the picture does)")
    if is_bigtiff(content):  # OpenCV does not read these
        image = read_array(content, path, channels, max_pixels)
        if channels == 3:
            image = image[..., ::-1]
        if image.dtype == np.uint16:
            image = as_eight_bits(image, path)
        return np.ascontiguousarray(scale(image, None, path))
    image = _decode(content, path, channels)
    # The EXIF orientation may swap width and height.
    if size is not None and sorted(image.shape[:2]) != sorted(size):
        raise DataError(
            f"{path}: is {image.shape[1]}x{image.shape[0]} after decoding, its header says {size[0]}x{size[1]}"
        )
    if plain and image.dtype == np.uint16:
        say_sixteen_bits(path, image)
        return _decode(content, path, channels, cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE)
    return scale(image, value_range, path)


def _decode(content: np.ndarray, path: str | Path, channels: int, flag: int | None = None) -> np.ndarray:
    """Decodes a picture file with OpenCV, at its own depth unless `flag` is given."""
    if flag is None:
        kinds = {1: cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH, 3: cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH}
        flag = kinds.get(channels, cv2.IMREAD_UNCHANGED)
    try:
        image = cv2.imdecode(content, flag)
    except cv2.error as error:
        raise DataError(f"{path}: cannot be decoded ({str(error).strip().splitlines()[-1]})") from error
    if image is None and is_tiff(content):
        raise DataError(f"{path}: {_NO_PLAIN_TIFF}")
    if image is None:
        raise DataError(f"{path}: is not a readable image; it may be damaged or of an unknown format")
    found = 1 if image.ndim == 2 else image.shape[2]
    if found != channels:
        raise DataError(f"{path}: has {found} bands, expected {channels} (img_channels)")
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA) if channels == 4 else image


def read_as_stored(path: str | Path) -> np.ndarray:
    """Reads a picture with its own dtype and number of bands, without scaling: `[H, W]` or `[H, W, C]`.

    Raises:
        DataError: the file is missing, damaged or no picture.
    """
    content = read_bytes(path)
    if is_npy(content) or (is_tiff(content) and importlib.util.find_spec("tifffile") is not None):
        return bands.read_as_stored(content, path)
    grey_or_colour = _decode(content, path, 3)  # with EXIF orientation
    stored = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    return grey_or_colour[..., 0] if stored is not None and stored.ndim == 2 else grey_or_colour


# Only these of Pillow's forty formats, of which some are lossy and some start other programs.
_LABEL_FORMATS = ("PNG", "BMP", "TIFF", "GIF", "PPM")
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")


@contextlib.contextmanager
def open_label(path: str | Path, lossy: tuple[str, ...] = ()) -> Iterator[Image.Image]:
    """Opens a label picture or mask with Pillow, only in lossless formats.

    Args:
        path: the file.
        lossy: lossy formats that are allowed too, by Pillow's names.

    Raises:
        DataError: the file is missing, damaged, too large for Pillow or of another format. Pillow's errors while the pixels
            are read inside the block are converted too.
    """
    content = read_bytes(path)
    try:
        with Image.open(io.BytesIO(content), formats=[*_LABEL_FORMATS, "JPEG"]) as picture:
            if picture.format in ("JPEG", "MPO") and "JPEG" not in lossy:
                raise DataError(f"{path}: is a JPEG, which changes class numbers; labels must be stored as PNG")
            if picture.format == "TIFF" and str(picture.info.get("compression", "raw")).lower() in _LOSSY_TIFF:
                kind = picture.info["compression"]
                raise DataError(
                    f"{path}: is compressed by {kind}, which changes class numbers; labels must be stored as PNG"
                )
            yield picture
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        known = ", ".join(_LABEL_FORMATS)
        raise DataError(f"{path}: is not a readable label picture, or of another format than {known}") from error
    except Exception as error:  # for damaged files Pillow raises struct.error, IndexError, TypeError, ...
        raise DataError(f"{path}: is not a readable label picture; it may be damaged ({_reason(error)})") from error


def read_label(path: str | Path) -> np.ndarray:
    """Reads the class number of each pixel, `[H, W]` uint8; of palette pictures the palette indices.

    16-bit pictures with numbers above 255 are int32.

    Raises:
        DataError: see `open_label`; or the picture has several channels, or floats.
    """
    with open_label(path) as picture:
        label = np.array(picture)
    if label.ndim != 2:
        raise DataError(
            f"{path}: has {label.shape[2]} channels; a label picture has one, with the class number of each pixel "
            "(grey or palette PNG)"
        )
    if label.dtype.kind == "f":
        raise DataError(
            f"{path}: holds {label.dtype} numbers; a label picture has whole class numbers (8 or 16 bit PNG)"
        )
    # Not uint16, which Paddle takes for bfloat16: class numbers would become values near zero.
    return label.astype(np.int32 if exceeds_byte(label) else np.uint8, copy=False)


def exceeds_byte(label: np.ndarray) -> bool:
    """Whether a label contains numbers outside of 0 to 255, which a conversion to uint8 would turn into other classes."""
    return label.dtype.itemsize > 1 and bool(label.min() < 0 or label.max() > 255)


def _reason(error: Exception) -> str:
    """Text of an error of Pillow with its type, without which many are not understandable."""
    return str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"


def require_whole(path: str | Path) -> None:
    """Refuses truncated JPEGs, which OpenCV silently fills with grey.

    Raises:
        DataError: the file is a truncated JPEG.
    """
    try:
        with open(path, "rb") as file:
            if file.read(2) != b"\xff\xd8":
                return
            file.seek(0)
            with Image.open(file, formats=("JPEG", "MPO")) as picture:
                picture.load()
    except Exception as error:  # as in `read_label`
        raise DataError(f"{path}: is a damaged JPEG ({_reason(error)})") from error
