# SPDX-License-Identifier: Apache-2.0
"""Reads the contents of picture files, and label pictures; errors name the file."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

from paddle_dnl.errors import DataError
from paddle_dnl.files.reading import require_file

import numpy as np
from PIL import Image, UnidentifiedImageError


def read_bytes(path: str | Path) -> np.ndarray:
    """The content of a file, uint8. Supports all file names; `cv2.imread` does not.

    Raises:
        DataError: the file is missing, unreadable or empty.
    """
    try:
        require_file(path, DataError)
        content = np.fromfile(str(path), dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # the name contains a zero byte
        raise DataError(f"{str(path)!r}: is no name of a file") from error
    if content.size == 0:
        raise DataError(f"{path}: is empty (0 bytes)")
    return content


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


def require_whole(content: np.ndarray, path: str | Path) -> None:
    """Refuses truncated JPEGs, which OpenCV silently fills with grey. Nothing is decoded, and other formats are not examined.

    Args:
        content: content of the file, uint8.
        path: name of the file in errors.

    Raises:
        DataError: the file is a JPEG without an end marker after the start of its scan.
    """
    if bytes(content[:2]) != b"\xff\xd8":
        return
    # The header segments before the scan are skipped, as they may hold a thumbnail, a whole JPEG of its own.
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        at += 1 if content[at + 1] == 0xFF else 2 + int.from_bytes(content[at + 2 : at + 4].tobytes(), "big")
    if content[at:].tobytes().find(b"\xff\xd9") < 0:
        raise DataError(f"{path}: is a damaged JPEG (it ends before the picture does)")
