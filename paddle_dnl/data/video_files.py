# SPDX-License-Identifier: Apache-2.0
"""Videos and cameras as pictures."""

import math
from collections.abc import Iterator
from pathlib import Path

from paddle_dnl.errors import DataError

import cv2
import numpy as np

EXTENSIONS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
# Containers round, and some only estimate how many frames they hold.
_MISSING_FRAMES = 0.02
_DEFAULT_RATE = 25.0


def camera_index(path: str) -> int | None:
    """The number that `--image_path 0` means; None where it is a file or no number."""
    return int(path) if path.isascii() and path.isdigit() and not Path(path).exists() else None


def is_video(path: str) -> bool:
    """Whether a command line's path means a video or a camera."""
    return camera_index(path) is not None or (Path(path).suffix.lower() in EXTENSIONS and "*" not in path)


class Video:
    """A video file, or a camera by its number.

    Attributes:
        title: what messages call it.
        name: name of its results, without ending.
        rate: frames per second, 25 where the source does not know.
        is_camera: it has no end.

    Raises:
        DataError: not there, empty, or nothing that can be opened.
    """

    def __init__(self, path: str):
        index = camera_index(path)
        self.is_camera = index is not None
        self.title = f"camera {index}" if self.is_camera else path
        self.name = f"camera_{index}" if self.is_camera else Path(path).stem
        if not self.is_camera:
            if not Path(path).is_file():
                raise DataError(f"{path}: no such video")
            if Path(path).stat().st_size == 0:
                raise DataError(f"{path}: is empty (0 bytes)")
        self._capture = cv2.VideoCapture(index if self.is_camera else path)
        if not self._capture.isOpened():
            what = "cannot be opened" if self.is_camera else "is not a readable video; it may be damaged"
            raise DataError(f"{self.title}: {what}")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if math.isfinite(rate) and 0 < rate <= 1000 else _DEFAULT_RATE

    def frames(self, limit: int | None = None) -> Iterator[np.ndarray]:
        """BGR `[H, W, 3]`, upright, at most `limit` of them.

        Raises:
            DataError: no frame at all, or the end comes before what the file announces.
        """
        announced = 0 if self.is_camera else int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        count = 0
        while limit is None or count < limit:
            is_there, frame = self._capture.read()
            if not is_there:
                break
            count += 1
            yield frame
        else:
            return
        if count == 0:
            raise DataError(f"{self.title}: holds no frame that can be read")
        if self.is_camera:
            raise DataError(f"{self.title}: gave no more pictures after {count}")
        if count < announced - max(1, _MISSING_FRAMES * announced):
            raise DataError(f"{self.title}: ends after {count} of {announced} frames; the file is damaged")

    def close(self) -> None:
        """Gives the file or camera back."""
        self._capture.release()
