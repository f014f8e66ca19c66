# SPDX-License-Identifier: Apache-2.0
"""Atomic writing of MP4 videos."""

from pathlib import Path

from paddle_dnl.errors import DataError
from paddle_dnl.files.atomic import NewFile
from paddle_dnl.files.problems import reason

import cv2
import numpy as np


class VideoWriter:
    """Writes an MP4 atomically. The codec is MPEG-4 part 2, the only one that is included in OpenCV's packages.

    Args:
        path: a name that ends in .mp4.
        rate: frames per second.
    """

    def __init__(self, path: Path, rate: float):
        self.path, self._rate = path, rate
        self._file: NewFile | None = None
        self._writer = None
        self._size: tuple | None = None
        self._count = 0

    def write(self, frame: np.ndarray) -> None:
        """Adds a frame, BGR `[H, W, 3]`.

        Raises:
            DataError: the frame has another size than the first one, or OpenCV cannot create the file.
        """
        size = (frame.shape[1], frame.shape[0])
        if self._writer is None:
            self._file = NewFile(self.path)
            codec = cv2.VideoWriter_fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._file.temporary), codec, self._rate, size)
            self._size = size
            if not self._writer.isOpened():
                self.discard()
                raise DataError(f"{self.path}: OpenCV cannot write this video; --video_output frames writes pictures")
        if size != self._size:
            raise DataError(f"{self.path}: frame {self._count} is {size}, those before are {self._size}")
        self._writer.write(frame)
        self._count += 1

    def close(self) -> None:
        """Completes the file and renames it to its final name.

        Raises:
            DataError: the file does not contain all frames, for instance because the disk is full, which OpenCV does not report.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        try:
            reader = cv2.VideoCapture(str(self._file.temporary))
            found = int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
            reader.release()
            if found != self._count:
                why = reason(DataError("is the disk full?"), self.path)
                raise DataError(f"{self.path}: only {found} of {self._count} frames could be written: {why}")
            self._file.commit()
        finally:
            self._file.discard()

    def discard(self) -> None:
        """Deletes the unfinished file."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
            self._file.discard()
