# SPDX-License-Identifier: Apache-2.0
"""Contents of picture files, and label pictures, with an error that names the file."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

from paddle_dnl.errors import DataError
from paddle_dnl.files.reading import require_file

import numpy as np
from PIL import Image, UnidentifiedImageError


def read_bytes(path: str | Path) -> np.ndarray:
    """The file's content; works for every name the file system allows, which `cv2.imread` does not.

    Raises:
        DataError: missing, unreadable or empty.
    """
    try:
        require_file(path, DataError)
        content = np.fromfile(str(path), dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # a byte 0 in it
        raise DataError(f"{str(path)!r}: is no name of a file") from error
    if content.size == 0:
        raise DataError(f"{path}: is empty (0 bytes)")
    return content


# Pillow reads forty formats; some are lossy, some start other programs.
_LABEL_FORMATS = ("PNG", "BMP", "TIFF", "GIF", "PPM")
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")


@contextlib.contextmanager
def open_label(path: str | Path, lossy: tuple[str, ...] = ()) -> Iterator[Image.Image]:
    """A label picture or mask as Pillow's picture, of a format that keeps numbers and colours.

    Args:
        path: the file.
        lossy: further formats that are let through, by Pillow's names.

    Raises:
        DataError: missing, damaged, larger than Pillow reads, or of another format; also for what Pillow stumbles over while
            the pixels are read in the block.
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
    except (
        Exception
    ) as error:  # Pillow passes on what its reader stumbled over: struct.error, IndexError, TypeError, ...
        raise DataError(f"{path}: is not a readable label picture; it may be damaged ({_reason(error)})") from error


def read_label(path: str | Path) -> np.ndarray:
    """Class numbers of each pixel, `[H, W]` uint8; of a palette picture the indices, not the colours.

    Numbers that do not fit (more than 256 classes in 16 bits) are int32.

    Raises:
        DataError: see `open_label`; or a picture with several channels or with fractions.
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
    # Paddle takes uint16 arrays for bfloat16, so that class numbers of 16 bit pictures would turn into almost zero.
    return label.astype(np.int32 if exceeds_byte(label) else np.uint8, copy=False)


def exceeds_byte(label: np.ndarray) -> bool:
    """Whether a label holds numbers outside of 0 to 255, which as uint8 would be taken for classes that are not meant."""
    return label.dtype.itemsize > 1 and bool(label.min() < 0 or label.max() > 255)


def _reason(error: Exception) -> str:
    """What an error of Pillow says; many say nothing without their kind."""
    return str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"


def require_whole(path: str | Path) -> None:
    """Finds JPEGs that end too early, of which OpenCV silently makes a picture with a grey rest.

    Raises:
        DataError: the file is a JPEG and its data end before the picture does.
    """
    try:
        with open(path, "rb") as file:
            if file.read(2) != b"\xff\xd8":
                return
            file.seek(0)
            with Image.open(file, formats=("JPEG", "MPO")) as picture:
                picture.load()
    except Exception as error:  # as in `open_label`
        raise DataError(f"{path}: is a damaged JPEG ({_reason(error)})") from error
