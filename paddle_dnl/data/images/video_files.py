# SPDX-License-Identifier: Apache-2.0
"""Frames of video files and cameras."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from paddle_dnl.errors import DataError
from paddle_dnl.files.reading import open_file

import cv2
import numpy as np

EXTENSIONS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
# Some containers only estimate their number of frames.
_MISSING_FRAMES = 0.02
_DEFAULT_RATE = 25.0
# Matroska and WebM, MPEG program streams and video, ASF (WMV).
_STARTS = (b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"\0\0\1\xb3", b"0&\xb2u\x8ef\xcf\x11")
_FFMPEG_VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_FFMPEG_OPTIONS = (
    "protocol_whitelist;file|format_whitelist;mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpeg,mpegvideo,mpegts,asf"
)


def camera_index(path: str) -> int | None:
    """The camera number if the path is one (`--image_path 0`); None for files and other names."""
    return int(path) if path.isascii() and path.isdigit() and not Path(path).exists() else None


def is_video(path: str) -> bool:
    """Whether a command-line path is a video or a camera."""
    return camera_index(path) is not None or (Path(path).suffix.lower() in EXTENSIONS and "*" not in path)


def _require_container(path: str) -> None:
    """Refuses files that are no video container according to their first bytes.

    The ending is not enough, because FFmpeg decides by content: a text file named `.mp4` can be a playlist or a `concat` list,
    which reads other files.

    Raises:
        DataError: the file is no known video container.
    """
    with open_file(path) as file:
        head = file.read(189)
    is_mp4 = head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
    is_avi = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    is_transport_stream = head[:1] == b"G" and head[188:] == b"G"
    if not (is_mp4 or is_avi or is_transport_stream or head.startswith(_STARTS)):
        raise DataError(
            f"{path}: is not a readable video (by content no MP4, MOV, AVI, MKV, WebM, MPEG or WMV); is it damaged?"
        )


def _open_file(path: str) -> cv2.VideoCapture:
    """Opens a file with FFmpeg, which is restricted to this file and to the known containers."""
    before = os.environ.get(_FFMPEG_VARIABLE)
    os.environ[_FFMPEG_VARIABLE] = "|".join(filter(None, [_FFMPEG_OPTIONS, before]))
    try:
        # Absolute, because FFmpeg could take a relative path for a protocol such as `concat:`.
        return cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
    finally:
        if before is None:
            del os.environ[_FFMPEG_VARIABLE]
        else:
            os.environ[_FFMPEG_VARIABLE] = before


class Video:
    """A video file, or a camera by its number.

    Attributes:
        title: its name in messages.
        name: name of its results, without ending.
        rate: frames per second; 25 if the source does not specify it.
        is_camera: whether it is a camera, which has no end.

    Raises:
        DataError: the file does not exist, is empty or cannot be opened.
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
            _require_container(path)
        self._capture = cv2.VideoCapture(index) if self.is_camera else _open_file(path)
        if not self._capture.isOpened():
            what = "cannot be opened" if self.is_camera else "is not a readable video; it may be damaged"
            raise DataError(f"{self.title}: {what}")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if math.isfinite(rate) and 0 < rate <= 1000 else _DEFAULT_RATE

    def frames(self, limit: int | None = None, stride: int = 1) -> Iterator[np.ndarray]:
        """Yields frames, BGR `[H, W, 3]`, rotated upright: every `stride`-th from the first on, at most `limit`.

        Raises:
            DataError: there is no frame, or fewer than the file's header says.
        """
        announced = 0 if self.is_camera else int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        count = 0
        while limit is None or count < limit * stride:
            is_wanted = count % stride == 0
            is_there, frame = self._capture.read() if is_wanted else (self._capture.grab(), None)
            if not is_there:
                break
            count += 1
            if is_wanted:
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
        """Closes the file or camera."""
        self._capture.release()
