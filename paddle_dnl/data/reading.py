"""Images and labels from files, with an error that names the file."""

import io
from pathlib import Path

from paddle_dnl.errors import DataError

import cv2
import numpy as np
from PIL import Image


def read_bytes(path: str | Path) -> np.ndarray:
    """The file's content; works for every name the file system allows, which `cv2.imread` does not.

    Raises:
        DataError: missing, unreadable or empty.
    """
    try:
        content = np.fromfile(str(path), dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if content.size == 0:
        raise DataError(f"{path}: is empty (0 bytes)")
    return content


def read_image(path: str | Path, channels: int = 3) -> np.ndarray:
    """An image as uint8, BGR `[H, W, 3]` or grey `[H, W]` for one channel.

    EXIF orientation is applied, 16 bits become 8, alpha is dropped, CMYK and palettes become colours.

    Raises:
        DataError: missing, empty, damaged, or no image.
    """
    flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR
    try:
        image = cv2.imdecode(read_bytes(path), flag)
    except cv2.error as error:
        raise DataError(f"{path}: cannot be decoded ({str(error).strip().splitlines()[-1]})") from error
    if image is None:
        raise DataError(f"{path}: is not a readable image; it may be damaged or of an unknown format")
    return image


def read_label(path: str | Path) -> np.ndarray:
    """Class numbers of each pixel, `[H, W]` uint8; of a palette picture the indices, not the colours.

    Numbers that do not fit (more than 256 classes in 16 bits) are int32.

    Raises:
        DataError: missing, empty, damaged, or a picture with several channels or with fractions.
    """
    content = read_bytes(path)
    try:
        with Image.open(io.BytesIO(content)) as picture:
            label = np.array(picture)
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: is not a readable label picture; it may be damaged ({error})") from error
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
    small = label.dtype.itemsize == 1 or (label.min() >= 0 and label.max() <= 255)
    return label.astype(np.uint8 if small else np.int32, copy=False)


def require_whole(path: str | Path) -> None:
    """Finds JPEGs that end too early, of which OpenCV silently makes a picture with a grey rest.

    Raises:
        DataError: the file is a JPEG and its data end before the picture does.
    """
    with open(path, "rb") as file:
        if file.read(2) != b"\xff\xd8":
            return
        file.seek(0)
        try:
            with Image.open(file) as picture:
                picture.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: is a damaged JPEG ({error})") from error
