"""Images from files, with an error that names the file."""

from pathlib import Path

import cv2
import numpy as np

from paddle_dnl.errors import DataError



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
