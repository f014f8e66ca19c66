# SPDX-License-Identifier: Apache-2.0
"""Atomic writing of MP4 videos."""

from pathlib import Path

from paddle_dnl.errors import DataError
from paddle_dnl.files.atomic import NewFile
from paddle_dnl.files.problems import reason

import cv2
import numpy as np


class VideoWriter:
    """Writes an MP4 (MPEG-4 part 2, the one codec that OpenCV's own library brings), whole or not at all.

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
        """Adds a frame, BGR `[H, W, 3]`; all have one size.

        Raises:
            DataError: another size than the frame before, or the file cannot be made.
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
        """Ends the file and gives it its name.

        Raises:
            DataError: it does not hold all frames; OpenCV does not say so when a disk is full.
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
        """Drops what was written, for a failure in which it is of no use."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
            self._file.discard()
